//! What a service means, as a hash: it changes exactly when its containers must be replaced. It is docker compose's own hash,
//! but that here variables from env files count and the files' names do not, and `deploy` with nothing but `replicas` is none.

use super::render;
use crate::yaml::{Map, Node};
use sha2::{Digest, Sha256};

/// Attributes that say how a container comes to be, not what it is.
const EXCLUDED: [&str; 5] = ["build", "pull_policy", "scale", "depends_on", "profiles"];

/// sha256, in hexadecimal, of the canonical service without what stands in [`EXCLUDED`] and `deploy.replicas`.
pub(super) fn fingerprint(service: &Node) -> String {
    let mut service = service.clone();
    if let Some(map) = service.as_map_mut() {
        for key in EXCLUDED {
            map.remove(key);
        }
        if let Some(deploy) = map.get_mut("deploy").and_then(Node::as_map_mut) {
            deploy.remove("replicas");
        }
        if map.get("deploy").and_then(Node::as_map).is_some_and(Map::is_empty) {
            map.remove("deploy");
        }
    }
    let digest = Sha256::digest(render::hashed(&service).as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
