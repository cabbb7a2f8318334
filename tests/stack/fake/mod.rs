//! A world in memory: an engine and images that keep what they are told, for the laws of plan and apply.
//! Nothing of the kernel is imitated beyond what the planner can observe.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use indexmap::IndexMap;
use stack::apply::images::Images;
use stack::event::{Event, Sink};
use stack::failure::{Failure, Kind};
use stack::plan::spec::ImageView;
use stack::plan::step::Building;
use stack_runtime::engine::{Engine, EngineError, ErrorKind, Result, Until, Waited};
use stack_runtime::image::ImageConfig;
use stack_runtime::observed::*;
use stack_runtime::spec::{ContainerSpec, MountKindSpec, NetworkMode, NetworkSpec, VolumeSpec};
use stack_schema::project::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

/// What there is.
#[derive(Debug, Default)]
pub struct State0 {
    pub containers: BTreeMap<String, ContainerObserved>,
    pub networks: Vec<NetworkObserved>,
    pub volumes: BTreeSet<String>,
    pub volume_list: Vec<VolumeObserved>,
    /// Id by name, and the configuration by id.
    pub images: BTreeMap<String, String>,
    pub configs: BTreeMap<String, ImageConfig>,
    /// What a pull or build of the name will give.
    pub registry: BTreeMap<String, String>,
    /// One line per effect.
    pub log: Vec<String>,
    made: usize,
    /// Effects until the program is "killed"; `None`: never.
    pub cut_after: Option<usize>,
    /// Effects that fail, by their line.
    pub failing: BTreeSet<String>,
    /// What a wait on the name answers instead of reached.
    pub waits: BTreeMap<String, Waited>,
}

#[derive(Debug, Default)]
pub struct Fake(pub Mutex<State0>);

impl Fake {
    pub fn with_images(names: &[&str]) -> Self {
        let fake = Self::default();
        for name in names {
            fake.offer(name, "1");
            fake.install(name);
        }
        fake
    }

    /// The registry (or builder) gives this version of the name from now on.
    pub fn offer(&self, name: &str, version: &str) {
        let mut state = self.state();
        let id = format!("sha256:{name}-{version}");
        let config = ImageConfig { cmd: Some(vec!["run".into()]), ..ImageConfig::default() };
        state.configs.entry(id.clone()).or_insert(config);
        state.registry.insert(name.into(), id);
    }

    pub fn install(&self, name: &str) {
        let mut state = self.state();
        let id = state.registry[name].clone();
        state.images.insert(name.into(), id);
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State0> {
        self.0.lock().expect("no test panics while holding it")
    }

    pub fn observed(&self) -> Observed {
        let state = self.state();
        let images = state.images.iter();
        Observed {
            containers: state.containers.values().cloned().collect(),
            networks: state.networks.clone(),
            volumes: state.volume_list.clone(),
            images: images
                .map(|(n, id)| ImageObserved { reference: n.clone(), id: Some(id.clone()) })
                .collect(),
            supervisor_alive: state.containers.values().any(|c| matches!(c.state, State::Running { .. })),
        }
    }

    /// The world without identities: what two histories must agree on.
    pub fn summary(&self) -> Vec<String> {
        let state = self.state();
        let container = |c: &ContainerObserved| {
            let env: Vec<String> = c.spec.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let phase = match &c.state {
                State::Running { .. } => "running",
                State::Created => "created",
                _ => "exited",
            };
            format!("{} {phase} image={} env=[{}]", c.name, c.spec.image_id, env.join(" "))
        };
        let mut all: Vec<String> = state.containers.values().map(container).collect();
        all.extend(state.networks.iter().map(|n| format!("network {} {}", n.name, n.fingerprint)));
        all.extend(state.volume_list.iter().map(|v| format!("volume {}", v.name)));
        all.sort();
        all
    }

    pub fn set_state(&self, name: &str, state: State) {
        let mut all = self.state();
        let container = all.containers.values_mut().find(|c| c.name == name).expect("a known container");
        container.state = state;
    }

    fn effect(&self, line: String) -> Result<std::sync::MutexGuard<'_, State0>> {
        let mut state = self.state();
        if state.cut_after == Some(0) || state.failing.contains(&line) {
            return Err(EngineError::new(ErrorKind::Other, format!("failed to {line}: made to fail")));
        }
        state.cut_after = state.cut_after.map(|n| n - 1);
        state.log.push(line);
        Ok(state)
    }
}

fn named(state: &State0, id: &str) -> Result<String> {
    let container = state.containers.get(id);
    container
        .map(|c| c.name.clone())
        .ok_or_else(|| EngineError::new(ErrorKind::NotFound, format!("no container {id}")))
}

pub fn running() -> State {
    State::Running { pid: 1, started_at: "2026-01-01T00:00:00Z".into() }
}

pub fn exited(code: i32) -> State {
    State::Exited { exit: Exit { code: Some(code), ..Exit::default() } }
}

impl Engine for Fake {
    async fn observe(&self, _: &str, _: &[String]) -> Result<Observed> {
        Ok(self.observed())
    }

    async fn pull(&self, reference: &str) -> Result<String> {
        Ok(reference.into())
    }

    async fn create_network(&self, _: &str, spec: &NetworkSpec) -> Result<()> {
        let mut state = self.effect(format!("create network {}", spec.name))?;
        state.networks.push(NetworkObserved {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            fingerprint: spec.fingerprint.clone(),
            ..NetworkObserved::default()
        });
        Ok(())
    }

    async fn remove_network(&self, _: &str, name: &str) -> Result<()> {
        let mut state = self.effect(format!("remove network {name}"))?;
        let is_attached = |c: &ContainerObserved| match &c.spec.network {
            NetworkMode::Bridge(endpoints) => endpoints.iter().any(|e| e.network == name),
            _ => false,
        };
        if state.containers.values().any(is_attached) {
            return Err(EngineError::new(
                ErrorKind::Conflict,
                format!("network {name} has active endpoints"),
            ));
        }
        state.networks.retain(|n| n.name != name);
        Ok(())
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()> {
        let mut state = self.effect(format!("create volume {}", spec.name))?;
        state.volume_list.push(VolumeObserved {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            fingerprint: spec.fingerprint.clone(),
            ..VolumeObserved::default()
        });
        Ok(())
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let mut state = self.effect(format!("remove volume {name}"))?;
        state.volume_list.retain(|v| v.name != name);
        Ok(())
    }

    async fn create(&self, _: &str, spec: &ContainerSpec) -> Result<String> {
        let mut state = self.effect(format!("create {}", spec.name))?;
        if state.containers.values().any(|c| c.name == spec.name) {
            return Err(EngineError::new(ErrorKind::Conflict, format!("name {} is taken", spec.name)));
        }
        state.made += 1;
        let id = format!("{:064x}", state.made);
        for mount in &spec.mounts {
            if let MountKindSpec::Volume { name, anonymous: true, .. } = &mount.kind {
                state.volumes.insert(name.clone());
            }
        }
        let container = ContainerObserved {
            id: id.clone(),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            spec: spec.clone(),
            created_at: "2026-01-01T00:00:00Z".into(),
            state: State::Created,
            failed_start: None,
            health: Health::default(),
            restart_count: 0,
            is_due: false,
            published: Vec::new(),
            addresses: Vec::new(),
        };
        state.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn rename(&self, _: &str, id: &str, name: &str) -> Result<()> {
        let old = named(&self.state(), id)?;
        let mut state = self.effect(format!("rename {old} {name}"))?;
        if state.containers.values().any(|c| c.name == name) {
            return Err(EngineError::new(ErrorKind::Conflict, format!("name {name} is taken")));
        }
        let container = state.containers.get_mut(id).expect("named above");
        container.name = name.into();
        container.spec.name = name.into();
        Ok(())
    }

    async fn start(&self, _: &str, id: &str) -> Result<()> {
        let name = named(&self.state(), id)?;
        let mut state = self.effect(format!("start {name}"))?;
        let container = state.containers.get_mut(id).expect("named above");
        container.state = running();
        if container.spec.health.is_some() {
            container.health.status = HealthStatus::Healthy;
        }
        Ok(())
    }

    async fn wait(&self, _: &str, id: &str, until: Until) -> Result<Waited> {
        let name = named(&self.state(), id)?;
        let mut state = self.effect(format!("wait {name} {until:?}"))?;
        if let Some(waited) = state.waits.get(&name) {
            return Ok(waited.clone());
        }
        if until == Until::Exited {
            let exit = Exit { code: Some(0), ..Exit::default() };
            state.containers.get_mut(id).expect("named above").state = State::Exited { exit: exit.clone() };
            return Ok(Waited::Exited(exit));
        }
        Ok(Waited::Reached)
    }

    async fn stop(&self, _: &str, id: &str, _: Option<Duration>) -> Result<()> {
        let name = named(&self.state(), id)?;
        let mut state = self.effect(format!("stop {name}"))?;
        let container = state.containers.get_mut(id).expect("named above");
        if matches!(container.state, State::Running { .. }) {
            container.state = exited(143);
        }
        Ok(())
    }

    async fn signal(&self, _: &str, id: &str, signal: &str) -> Result<()> {
        let name = named(&self.state(), id)?;
        self.effect(format!("signal {name} {signal}")).map(drop)
    }

    async fn pause(&self, _: &str, id: &str) -> Result<()> {
        let name = named(&self.state(), id)?;
        self.effect(format!("pause {name}")).map(drop)
    }

    async fn resume(&self, _: &str, id: &str) -> Result<()> {
        let name = named(&self.state(), id)?;
        self.effect(format!("unpause {name}")).map(drop)
    }

    async fn remove(&self, _: &str, id: &str, volumes: bool) -> Result<()> {
        let name = named(&self.state(), id)?;
        let mut state = self.effect(format!("remove {name}{}", if volumes { " -v" } else { "" }))?;
        let container = state.containers.remove(id).expect("named above");
        for mount in container.spec.mounts {
            if let MountKindSpec::Volume { name, anonymous: true, .. } = mount.kind
                && volumes
            {
                state.volumes.remove(&name);
            }
        }
        Ok(())
    }

    async fn release(&self, _: &str) -> Result<()> {
        self.effect("release".into()).map(drop)
    }
}

impl Images for Fake {
    fn view(&self, reference: &str) -> std::result::Result<Option<ImageView>, Failure> {
        let state = self.state();
        let view = |id: &String| ImageView {
            id: id.clone(),
            chain_id: format!("chain-of-{id}"),
            config: state.configs.get(id).cloned().unwrap_or_default(),
        };
        Ok(state.images.get(reference).map(view))
    }

    fn remove(&self, reference: &str) -> std::result::Result<(), Failure> {
        self.effect(format!("remove image {reference}"))?.images.remove(reference);
        Ok(())
    }

    async fn pull(&self, reference: &str, _: Option<&str>, _: &dyn Sink) -> std::result::Result<(), Failure> {
        let mut state = self.effect(format!("pull {reference}"))?;
        let id = state.registry.get(reference).cloned();
        let id =
            id.ok_or_else(|| Failure::new(Kind::NotFound, format!("no image {reference} in the registry")))?;
        state.images.insert(reference.into(), id);
        Ok(())
    }

    async fn build(
        &self,
        _: &Project,
        building: &Building,
        _: &dyn Sink,
    ) -> std::result::Result<(), Failure> {
        let mut state = self.effect(format!("build {}", building.reference))?;
        let id = state.registry.get(&building.reference).cloned();
        let id = id.unwrap_or_else(|| format!("sha256:{}-built", building.reference));
        let config = ImageConfig { cmd: Some(vec!["run".into()]), ..ImageConfig::default() };
        state.configs.entry(id.clone()).or_insert(config);
        state.images.insert(building.reference.clone(), id);
        Ok(())
    }
}

/// Throws events away.
pub struct Nothing;

impl Sink for Nothing {
    fn emit(&self, _: Event) {}
}

/// Builds projects in few words.
pub struct Shop(pub Project);

impl Shop {
    pub fn new() -> Self {
        let network = Network { key: "default".into(), name: "shop_default".into(), ..Network::default() };
        Self(Project {
            name: "shop".into(),
            directory: "/shop".into(),
            files: vec!["/shop/compose.yaml".into()],
            networks: [("default".to_string(), network)].into_iter().collect(),
            ..Project::default()
        })
    }

    pub fn service(mut self, key: &str, change: impl FnOnce(&mut Service)) -> Self {
        let mut service = Service {
            key: key.into(),
            image: Some(key.into()),
            scale: 1,
            attach: true,
            networks: [("default".to_string(), Endpoint::default())].into_iter().collect(),
            ..Service::default()
        };
        change(&mut service);
        service.fingerprint = fingerprint(&service);
        self.0.services.insert(key.into(), service);
        self
    }

    pub fn volume(mut self, key: &str) -> Self {
        let volume = Volume { key: key.into(), name: format!("shop_{key}"), ..Volume::default() };
        self.0.volumes.insert(key.into(), volume);
        self
    }
}

/// Stands in for the loader's: everything but what Compose leaves out.
fn fingerprint(service: &Service) -> String {
    let meaning = Service {
        build: None,
        pull_policy: PullPolicy::default(),
        scale: 1,
        depends_on: IndexMap::default(),
        profiles: Vec::new(),
        fingerprint: String::new(),
        ..service.clone()
    };
    format!("{meaning:?}")
}

pub fn depends(service: &mut Service, on: &str, condition: Condition) {
    service.depends_on.insert(on.into(), Dependency { condition, restart: false, required: true });
}

pub fn env(service: &mut Service, name: &str, value: &str) {
    service.environment.insert(name.into(), Some(value.into()));
}

pub fn named_volume(service: &mut Service, key: &str, target: &str) {
    service.volumes.push(mount(MountKind::Volume, Some(key), target));
}

pub fn mount(kind: MountKind, source: Option<&str>, target: &str) -> Mount {
    Mount {
        kind,
        source: source.map(str::to_string),
        target: target.into(),
        read_only: false,
        create_host_path: true,
        propagation: None,
        recursive: None,
        nocopy: false,
        subpath: None,
        tmpfs_size: None,
        tmpfs_mode: None,
    }
}

pub fn healthy(service: &mut Service) {
    let test = Some(vec!["CMD".to_string(), "true".to_string()]);
    service.healthcheck = Some(Healthcheck { test, ..Healthcheck::default() });
}
