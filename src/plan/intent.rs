//! Intent: what the verb asks for, once, with its defaults filled in.

use super::step::OneOff;
use stack_schema::project::{PullPolicy, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug, Clone)]
pub enum Intent {
    Up(Up),
    Run(Box<Run>),
    Down(Down),
    Start {
        services: Vec<String>,
        wait: bool,
    },
    /// What its restart policy wants back after a boot.
    Due,
    Stop {
        services: Vec<String>,
        grace: Option<Duration>,
    },
    Restart {
        services: Vec<String>,
        grace: Option<Duration>,
        dependents: bool,
    },
    Kill {
        services: Vec<String>,
        signal: String,
        orphans: bool,
    },
    Pause {
        services: Vec<String>,
    },
    Unpause {
        services: Vec<String>,
    },
    Remove {
        services: Vec<String>,
        stop: bool,
        volumes: bool,
    },
    Pull(Pull),
    Build(Build),
}

/// `up`, `create` and the rebuild of `watch`.
#[derive(Debug, Clone)]
pub struct Up {
    /// Empty: all.
    pub services: Vec<String>,
    pub dependencies: bool,
    pub build: Building,
    /// Wins over every service's policy.
    pub pull: Option<PullPolicy>,
    pub recreate: Recreate,
    pub recreate_dependencies: Recreate,
    pub renew_anonymous_volumes: bool,
    /// Full names of volumes that lose their data if their definition changed; any other is kept as it is.
    pub renew_volumes: BTreeSet<String>,
    pub scale: BTreeMap<String, u32>,
    /// `false`: create only.
    pub start: bool,
    /// Until everything runs or is healthy.
    pub wait: bool,
    pub remove_orphans: bool,
    /// Say nothing about orphans.
    pub ignore_orphans: bool,
    /// Of containers that are stopped on the way.
    pub grace: Option<Duration>,
    pub quiet_build: bool,
}

impl Default for Up {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            dependencies: true,
            build: Building::WhenMissing,
            pull: None,
            recreate: Recreate::Diverged,
            recreate_dependencies: Recreate::Diverged,
            renew_anonymous_volumes: false,
            renew_volumes: BTreeSet::new(),
            scale: BTreeMap::new(),
            start: true,
            wait: false,
            remove_orphans: false,
            ignore_orphans: false,
            grace: None,
            quiet_build: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Building {
    WhenMissing,
    /// `--build`.
    Always,
    /// `--no-build`.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recreate {
    /// What no longer is as wanted.
    Diverged,
    /// `--force-recreate`.
    Always,
    /// `--no-recreate`.
    Never,
}

/// A one-off container; its start belongs to whoever attaches to it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The service as this run wants it.
    pub service: Service,
    pub name: String,
    pub one_off: OneOff,
    /// How its image and its dependencies are brought up; `services` is ignored.
    pub up: Up,
}

#[derive(Debug, Clone, Default)]
pub struct Down {
    pub services: Vec<String>,
    pub volumes: bool,
    pub remove_orphans: bool,
    pub grace: Option<Duration>,
    pub images: Option<RemoveImages>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveImages {
    /// Those built here.
    Local,
    All,
}

#[derive(Debug, Clone, Default)]
pub struct Pull {
    pub services: Vec<String>,
    pub dependencies: bool,
    pub ignore_buildable: bool,
    pub policy: Option<PullPolicy>,
}

#[derive(Debug, Clone, Default)]
pub struct Build {
    pub services: Vec<String>,
    pub dependencies: bool,
    pub wishes: BuildWishes,
}

/// How images are to be built, besides what their services say.
#[derive(Debug, Clone, Default)]
pub struct BuildWishes {
    pub no_cache: bool,
    /// Ask for newer base images.
    pub pull: bool,
    /// Win over the file's arguments.
    pub args: Vec<(String, Option<String>)>,
    /// `id` or `id=socket` of further ssh agents.
    pub ssh: Vec<String>,
    pub quiet: bool,
    /// Say why steps are executed.
    pub explain: bool,
    /// For each platform of the service, not only for the one that it runs on.
    pub all_platforms: bool,
    pub push: bool,
    /// Win over the service's attestations.
    pub provenance: Option<String>,
    pub sbom: Option<String>,
}
