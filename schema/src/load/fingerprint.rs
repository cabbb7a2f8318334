//! What a service means, as a hash: it changes exactly when its containers must be replaced.

use crate::yaml::{Entry, Map, Node, Value};
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// Attributes that say how a container comes to be, not what it is.
const EXCLUDED: [&str; 5] = ["build", "pull_policy", "scale", "depends_on", "profiles"];

/// sha256, in hexadecimal, of the canonical service without what stands in [`EXCLUDED`] and `deploy.replicas`:
/// one line of JSON with all keys in order, so that equal services give equal text.
pub(super) fn fingerprint(service: &Node) -> String {
    let mut hash = Hash(Sha256::new());
    let counts =
        |key: &str, entry: &Entry| !(EXCLUDED.contains(&key) || (key == "deploy" && says_nothing(entry)));
    let written = match &service.value {
        Value::Map(map) => members(&mut hash, map, counts, |hash, key, node| match (key, &node.value) {
            ("deploy", Value::Map(deploy)) => {
                members(hash, deploy, |key, _| key != "replicas", |h, _, n| json(h, n))
            }
            _ => json(hash, node),
        }),
        _ => json(&mut hash, service),
    };
    written.expect("hashing cannot fail");
    hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn says_nothing(deploy: &Entry) -> bool {
    deploy.node.as_map().is_some_and(|map| map.keys().all(|key| key == "replicas"))
}

/// A hash to write into.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn json(out: &mut Hash, node: &Node) -> io::Result<()> {
    match &node.value {
        Value::Null => out.write_all(b"null"),
        Value::Bool(is) => write!(out, "{is}"),
        Value::Int(number) => write!(out, "{number}"),
        Value::Float(number) => Ok(serde_json::to_writer(out, number)?),
        Value::Str(text) => Ok(serde_json::to_writer(out, text)?),
        Value::Map(map) => members(out, map, |_, _| true, |out, _, node| json(out, node)),
        Value::Seq(items) => {
            for (position, item) in items.iter().enumerate() {
                out.write_all(if position == 0 { b"[" } else { b"," })?;
                json(out, item)?;
            }
            out.write_all(if items.is_empty() { b"[]" } else { b"]" })
        }
    }
}

/// Those members that count, by key.
fn members(
    out: &mut Hash,
    map: &Map,
    counts: impl Fn(&str, &Entry) -> bool,
    mut write: impl FnMut(&mut Hash, &str, &Node) -> io::Result<()>,
) -> io::Result<()> {
    let mut members: Vec<(&str, &Entry)> = map.iter().filter(|(key, entry)| counts(key, entry)).collect();
    members.sort_by_key(|(key, _)| *key);
    out.write_all(b"{")?;
    for (position, (key, entry)) in members.into_iter().enumerate() {
        out.write_all(if position == 0 { b"" } else { b"," })?;
        serde_json::to_writer(&mut *out, key)?;
        out.write_all(b":")?;
        write(out, key, &entry.node)?;
    }
    out.write_all(b"}")
}
