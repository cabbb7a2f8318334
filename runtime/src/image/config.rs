//! The image configuration: the JSON document whose digest is the image id.
//!
//! Docker's fields (`Healthcheck`, `Shell`, `OnBuild`, `ArgsEscaped`) are not part of the OCI
//! specification but of every image people use, so the structs here are ours. Fields that are
//! not known are kept (`other`), `null` reads as absent, and the store keeps the bytes as they
//! came, since their digest is the identity.

use super::digest::Digest;
use crate::spec::Map;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::time::Duration;

type Other = serde_json::Map<String, serde_json::Value>;

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub config: ImageConfig,
    #[serde(deserialize_with = "or_default")]
    pub rootfs: RootFs,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    #[serde(flatten)]
    pub other: Other,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One line of how the image was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// What a container made from the image gets by default. `None` and empty differ for
/// `entrypoint` and `cmd`: a builder resets the one when the other is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`.
    #[serde(with = "set", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthcheckConfig>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    #[serde(with = "set", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Map::is_empty")]
    pub labels: Map,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(flatten)]
    pub other: Other,
}

impl ImageConfig {
    /// The environment as pairs; an entry without `=` has an empty value.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")))
    }

    /// Sets one variable, in place if it is there.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        match self.env.iter_mut().find(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
            Some(existing) => *existing = entry,
            None => self.env.push(entry),
        }
    }
}

/// `["NONE"]` disables, `["CMD", …]` runs, `["CMD-SHELL", text]` runs in the shell; zero
/// durations mean the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthcheckConfig {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub interval: Duration,
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub timeout: Duration,
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub start_period: Duration,
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub start_interval: Duration,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: u32,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Go writes empty lists and maps as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// Old images have a bare string where a list belongs.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Form>::deserialize(from)?.map(|form| match form {
        Form::One(text) => vec![text],
        Form::Many(list) => list,
    }))
}

/// A set in Go's JSON: an object with empty objects.
mod set {
    use super::*;

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(set.iter().map(|key| (key, Other::new())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
        let object = Option::<Other>::deserialize(from)?;
        Ok(object.unwrap_or_default().into_iter().map(|(key, _)| key).collect())
    }
}

/// Go's durations are nanoseconds; a negative one means nothing and reads as zero.
mod nanoseconds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let nanoseconds = Option::<i64>::deserialize(from)?.unwrap_or(0);
        Ok(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTGRES: &str = r#"{
        "architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z",
        "config":{"User":"","ExposedPorts":{"5432/tcp":{}},"Env":["PATH=/usr/bin","PGDATA=/var/lib/postgresql/data"],
          "Entrypoint":["docker-entrypoint.sh"],"Cmd":["postgres"],"Volumes":{"/var/lib/postgresql/data":{}},
          "WorkingDir":"/","OnBuild":null,"Labels":null,"StopSignal":"SIGINT","ArgsEscaped":true,"Image":"",
          "Healthcheck":{"Test":["CMD-SHELL","pg_isready"],"Interval":5000000000,"Timeout":-1,"Retries":3},
          "Shell":["/bin/bash","-c"]},
        "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
        "history":[{"created_by":"/bin/sh -c #(nop) CMD","empty_layer":true}],"moby.buildkit.cache.v0":"x"}"#;

    #[test]
    fn reads_dockers_own_fields() {
        let document: Document = serde_json::from_str(POSTGRES).unwrap();
        let config = &document.config;
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert!(config.exposed_ports.contains("5432/tcp"));
        assert!(config.volumes.contains("/var/lib/postgresql/data"));
        let check = config.healthcheck.as_ref().unwrap();
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (Duration::from_secs(5), Duration::ZERO, 3)
        );
        assert_eq!(config.shell.as_deref().unwrap()[0], "/bin/bash");
        assert!(document.history[0].empty_layer);
        assert_eq!(document.other["moby.buildkit.cache.v0"], "x");
    }

    #[test]
    fn round_trips() {
        let document: Document = serde_json::from_str(POSTGRES).unwrap();
        let again: Document = serde_json::from_slice(&serde_json::to_vec(&document).unwrap()).unwrap();
        assert_eq!(again, document);
    }

    #[test]
    fn odd_forms() {
        let config: ImageConfig =
            serde_json::from_str(r#"{"Cmd":"sh","Entrypoint":[],"Env":null,"Volumes":null}"#).unwrap();
        assert_eq!(config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(config.entrypoint, Some(vec![]));
        assert!(
            serde_json::from_str::<Document>("{}").is_err()
                || serde_json::from_str::<Document>("{}").unwrap().rootfs.diff_ids.is_empty()
        );
        assert!(serde_json::from_str::<Document>(r#"{"config":[1]}"#).is_err());
    }

    #[test]
    fn sets_environment_in_place() {
        let mut config = ImageConfig { env: vec!["A=1".into(), "B=2".into()], ..Default::default() };
        config.set_env("A", "3");
        config.set_env("C", "");
        assert_eq!(config.env, ["A=3", "B=2", "C="]);
        assert_eq!(config.environment().last(), Some(("C", "")));
    }
}
