//! A build cache that travels: records of steps with their layers, in a registry, a directory, or in the image itself.
//!
//! ```text
//! manifest: an OCI image manifest   config: {"version":1,"records":[{key, diff_id, parent, created, created_by, layer}]}
//!           and what only `stack cache export` writes: see `travel`
//! inline:   the image's own manifest; the records, without `layer`, are in its config under `dev.stack.cache`
//! ```
//!
//! Keys hold nothing of the machine, so what another one made under a key is this step's layer. Reading is lazy: records
//! first, and a layer only when its step comes. A source that cannot be read is a warning; a target that cannot be
//! written fails the build unless `ignore-error=true` says otherwise. BuildKit's own caches have other keys, and are of
//! no use here.

use super::csv;
use super::failure::{BuildFailure, Result};
use super::state::Made;
use super::travel::{Base, Below, Download, Mounted};
use serde::{Deserialize, Serialize};
use stack_runtime::image::artifact::{Found, Place, Version};
use stack_runtime::image::config::Document;
use stack_runtime::image::digest::chain;
use stack_runtime::image::manifest::{Descriptor, Manifest};
use stack_runtime::image::progress::silent;
use stack_runtime::image::store::DOCUMENT_MAX;
use stack_runtime::image::{Digest, Platform, Reference, Store, pull, push};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

const CONFIG: &str = "application/vnd.stack.cacheconfig.v1+json";
/// In the config of an image that carries its cache.
pub(super) const INLINE: &str = "dev.stack.cache";
const FORMAT: u32 = 1;

/// Where a cache comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFrom(Place);

/// Where a cache goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    target: Target,
    /// Steps of all stages, not only those of the result.
    is_max: bool,
    ignores_errors: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Place(Place),
    /// The image itself.
    Inline,
}

type Text<T> = std::result::Result<T, String>;

/// Fields of a line with its type; a line without fields is a reference.
fn typed(text: &str) -> Text<(String, BTreeMap<String, String>)> {
    let fields = csv::fields(text)?;
    if let [(key, reference)] = fields.as_slice()
        && key.is_empty()
    {
        return Ok(("registry".into(), [("ref".to_owned(), reference.clone())].into()));
    }
    let mut fields: BTreeMap<String, String> = fields.into_iter().collect();
    let kind = fields.remove("type").ok_or_else(|| format!("`{text}` has no type"))?;
    Ok((kind, fields))
}

fn registry(fields: &BTreeMap<String, String>) -> Text<Place> {
    let reference = fields.get("ref").ok_or("a cache in a registry needs a ref")?;
    Reference::parse(reference).map(Place::Registry).map_err(|e| e.to_string())
}

fn layout(fields: &BTreeMap<String, String>, key: &str, base: &Path) -> Text<Place> {
    let path = fields.get(key).ok_or_else(|| format!("a cache in a directory needs {key}"))?;
    let digest =
        fields.get("digest").map(|text| Digest::parse(text).map_err(|e| e.to_string())).transpose()?;
    let version = match (digest, fields.get("tag")) {
        (Some(digest), _) => Version::Digest(digest),
        (None, Some(tag)) => Version::Tag(tag.clone()),
        (None, None) => Version::Any,
    };
    Ok(Place::Layout { directory: base.join(path), version })
}

fn unsupported(kind: &str) -> String {
    format!("a cache of type `{kind}` is not supported; registry, local and inline are")
}

impl CacheFrom {
    /// `base`: where relative paths begin.
    ///
    /// # Errors
    /// A sentence about what was written.
    pub fn parse(text: &str, base: &Path) -> Text<Self> {
        let (kind, fields) = typed(text)?;
        match kind.as_str() {
            "registry" => registry(&fields).map(Self),
            "local" => layout(&fields, "src", base).map(Self),
            kind => Err(unsupported(kind)),
        }
    }
}

impl CacheTo {
    /// As [`CacheFrom::parse`].
    ///
    /// # Errors
    /// A sentence about what was written.
    pub fn parse(text: &str, base: &Path) -> Text<Self> {
        let (kind, fields) = typed(text)?;
        let target = match kind.as_str() {
            "registry" => registry(&fields).map(Target::Place)?,
            "local" => layout(&fields, "dest", base).map(Target::Place)?,
            "inline" => Target::Inline,
            kind => return Err(unsupported(kind)),
        };
        let is_max = match fields.get("mode").map(String::as_str) {
            None | Some("min") => false,
            Some("max") => true,
            Some(other) => return Err(format!("invalid cache mode `{other}`: it has to be min or max")),
        };
        let ignored = fields.get("ignore-error").map(|value| csv::flag("ignore-error", value)).transpose()?;
        Ok(Self { target, is_max, ignores_errors: ignored.unwrap_or(false) })
    }

    pub(super) fn is_inline(&self) -> bool {
        self.target == Target::Inline
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Records {
    version: u32,
    pub(super) records: Vec<Record>,
    #[serde(flatten)]
    pub(super) extra: Extra,
}

/// What a whole cache has besides its steps.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Extra {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) below: Vec<Below>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) images: Vec<Base>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<Mounted>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) downloads: Vec<Download>,
}

impl Records {
    pub(super) fn new(records: Vec<Record>, extra: Extra) -> Self {
        Self { version: FORMAT, records, extra }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: Digest,
    pub(super) diff_id: Digest,
    /// Chain id that the layer was made on; empty: nothing.
    pub(super) parent: String,
    pub(super) created: String,
    #[serde(default)]
    pub(super) created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) layer: Option<Descriptor>,
}

/// A step of this build.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) key: Digest,
    pub(super) parent: String,
    pub(super) made: Made,
    pub(super) created_by: String,
}

impl Step {
    pub(super) fn record(&self, layer: Option<Descriptor>) -> Record {
        Record {
            key: self.key.clone(),
            diff_id: self.made.diff_id.clone(),
            parent: self.parent.clone(),
            created: self.made.created.clone(),
            created_by: self.created_by.chars().take(500).collect(),
            layer,
        }
    }
}

/// What the sources of a build have.
#[derive(Default)]
pub(super) struct Imported {
    sources: Vec<Found>,
    /// By key: the source's place, and the record with its layer.
    records: HashMap<Digest, (usize, Record)>,
}

impl Imported {
    /// Reads the records; `warn` is told which source cannot be read.
    pub(super) async fn read(
        store: &Store,
        sources: &[CacheFrom],
        platform: Option<&Platform>,
        warn: impl Fn(String),
    ) -> Self {
        let mut imported = Self::default();
        for CacheFrom(place) in sources {
            let found = place.find(store, platform, &silent).await.map_err(|e| e.to_string());
            let read = found.and_then(|found| records(&found).map(|records| (found, records)));
            match read {
                Ok((found, records)) => imported.add(found, records),
                Err(why) => warn(format!("the cache of {place} cannot be used: {why}")),
            }
        }
        imported
    }

    /// An earlier source wins.
    fn add(&mut self, found: Found, records: Vec<Record>) {
        let index = self.sources.len();
        self.sources.push(found);
        for record in records {
            self.records.entry(record.key.clone()).or_insert((index, record));
        }
    }

    /// The layer of a key, brought into the store on top of `parent`; `None`: no source has it.
    pub(super) async fn take(&self, store: &Store, key: &Digest, parent: &str) -> Result<Option<Made>> {
        let Some((index, record)) = self.records.get(key) else { return Ok(None) };
        let Some(layer) = record.layer.as_ref().filter(|_| record.parent == parent) else { return Ok(None) };
        self.sources[*index].fetch(store, layer, &silent).await?;
        let (store, layer, parent, diff_id) =
            (store.clone(), layer.clone(), parent.to_owned(), record.diff_id.clone());
        let made = Made {
            chain_id: chain(&parent, &diff_id),
            diff_id: diff_id.clone(),
            created: record.created.clone(),
        };
        super::shared::blocking(move || Ok(pull::unpack(&store, &layer, &parent, &diff_id)?)).await?;
        Ok(Some(made))
    }
}

/// All that a cache holds.
pub(super) fn read(found: &Found) -> Text<Records> {
    if found.manifest.config.media_type != CONFIG {
        return Err("it is no cache, or one of another builder".into());
    }
    let records = serde_json::from_slice(&found.config);
    records.map_err(|e| format!("its records are not valid: {e}")).and_then(of_format)
}

fn of_format(records: Records) -> Text<Records> {
    match records.version {
        FORMAT => Ok(records),
        other => Err(format!("its records have format {other}, this stack reads format {FORMAT}")),
    }
}

/// Those of a cache, or those that an image carries, each with its layer.
fn records(found: &Found) -> Text<Vec<Record>> {
    let wrong = |e: serde_json::Error| format!("its records are not valid: {e}");
    if found.manifest.config.media_type == CONFIG {
        return read(found).map(|records| records.records);
    }
    let mut value: serde_json::Value =
        serde_json::from_slice(&found.config).map_err(|_| "it is neither a cache nor an image".to_owned())?;
    let inline = value.get_mut(INLINE).map(serde_json::Value::take);
    let inline = inline.ok_or("it is an image without a cache, or a cache of another builder")?;
    let document: Document = serde_json::from_value(value).map_err(wrong)?;
    let layers: HashMap<_, _> = document.rootfs.diff_ids.iter().zip(&found.manifest.layers).collect();
    let records = serde_json::from_value(inline).map_err(wrong).and_then(of_format)?.records;
    let with_layer =
        |record: Record| Record { layer: layers.get(&record.diff_id).copied().cloned(), ..record };
    Ok(records.into_iter().map(with_layer).collect())
}

/// The records that an image carries of its own layers.
pub(super) fn inline(steps: &[Step], result: &[Digest]) -> serde_json::Value {
    let records = of_result(steps, result).map(|step| step.record(None)).collect();
    serde_json::to_value(Records::new(records, Extra::default())).expect("records are plain data")
}

fn of_result<'a>(steps: &'a [Step], result: &[Digest]) -> impl Iterator<Item = &'a Step> {
    let result: HashSet<Digest> = result.iter().cloned().collect();
    steps.iter().filter(move |step| result.contains(&step.made.diff_id))
}

/// Writes the cache to its targets. `result`: the layers of the image.
///
/// # Errors
/// A target that cannot be written and may not fail.
pub(super) async fn export(
    store: &Store,
    targets: &[CacheTo],
    steps: &[Step],
    result: &[Digest],
    warn: impl Fn(String),
) -> Result<()> {
    for target in targets {
        let Target::Place(place) = &target.target else { continue };
        let steps = match target.is_max {
            true => steps.to_vec(),
            false => of_result(steps, result).cloned().collect(),
        };
        match write(store, place, steps).await {
            Err(failure) if target.ignores_errors => {
                warn(format!("the cache cannot be exported to {place}: {failure}"));
            }
            Err(failure) => return Err(BuildFailure::doing(format!("export the cache to {place}"), failure)),
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn write(store: &Store, place: &Place, steps: Vec<Step>) -> Result<()> {
    let owned = store.clone();
    let manifest = super::shared::blocking(move || described(&owned, &steps)).await?;
    place.put(store, &manifest, &silent).await?;
    Ok(())
}

fn described(store: &Store, steps: &[Step]) -> Result<Manifest> {
    let mut records = Vec::new();
    let mut layers: Vec<Descriptor> = Vec::new();
    for step in steps {
        let layer = push::packed(store, &step.made.chain_id, &step.made.diff_id)?;
        if !layers.iter().any(|known| known.digest == layer.digest) {
            layers.push(layer.clone());
        }
        records.push(step.record(Some(layer)));
    }
    Ok(Manifest::new(config(store, &Records::new(records, Extra::default()))?, layers))
}

/// Puts the records into the store.
pub(super) fn config(store: &Store, records: &Records) -> Result<Descriptor> {
    let bytes = serde_json::to_vec(records).map_err(|e| BuildFailure::doing("describe the cache", e))?;
    if bytes.len() as u64 > DOCUMENT_MAX {
        let failure = BuildFailure::new("the cache has more steps than fit into one description");
        return Err(failure.hint("Drop what is old: `stack builder prune`."));
    }
    let digest = store.write_blob(&bytes)?;
    Ok(Descriptor::new(CONFIG, digest, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_targets() {
        let base = Path::new("/base");
        let from = |text: &str| CacheFrom::parse(text, base);
        let place = |text: &str| Place::Registry(text.parse().unwrap());
        assert_eq!(from("app:cache"), Ok(CacheFrom(place("app:cache"))));
        assert_eq!(from("type=registry,ref=app:cache"), from("app:cache"));
        let layout = |version| Place::Layout { directory: "/base/dir".into(), version };
        assert_eq!(from("type=local,src=dir"), Ok(CacheFrom(layout(Version::Any))));
        assert_eq!(from("type=local,src=/base/dir,tag=t"), Ok(CacheFrom(layout(Version::Tag("t".into())))));
        for (wrong, why) in [
            ("type=gha", "`gha` is not supported"),
            ("type=registry", "needs a ref"),
            ("type=local", "needs src"),
            ("ref=x,mode=max", "has no type"),
        ] {
            assert!(from(wrong).unwrap_err().contains(why), "{wrong}");
        }
        let to = |text: &str| CacheTo::parse(text, base);
        let whole = to("type=local,dest=dir,mode=max,ignore-error=true").unwrap();
        assert_eq!((whole.is_max, whole.ignores_errors), (true, true));
        assert!(to("type=inline").unwrap().is_inline());
        assert_eq!(to("app:cache").unwrap().target, Target::Place(place("app:cache")));
        for (wrong, why) in [("type=s3,bucket=x", "`s3`"), ("type=local,dest=d,mode=x", "mode `x`")] {
            assert!(to(wrong).unwrap_err().contains(why), "{wrong}");
        }
    }
}
