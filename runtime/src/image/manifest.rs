//! Manifests and indexes, in Docker's and in OCI's words.
//!
//! A registry or archive may answer with either; both have the same shape. What is not an
//! image (artifacts, the first schema) is refused by name.

use super::digest::Digest;
use super::error::{Error, Result};
use super::platform::Platform;
use super::store::LAYERS_MAX;
use crate::spec::Map;
use serde::{Deserialize, Serialize};

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

const LAYER_PREFIXES: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: Map::new(),
            urls: Vec::new(),
        }
    }
}

/// One platform's image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map,
}

/// Several platforms' images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map,
}

#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // One at a time, and taken apart at once.
pub enum Parsed {
    Manifest(Manifest),
    Index(Index),
}

impl Manifest {
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers, annotations: Map::new() }
    }
}

/// What a manifest's bytes are.
///
/// # Errors
/// When they are neither a manifest nor an index of images.
pub fn parse(bytes: &[u8], what: &str) -> Result<Parsed> {
    let invalid = |reason: &str| Error::invalid(format!("the manifest of {what}"), reason);
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| invalid(&e.to_string()))?;
    if value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
        return Err(Error::NotYet(format!("the first manifest schema, which {what} has,")));
    }
    let stated = value.get("mediaType").and_then(serde_json::Value::as_str).unwrap_or_default();
    let (is_manifest, is_index) = (value.get("layers").is_some(), value.get("manifests").is_some());
    // Who goes by the type and who goes by the members must not see two different images in the same bytes.
    if (is_manifest && [OCI_INDEX, DOCKER_INDEX].contains(&stated))
        || (is_index && [OCI_MANIFEST, DOCKER_MANIFEST].contains(&stated))
    {
        return Err(invalid(&format!("it is called `{stated}` but is something else")));
    }
    match (is_manifest, is_index) {
        (true, true) => Err(invalid("it is a manifest and an index at once")),
        (false, false) => Err(invalid("it is neither a manifest nor an index")),
        (true, false) => {
            let manifest: Manifest = serde_json::from_value(value).map_err(|e| invalid(&e.to_string()))?;
            check(&manifest, what)?;
            Ok(Parsed::Manifest(manifest))
        }
        (false, true) => {
            Ok(Parsed::Index(serde_json::from_value(value).map_err(|e| invalid(&e.to_string()))?))
        }
    }
}

fn check(manifest: &Manifest, what: &str) -> Result<()> {
    if manifest.layers.len() > LAYERS_MAX {
        return Err(Error::invalid(what, format!("it has more than {LAYERS_MAX} layers")));
    }
    let kinds = [OCI_CONFIG, DOCKER_CONFIG, ""];
    if !kinds.contains(&manifest.config.media_type.as_str()) {
        let kind = manifest.config.media_type.chars().take(100).collect::<String>();
        return Err(Error::invalid(what, format!("it is not an image but `{kind}`")));
    }
    for layer in &manifest.layers {
        if !LAYER_PREFIXES.iter().any(|p| layer.media_type.starts_with(p)) {
            let kind = layer.media_type.chars().take(100).collect::<String>();
            return Err(Error::invalid(what, format!("`{kind}` is not a layer")));
        }
    }
    Ok(())
}

/// The image of an index that fits best; the first among equals.
pub fn choose<'a>(index: &'a Index, platform: &Platform, what: &str) -> Result<&'a Descriptor> {
    let offered = || index.manifests.iter().filter(|m| !is_attestation(m));
    let mut best: Option<(u32, &Descriptor)> = None;
    for candidate in offered() {
        // An image without a platform is for everybody.
        let fit = candidate.platform.as_ref().map_or(Some(0), |p| platform.fit(p));
        if let Some(fit) = fit
            && best.is_none_or(|(known, _)| fit > known)
        {
            best = Some((fit, candidate));
        }
    }
    best.map(|(_, descriptor)| descriptor).ok_or_else(|| {
        let found: Vec<String> =
            offered().filter_map(|m| m.platform.as_ref()).take(20).map(Platform::to_string).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        Error::Platform { what: what.into(), wanted: platform.to_string(), found }
    })
}

/// Remarks about images that travel as images.
pub fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key("vnd.docker.reference.type")
        || descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: &str) -> String {
        let (os, architecture) = platform.split_once('/').unwrap();
        let digest = Digest::of(platform.as_bytes());
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":1,"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#
        )
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests: Vec<String> = platforms.iter().map(|p| descriptor(p)).collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","));
        match parse(text.as_bytes(), "x").unwrap() {
            Parsed::Index(index) => index,
            Parsed::Manifest(_) => panic!("an index"),
        }
    }

    #[test]
    fn chooses_the_platform() {
        let index = index(&["unknown/unknown", "linux/arm64", "linux/amd64"]);
        let chosen = choose(&index, &Platform::parse("linux/amd64").unwrap(), "x").unwrap();
        assert_eq!(chosen.digest, Digest::of(b"linux/amd64"));
        let error = choose(&index, &Platform::parse("linux/s390x").unwrap(), "x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no image for platform linux/s390x in x (it has linux/arm64, linux/amd64)"
        );
    }

    #[test]
    fn refuses_what_is_no_image() {
        let digest = Digest::of(b"");
        let manifest = |config: &str, layer: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{digest}","size":2}},
                "layers":[{{"mediaType":"{layer}","digest":"{digest}","size":2}}]}}"#
            )
        };
        assert!(parse(manifest(OCI_CONFIG, OCI_LAYER_ZSTD).as_bytes(), "x").is_ok());
        assert!(
            parse(
                manifest(DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip").as_bytes(),
                "x"
            )
            .is_ok()
        );
        for (text, reason) in [
            (manifest("application/vnd.cncf.helm.config.v1+json", OCI_LAYER), "not an image"),
            (manifest(OCI_CONFIG, "text/plain"), "not a layer"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), "first manifest schema"),
            (r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#.into(), "at once"),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","layers":[]}}"#), "something else"),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","manifests":[]}}"#),
                "something else",
            ),
            ("{}".into(), "neither"),
            ("[".into(), "not valid"),
        ] {
            let error = parse(text.as_bytes(), "x").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
