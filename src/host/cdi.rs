//! Devices by the Container Device Interface: what each needs in a container (nodes, mounts, variables, hooks) is
//! written down by its vendor, in YAML or JSON, in `/etc/cdi` and `/var/run/cdi`; of two that name the same device
//! the latter's holds.
//!
//! A request for GPUs (`gpus`, `deploy.resources.reservations.devices`) becomes names of such devices.

use crate::plan::spec::is_qualified;
use serde::Deserialize;
use serde_json::Value;
use stack_runtime::engine::{EngineError, ErrorKind, Result};
use stack_runtime::spec::{ContainerSpec, DeviceRequestSpec, DeviceSpec, HookSpec, MountKindSpec, MountSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The later one wins.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// What Docker takes for a request of a GPU, and whose drivers it asks, in this order.
const VENDORS: [(&str, &str, &[&str]); 2] = [
    (
        "nvidia",
        "nvidia.com/gpu",
        &["gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display"],
    ),
    ("amd", "amd.com/gpu", &["gpu", "amd"]),
];
/// Nobody has more.
const DEVICES_MAX: i64 = 1024;

/// One file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    kind: String,
    devices: Vec<Device>,
    /// For every device of the file.
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Device {
    name: Value,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    additional_gids: Vec<u32>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<String>,
    permissions: Option<String>,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// Every device of this machine that a file names.
#[derive(Debug, Default)]
struct Registry {
    documents: Vec<Document>,
    /// By its whole name: the document and the place in it.
    devices: BTreeMap<String, (usize, usize)>,
    /// Files that are not understood, and why: told only where a device is missed.
    damaged: Vec<String>,
}

/// Whether all that is asked for is there.
///
/// # Errors
/// What is missing, in Docker's words, and how to get it.
pub fn check(requests: &[DeviceRequestSpec]) -> Result<()> {
    if requests.is_empty() { Ok(()) } else { Registry::read().edits(requests).map(drop) }
}

/// Adds to a container what its devices need.
///
/// # Errors
/// As [`check`].
pub(crate) fn inject(spec: &mut ContainerSpec) -> Result<()> {
    if spec.device_requests.is_empty() {
        return Ok(());
    }
    for edits in Registry::read().edits(&spec.device_requests)? {
        edits.apply(spec);
    }
    Ok(())
}

impl Registry {
    fn read() -> Self {
        let mut registry = Self::default();
        for directory in DIRECTORIES {
            registry.add(Path::new(directory));
        }
        registry
    }

    fn add(&mut self, directory: &Path) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let is_ours =
            |path: &PathBuf| path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_ours).collect();
        paths.sort();
        for path in paths {
            match read(&path) {
                Ok(document) => self.register(document),
                Err(why) => self.damaged.push(format!("{}: {why}", path.display())),
            }
        }
    }

    fn register(&mut self, document: Document) {
        for (place, device) in document.devices.iter().enumerate() {
            // A number is a name, too.
            let name = device.name.as_str().map_or_else(|| device.name.to_string(), str::to_owned);
            self.devices.insert(format!("{}={name}", document.kind), (self.documents.len(), place));
        }
        self.documents.push(document);
    }

    /// Of all devices asked for, those of their files first.
    fn edits(&self, requests: &[DeviceRequestSpec]) -> Result<Vec<Edits>> {
        let names = requests.iter().map(|request| self.names(request)).collect::<Result<Vec<_>>>()?.concat();
        let missing: Vec<&str> =
            names.iter().filter(|name| !self.devices.contains_key(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            let message = format!("unresolvable CDI devices {}", missing.join(", "));
            return Err(EngineError::new(ErrorKind::Other, message).hint(self.hint()));
        }
        let (mut edits, mut seen) = (Vec::new(), BTreeSet::new());
        for name in names {
            let (document, place) = self.devices[&name];
            if seen.insert((document, None)) {
                edits.push(self.documents[document].container_edits.clone());
            }
            if seen.insert((document, Some(place))) {
                edits.push(self.documents[document].devices[place].container_edits.clone());
            }
        }
        edits.iter().try_for_each(Edits::check)?;
        Ok(edits)
    }

    /// The devices that a request means.
    fn names(&self, request: &DeviceRequestSpec) -> Result<Vec<String>> {
        if request.driver == "cdi" {
            return Ok(request.device_ids.clone());
        }
        let is_fit = |(driver, _, capabilities): &&(&str, &str, &[&str])| {
            (request.driver.is_empty() || request.driver == *driver)
                && request.capabilities.iter().all(|wanted| capabilities.contains(&wanted.as_str()))
        };
        let has_any = |kind: &str| self.documents.iter().any(|document| document.kind == kind);
        let vendor = VENDORS.iter().filter(is_fit).find(|(_, kind, _)| has_any(kind));
        let Some((_, kind, _)) = vendor else {
            let message = format!(
                "could not select device driver {:?} with capabilities: [[{}]]",
                request.driver,
                request.capabilities.join(" ")
            );
            return Err(EngineError::new(ErrorKind::Other, message).hint(self.hint()));
        };
        let all = vec![format!("{kind}=all")];
        Ok(match request.count {
            _ if !request.device_ids.is_empty() => {
                request.device_ids.iter().map(|id| format!("{kind}={id}")).collect()
            }
            -1 => all,
            count => (0..count.clamp(0, DEVICES_MAX)).map(|n| format!("{kind}={n}")).collect(),
        })
    }

    /// What this machine lacks, and what mends it.
    fn hint(&self) -> String {
        let known: Vec<&str> = self.devices.keys().map(String::as_str).collect();
        match () {
            () if !known.is_empty() => format!("This machine has {}.", known.join(", ")),
            () if !self.damaged.is_empty() => format!("A CDI file is not understood: {}.", self.damaged.join("; ")),
            () if Path::new("/dev/nvidiactl").exists() => {
                "The NVIDIA driver is here, and no CDI file about it: make one with `sudo nvidia-ctk cdi generate \
                 --output=/etc/cdi/nvidia.yaml` (package nvidia-container-toolkit)."
                    .into()
            }
            () if Path::new("/dev/kfd").exists() => {
                "The AMD driver is here, and no CDI file about it: make one with `sudo amd-ctk cdi generate \
                 --output=/etc/cdi/amd.json` (package amd-container-toolkit)."
                    .into()
            }
            () => "Neither /etc/cdi nor /var/run/cdi names a device, and no GPU driver is loaded (there is neither \
                   /dev/nvidiactl nor /dev/kfd). For NVIDIA, install driver and nvidia-container-toolkit, then run \
                   `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`."
                .into(),
        }
    }
}

/// JSON is YAML, too.
fn read(path: &Path) -> std::result::Result<Document, String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let document: Document = serde_yaml::from_str(&text).map_err(|e| e.to_string())?;
    match is_qualified(&format!("{}=x", document.kind)) {
        true => Ok(document),
        false => Err(format!("its kind {:?} is not of the form vendor.com/class", document.kind)),
    }
}

impl Edits {
    /// Nothing is left out in silence.
    fn check(&self) -> Result<()> {
        const HOOKS: [&str; 4] = ["prestart", "createRuntime", "createContainer", "startContainer"];
        let refuse = |what: &str| {
            Err(EngineError::new(
                ErrorKind::Other,
                format!("a CDI device asks for {what}, which stack does not do"),
            ))
        };
        if let Some(other) = self.others.keys().next() {
            return refuse(other);
        }
        match self.hooks.iter().find(|hook| !HOOKS.contains(&hook.hook_name.as_str())) {
            Some(hook) => refuse(&format!("a hook of the kind {:?}", hook.hook_name)),
            None => Ok(()),
        }
    }

    fn apply(self, spec: &mut ContainerSpec) {
        for pair in self.env {
            let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
            spec.env.retain(|(own, _)| own != key);
            spec.env.push((key.to_owned(), value.to_owned()));
        }
        spec.devices.extend(self.device_nodes.into_iter().map(|node| DeviceSpec {
            source: node.host_path.unwrap_or_else(|| node.path.clone()).into(),
            target: node.path,
            permissions: node.permissions.unwrap_or_default(),
            mode: node.file_mode,
            uid: node.uid,
            gid: node.gid,
        }));
        spec.mounts.extend(self.mounts.into_iter().map(Mount::into_spec));
        spec.group_add.extend(self.additional_gids.iter().filter(|gid| **gid != 0).map(ToString::to_string));
        spec.hooks.extend(self.hooks.into_iter().map(|hook| HookSpec {
            kind: hook.hook_name,
            path: hook.path,
            args: hook.args,
            env: hook.env,
            timeout: hook.timeout,
        }));
    }
}

impl Mount {
    fn into_spec(self) -> MountSpec {
        let read_only = self.options.iter().any(|option| option == "ro");
        let mut options = self.options;
        let kind = self.kind.filter(|kind| !kind.is_empty()).unwrap_or_else(|| "bind".into());
        if kind == "bind" && !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("rbind".into());
        }
        // It says itself whether it is read-only.
        options.retain(|option| option != "ro");
        let kind = MountKindSpec::FileSystem { kind, device: self.host_path, options };
        MountSpec { kind, target: self.container_path, read_only }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NVIDIA: &str = r#"
cdiVersion: 0.6.0
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  mounts: [{ hostPath: /usr/lib/libcuda.so.1, containerPath: /usr/lib/libcuda.so.1, options: [ro, nosuid, bind] }]
devices:
  - name: "0"
    containerEdits: { deviceNodes: [{ path: /dev/nvidia0, hostPath: /dev/null }] }
  - name: 1
    containerEdits: { deviceNodes: [{ path: /dev/nvidia1, permissions: r }] }
  - name: all
    containerEdits: { deviceNodes: [{ path: /dev/nvidia0 }, { path: /dev/nvidia1 }] }
"#;

    fn registry(texts: &[&str]) -> Registry {
        let mut registry = Registry::default();
        texts.iter().for_each(|text| registry.register(serde_yaml::from_str(text).expect("a document")));
        registry
    }

    fn request(count: i64, ids: &[&str], capabilities: &[&str]) -> DeviceRequestSpec {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        DeviceRequestSpec {
            driver: String::new(),
            count,
            device_ids: owned(ids),
            capabilities: owned(capabilities),
        }
    }

    fn container(registry: &Registry, requests: &[DeviceRequestSpec]) -> ContainerSpec {
        let mut spec = ContainerSpec::default();
        registry.edits(requests).expect("devices").into_iter().for_each(|edits| edits.apply(&mut spec));
        spec
    }

    #[test]
    fn requests_become_devices_with_what_they_need() {
        let registry = registry(&[NVIDIA]);
        let nodes = |requests: &[DeviceRequestSpec]| -> Vec<String> {
            container(&registry, requests).devices.into_iter().map(|device| device.target).collect()
        };
        assert_eq!(nodes(&[request(-1, &[], &["gpu"])]), ["/dev/nvidia0", "/dev/nvidia1"]);
        assert_eq!(nodes(&[request(1, &[], &["gpu", "utility"])]), ["/dev/nvidia0"]);
        assert_eq!(nodes(&[request(0, &["1", "0"], &["gpu"])]), ["/dev/nvidia1", "/dev/nvidia0"]);
        let named = DeviceRequestSpec {
            driver: "cdi".into(),
            device_ids: vec!["nvidia.com/gpu=1".into(), "nvidia.com/gpu=1".into()],
            ..Default::default()
        };
        assert_eq!(nodes(&[named]), ["/dev/nvidia1"]);
        let whole = container(&registry, &[request(2, &[], &["gpu"])]);
        assert_eq!(whole.env, [("NVIDIA_VISIBLE_DEVICES".to_owned(), "void".to_owned())]);
        assert_eq!((whole.mounts.len(), whole.mounts[0].read_only), (1, true));
        assert_eq!(whole.devices[0].source, Path::new("/dev/null"));
    }

    #[test]
    fn what_is_not_there_is_named_in_dockers_words() {
        let (none, nvidia) = (Registry::default(), registry(&[NVIDIA]));
        let why = |registry: &Registry, request| registry.edits(&[request]).expect_err("refused").message;
        assert_eq!(
            why(&none, request(-1, &[], &["gpu"])),
            "could not select device driver \"\" with capabilities: [[gpu]]"
        );
        assert_eq!(
            why(&nvidia, request(-1, &[], &["tpu"])),
            "could not select device driver \"\" with capabilities: [[tpu]]"
        );
        assert_eq!(why(&nvidia, request(3, &[], &["gpu"])), "unresolvable CDI devices nvidia.com/gpu=2");
        assert!(none.hint().contains("nvidia-ctk cdi generate"), "{}", none.hint());
        let later = "kind: a.b/c\ndevices: [{ name: x, containerEdits: { intelRdt: {} } }]";
        let named = DeviceRequestSpec {
            driver: "cdi".into(),
            device_ids: vec!["a.b/c=x".into()],
            ..Default::default()
        };
        assert!(why(&registry(&[later]), named).contains("intelRdt"));
    }

    #[test]
    fn the_later_file_wins() {
        let first = "kind: a.b/c\ndevices: [{ name: x, containerEdits: { env: [A=1] } }]";
        let second = "{\"kind\": \"a.b/c\", \"devices\": [{\"name\": \"x\", \"containerEdits\": {\"env\": [\"A=2\"]}}]}";
        let request = DeviceRequestSpec {
            driver: "cdi".into(),
            device_ids: vec!["a.b/c=x".into()],
            ..Default::default()
        };
        let spec = container(&registry(&[first, second]), &[request]);
        assert_eq!(spec.env, [("A".to_owned(), "2".to_owned())]);
    }
}
