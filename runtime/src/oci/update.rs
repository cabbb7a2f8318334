//! Other limits for a container that exists.

use super::store::Status;
use super::{Result, Runtime};
use crate::launch::{LaunchError, Named};
use oci_spec::runtime::{LinuxResources, LinuxResourcesBuilder};
use serde_json::{Map, Value};

/// What is to be changed, in the form of the spec's `resources`; what is not there stays.
#[derive(Debug, Clone, Default)]
pub struct Update(Map<String, Value>);

impl Update {
    /// A whole document.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut value: Value = serde_json::from_slice(bytes).named("read the resources")?;
        drop(super::config::tidy(&mut value));
        match value {
            Value::Object(mut fields) => {
                fields.shift_remove("ociVersion");
                Ok(Self(fields))
            }
            _ => Err(LaunchError::new("read the resources", "it is no object")),
        }
    }

    /// One value, e.g. `("memory", "limit")`; `None` stays as it is.
    pub fn set(&mut self, section: &str, key: &str, value: Option<Value>) {
        let Some(value) = value else { return };
        let section = self.0.entry(section).or_insert_with(|| Value::Object(Map::new()));
        section[key] = value;
    }
}

impl Runtime {
    /// Applies limits and remembers them.
    ///
    /// # Errors
    /// The container has ended; the kernel refuses one.
    pub fn update(&self, id: &str, update: Update) -> Result<()> {
        let record = self.load(id)?;
        if self.status(&record) == Status::Stopped {
            return Err(LaunchError::new(format!("update {id:?}"), "container not running"));
        }
        let mut fields = update.0;
        // Device rules are the container's for life.
        fields.shift_remove("devices");
        fields.shift_remove("intelRdt");
        let mut bundle = self.load_bundle(id)?;
        let linux = bundle
            .spec
            .linux_mut()
            .as_mut()
            .ok_or_else(|| LaunchError::new("update", "the config has no linux"))?;
        let known = linux.resources().clone().unwrap_or_default();
        let wanted = complete(fields, &known)?;
        let unmet = record.group()?.limit(&wanted);
        if !unmet.is_empty() {
            return Err(LaunchError::new("set the limits", unmet.join("; ")));
        }
        let mut all = serde_json::to_value(&known).named("encode the limits")?;
        merge(&mut all, serde_json::to_value(&wanted).named("encode the limits")?);
        linux.set_resources(Some(serde_json::from_value(all).named("decode the limits")?));
        self.save_bundle(&bundle)
    }
}

/// Only what changes, but for the sum of memory and swap, which may not be below memory alone.
fn complete(mut fields: Map<String, Value>, known: &LinuxResources) -> Result<LinuxResources> {
    let known = serde_json::to_value(known).named("encode the limits")?;
    if let Some(memory) = fields.get_mut("memory").filter(|memory| memory.is_object()) {
        let before = |key: &str| known.pointer(&format!("/memory/{key}")).cloned();
        let is_set = |value: Option<&Value>| value.and_then(Value::as_i64).is_some_and(|value| value != 0);
        if !is_set(memory.get("swap")) {
            // Without a limit of memory there is none of the sum.
            let unlimited = memory.get("limit").and_then(Value::as_i64) == Some(-1);
            let swap = if unlimited { Some(Value::from(-1)) } else { before("swap") };
            swap.into_iter().for_each(|swap| memory["swap"] = swap);
        } else if !is_set(memory.get("limit")) {
            before("limit").into_iter().for_each(|limit| memory["limit"] = limit);
        }
    }
    if fields.is_empty() {
        return Ok(LinuxResourcesBuilder::default().build().expect("no field is required"));
    }
    serde_json::from_value(Value::Object(fields)).named("read the resources")
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let known: LinuxResources =
            serde_json::from_str(r#"{"memory":{"limit":10,"swap":20},"pids":{"limit":5}}"#).unwrap();
        let mut update = Update::default();
        update.set("memory", "limit", Some(15.into()));
        update.set("cpu", "shares", None);
        let wanted = complete(update.0, &known).unwrap();
        assert_eq!(wanted.memory().unwrap().swap(), Some(20));
        assert_eq!(wanted.memory().unwrap().limit(), Some(15));
        assert!(wanted.cpu().is_none() && wanted.pids().is_none());
    }
}
