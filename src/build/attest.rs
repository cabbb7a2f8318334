//! Statements about an image that travel with it: how it was built (SLSA provenance) and what is in it (SPDX).
//!
//! In a registry or an OCI layout the image becomes an index: beside its manifest one for platform `unknown/unknown`,
//! annotated with the digest that it is about, with an in-toto statement in each layer. A directory of files gets
//! `provenance.json` and `sbom.spdx.json`. Neither changes the image itself.

use super::csv;
use super::failure::{BuildFailure, Doing, Result};
use super::packages;
use super::shared::Shared;
use super::state::State;
use super::transfer;
use serde_json::{Value, json};
use stack_runtime::image::config::{Document, RootFs};
use stack_runtime::image::manifest::{Descriptor, Manifest, OCI_CONFIG};
use stack_runtime::image::{Digest, Platform, Reference, Store};

const IN_TOTO: &str = "application/vnd.in-toto+json";
const PREDICATE: &str = "in-toto.io/predicate-type";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";
/// Annotations by which registries tell a statement from an image.
pub(super) const ABOUT: &str = "vnd.docker.reference.digest";
pub(super) const TYPE: &str = "vnd.docker.reference.type";
pub(super) const ATTESTATION: &str = "attestation-manifest";

/// Which statements are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attest {
    pub provenance: Option<Detail>,
    pub sbom: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Neither build arguments nor the Dockerfile.
    Min,
    Max,
}

impl Attest {
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// `type=provenance,mode=max`, `type=sbom`; `disabled=true` takes one back.
    ///
    /// # Errors
    /// A sentence about what was written.
    pub fn add(&mut self, text: &str) -> std::result::Result<(), String> {
        let (mut kind, mut is_off, mut detail) = (String::new(), false, Detail::Min);
        for (key, value) in csv::fields(text)? {
            match (key.as_str(), value.as_str()) {
                ("type", value) => kind = value.to_owned(),
                ("disabled", value) => is_off = csv::flag("disabled", value)?,
                ("mode", "min") => detail = Detail::Min,
                ("mode", "max") => detail = Detail::Max,
                ("mode", other) => return Err(format!("invalid mode `{other}` of an attestation")),
                ("", "true") => {}
                ("", "false") => is_off = true,
                (key, value) => {
                    let field = if key.is_empty() { value } else { key };
                    return Err(format!("`{field}` of an attestation is not supported"));
                }
            }
        }
        match kind.as_str() {
            "provenance" => self.provenance = (!is_off).then_some(detail),
            "sbom" => self.sbom = !is_off,
            other => return Err(format!("attestation type `{other}` is not supported")),
        }
        Ok(())
    }
}

/// One statement, without what it is about.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) file: &'static str,
    kind: &'static str,
    predicate: Value,
}

impl Statement {
    /// Of an image by its digest and names; of files by nothing.
    pub(super) fn about(&self, digest: Option<&Digest>, names: &[Reference], platform: &Platform) -> Value {
        let subject = |name: String| match digest {
            Some(digest) => json!({ "name": name, "digest": { "sha256": digest.hex() } }),
            None => json!({ "name": name }),
        };
        let url = |name: &Reference| {
            let tag = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
            format!(
                "pkg:docker/{}{tag}?platform={}",
                name.familiar_name(),
                platform.to_string().replace('/', "%2F")
            )
        };
        let mut subjects: Vec<Value> = names.iter().map(|name| subject(url(name))).collect();
        if subjects.is_empty() {
            subjects.push(subject("_".into()));
        }
        json!({
            "_type": "https://in-toto.io/Statement/v0.1", "predicateType": self.kind, "subject": subjects,
            "predicate": self.predicate,
        })
    }
}

/// The statements that are wanted. `bases`: names of images and their digests. Blocks.
pub(super) fn statements(
    shared: &Shared,
    state: &State,
    bases: &[(String, Digest)],
) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    if let Some(detail) = shared.request.attest.provenance {
        let predicate = provenance(shared, bases, detail);
        statements.push(Statement { file: "provenance.json", kind: PROVENANCE, predicate });
    }
    if shared.request.attest.sbom {
        let predicate = spdx(shared, state)?;
        statements.push(Statement { file: "sbom.spdx.json", kind: SPDX, predicate });
    }
    Ok(statements)
}

fn provenance(shared: &Shared, bases: &[(String, Digest)], detail: Detail) -> Value {
    let request = &shared.request;
    let name = shared.file.source.name.clone();
    let mut asked = json!({ "frontend": "dockerfile.v0" });
    if let Some(target) = &request.target {
        asked["target"] = json!(target);
    }
    let mut internal = json!({ "builderPlatform": Platform::host().to_string() });
    if detail == Detail::Max {
        asked["args"] = json!(request.args);
        // Their names, never what is in them.
        asked["secrets"] = json!(request.secrets.keys().collect::<Vec<_>>());
        internal["dockerfile"] = json!(shared.file.source.text);
    }
    let bases = bases.iter().map(
        |(name, digest)| json!({ "uri": format!("pkg:docker/{name}"), "digest": { "sha256": digest.hex() } }),
    );
    let mut metadata = json!({});
    // The same inputs give the same bytes where a date was set.
    if shared.epoch.is_none() {
        metadata["finishedOn"] = json!(jiff::Timestamp::now().to_string());
    }
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": { "configSource": { "path": name }, "request": asked },
            "internalParameters": internal,
            "resolvedDependencies": bases.collect::<Vec<_>>(),
        },
        "runDetails": {
            "builder": { "id": concat!("stack/", env!("CARGO_PKG_VERSION")) },
            "metadata": metadata,
        },
    })
}

fn spdx(shared: &Shared, state: &State) -> Result<Value> {
    let (distribution, packages) = transfer::look(shared, &state.chain, packages::installed)?;
    let id = |index: usize| format!("SPDXRef-Package-{index}");
    let described = packages.iter().enumerate().map(|(index, package)| {
        let unknown = || "NOASSERTION".to_owned();
        json!({
            "SPDXID": id(index), "name": package.name, "versionInfo": package.version,
            "supplier": package.supplier.as_ref().map_or_else(unknown, |name| format!("Person: {name}")),
            "downloadLocation": "NOASSERTION", "filesAnalyzed": false, "licenseConcluded": "NOASSERTION",
            "licenseDeclared": package.license.clone().unwrap_or_else(unknown), "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": package.url(&distribution),
            }],
        })
    });
    let related = (0..packages.len()).map(|index| {
        json!({
            "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": id(index),
        })
    });
    let content = Digest::of(state.chain.as_bytes());
    let created = state.created.clone().unwrap_or_else(|| "1970-01-01T00:00:00Z".into());
    Ok(json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "image",
        "documentNamespace": format!("urn:sha256:{}", content.hex()),
        "creationInfo": {
            "created": created, "creators": [concat!("Tool: stack-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": described.collect::<Vec<_>>(), "relationships": related.collect::<Vec<_>>(),
    }))
}

/// The manifest that carries the statements about another one.
pub(super) fn manifest(
    store: &Store,
    statements: &[Statement],
    about: &Manifest,
    names: &[Reference],
    platform: &Platform,
) -> Result<Manifest> {
    let bytes = serde_json::to_vec(about).doing(|| "describe the image")?;
    let digest = Digest::of(&bytes);
    let mut layers = Vec::new();
    for statement in statements {
        let text = serde_json::to_vec(&statement.about(Some(&digest), names, platform));
        let text = text.doing(|| "write an attestation")?;
        let mut layer = Descriptor::new(IN_TOTO, store.write_blob(&text)?, text.len() as u64);
        layer.annotations.insert(PREDICATE.into(), statement.kind.into());
        layers.push(layer);
    }
    let document = Document {
        architecture: "unknown".into(),
        os: "unknown".into(),
        rootfs: RootFs { diff_ids: layers.iter().map(|l| l.digest.clone()).collect(), ..RootFs::default() },
        ..Document::default()
    };
    let config = serde_json::to_vec(&document).doing(|| "write an attestation")?;
    let config = Descriptor::new(OCI_CONFIG, store.write_blob(&config)?, config.len() as u64);
    Ok(Manifest::new(config, layers))
}

/// Beside files.
pub(super) fn write_files(
    directory: &std::path::Path,
    statements: &[Statement],
    names: &[Reference],
    platform: &Platform,
) -> Result<()> {
    for statement in statements {
        let path = directory.join(statement.file);
        let text = serde_json::to_vec_pretty(&statement.about(None, names, platform));
        let text = text.doing(|| "write an attestation")?;
        std::fs::write(&path, text)
            .map_err(|e| BuildFailure::doing(format!("write {}", path.display()), e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read() {
        let read = |lines: &[&str]| {
            let mut attest = Attest::default();
            lines.iter().try_for_each(|line| attest.add(line)).map(|()| attest)
        };
        let max = Attest { provenance: Some(Detail::Max), sbom: true };
        assert_eq!(read(&["type=provenance,mode=max", "type=sbom"]), Ok(max));
        assert_eq!(read(&["type=provenance,true"]).unwrap().provenance, Some(Detail::Min));
        assert!(read(&["type=provenance", "type=provenance,disabled=true"]).unwrap().is_none());
        assert!(read(&["type=sbom", "type=sbom,false"]).unwrap().is_none());
        for (text, why) in [("type=sbom,generator=x", "`generator`"), ("type=x", "`x`"), ("mode=min", "``")] {
            assert!(read(&[text]).unwrap_err().contains(why), "{text}");
        }
    }
}
