//! The plan itself: an ordered graph of typed steps, each with its cause.
//!
//! A step may only come after steps that were added before it, so the order of adding is a topological order,
//! cycles cannot be written, and the same input gives byte for byte the same plan.
//!
//! The text, one line a step, is what `--dry-run` shows and what the tests compare:
//!
//! ```text
//! create network shop_default (missing)
//! replace web-1 (environment FOO changed)
//! start web-1 (replaced)
//! ```

use super::intent::BuildWishes;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use stack_runtime::spec::{NetworkSpec, VolumeSpec};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::Service;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A step's place in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

#[derive(Debug, Clone)]
pub struct Step {
    pub action: Action,
    pub cause: Cause,
    /// Done only if this holds when its turn comes; else skipped.
    pub guard: Option<Guard>,
}

/// One effect.
#[derive(Debug, Clone)]
pub enum Action {
    /// `optional`: a failure leaves the building of the image to a later step.
    Pull {
        reference: String,
        platform: Option<String>,
        optional: bool,
    },
    Build(Box<Building>),
    CreateNetwork(NetworkSpec),
    RemoveNetwork {
        name: String,
    },
    CreateVolume(VolumeSpec),
    /// `optional`: one that somebody else uses stays.
    RemoveVolume {
        name: String,
        optional: bool,
    },
    RemoveImage {
        reference: String,
    },
    Create(Box<Creation>),
    Rename {
        container: Target,
        name: String,
    },
    Start {
        container: Target,
    },
    Wait {
        service: String,
        containers: Vec<Target>,
        until: Reached,
        required: bool,
    },
    Stop {
        container: Target,
        grace: Option<Duration>,
    },
    Signal {
        container: Target,
        signal: String,
    },
    Pause {
        container: Target,
    },
    Unpause {
        container: Target,
    },
    Remove {
        container: Target,
        volumes: bool,
    },
    /// Let the supervisor go: nothing is left for it.
    Release,
}

/// A container of the plan; `name` is the final one.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Existing {
        name: String,
        id: String,
    },
    /// Made by this plan.
    Planned {
        name: String,
    },
    /// The one made by this plan if it was made, else the one that was there.
    Current {
        name: String,
        id: String,
    },
}

impl Target {
    pub fn name(&self) -> &str {
        match self {
            Self::Existing { name, .. } | Self::Planned { name } | Self::Current { name, .. } => name,
        }
    }
}

/// What a build is asked for.
#[derive(Debug, Clone)]
pub struct Building {
    pub service: Arc<Service>,
    /// The name the image gets.
    pub reference: String,
    pub wishes: BuildWishes,
}

/// What a new container is made of; completed with its image's configuration when its turn comes.
#[derive(Debug, Clone)]
pub struct Creation {
    pub service: Arc<Service>,
    pub reference: String,
    pub number: u32,
    /// The final name.
    pub name: String,
    /// The name until [`Action::Rename`], when the old container still has the final one.
    pub temporary: Option<String>,
    /// Target and name of anonymous volumes taken over from the replaced container.
    pub inherited: Vec<(String, String)>,
    pub one_off: Option<OneOff>,
}

/// What `run` adds to a creation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OneOff {
    /// 64 hex digits, the label that tells one run from another.
    pub slug: String,
    pub auto_remove: bool,
    /// Answer to the service's names, too.
    pub use_aliases: bool,
}

/// When a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Healthy,
    /// Ended with code 0.
    Completed,
    /// Healthy if there is a health check, else running; a finished one is fine if `may_complete`.
    Up {
        may_complete: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Guard {
    /// A pull or build of this plan has given the name another image.
    ImageDiffers {
        reference: String,
        from: String,
    },
    ImageSame {
        reference: String,
        from: String,
    },
    /// The optional pull before failed.
    ImageMissing {
        reference: String,
    },
}

/// Why a step is there. Completes the step in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    Missing,
    Asked,
    /// Goes down and comes up again.
    Restart,
    Policy(&'static str),
    /// What changed in the service, as phrases.
    Changed(Vec<String>),
    ImageChanged,
    ImageMayChange,
    NetworkChanged(String),
    VolumeChanged(String),
    /// The container whose namespace or restart it shares in was replaced.
    DependencyReplaced(String),
    Created,
    Replaced,
    NotRunning,
    /// The machine went down while it ran.
    Due,
    NeededBy(String),
    ScaledDown,
    Orphan,
    /// Left behind by a command that was cut short.
    Interrupted,
    Down,
}

/// A thing nothing is done about, with the word for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    /// As wanted.
    Running { container: String },
    /// Kept, because somebody else needs it.
    InUse { network: String },
}

#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub project: String,
    graph: DiGraph<Step, ()>,
    pub settled: Vec<Settled>,
    pub warnings: Vec<Diagnostic>,
    /// Full names of volumes that are kept although their definition changed.
    pub kept_volumes: Vec<String>,
}

impl Plan {
    pub fn new(project: &str) -> Self {
        Self { project: project.to_string(), ..Self::default() }
    }

    /// Adds a step that comes after others, all of which were added before.
    pub fn add(&mut self, action: Action, cause: Cause, after: &[StepId]) -> StepId {
        self.add_guarded(action, cause, None, after)
    }

    pub fn add_guarded(
        &mut self,
        action: Action,
        cause: Cause,
        guard: Option<Guard>,
        after: &[StepId],
    ) -> StepId {
        let node = self.graph.add_node(Step { action, cause, guard });
        for before in after {
            debug_assert!(before.0 < node.index(), "steps come after earlier ones only");
            self.graph.update_edge(NodeIndex::new(before.0), node, ());
        }
        StepId(node.index())
    }

    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(Diagnostic::warning(text));
    }

    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    pub fn step(&self, id: StepId) -> &Step {
        &self.graph[NodeIndex::new(id.0)]
    }

    /// All steps in plan order.
    pub fn steps(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.graph.node_indices().map(|n| (StepId(n.index()), &self.graph[n]))
    }

    pub fn before(&self, id: StepId) -> impl Iterator<Item = StepId> + '_ {
        self.neighbours(id, Direction::Incoming)
    }

    pub fn after(&self, id: StepId) -> impl Iterator<Item = StepId> + '_ {
        self.neighbours(id, Direction::Outgoing)
    }

    fn neighbours(&self, id: StepId, direction: Direction) -> impl Iterator<Item = StepId> + '_ {
        self.graph.neighbors_directed(NodeIndex::new(id.0), direction).map(|n| StepId(n.index()))
    }

    /// The name as shown: without the project.
    pub fn short<'a>(&self, name: &'a str) -> &'a str {
        short(&self.project, name)
    }

    fn line(&self, step: &Step) -> String {
        let guard = step.guard.as_ref().map(|g| format!(", {g}")).unwrap_or_default();
        format!("{} ({}{guard})", self.phrase(&step.action), step.cause)
    }

    fn phrase(&self, action: &Action) -> String {
        let short = |target: &Target| self.short(target.name()).to_string();
        match action {
            Action::Pull { reference, .. } => format!("pull {reference}"),
            Action::Build(building) => format!("build {} as {}", building.service.key, building.reference),
            Action::CreateNetwork(spec) => format!("create network {}", spec.name),
            Action::RemoveNetwork { name } => format!("remove network {name}"),
            Action::CreateVolume(spec) => format!("create volume {}", spec.name),
            Action::RemoveVolume { name, .. } => format!("remove volume {name}"),
            Action::RemoveImage { reference } => format!("remove image {reference}"),
            Action::Create(c) if c.temporary.is_some() => format!("replace {}", self.short(&c.name)),
            Action::Create(c) => format!("create {}", self.short(&c.name)),
            Action::Rename { name, .. } => format!("rename {}", self.short(name)),
            Action::Start { container } => format!("start {}", short(container)),
            Action::Wait { service, until, .. } => format!("wait for {service} {until}"),
            Action::Stop { container, .. } => format!("stop {}", short(container)),
            Action::Signal { container, signal } => format!("send {signal} to {}", short(container)),
            Action::Pause { container } => format!("pause {}", short(container)),
            Action::Unpause { container } => format!("unpause {}", short(container)),
            Action::Remove { container, volumes: false } => format!("remove {}", short(container)),
            Action::Remove { container, .. } => format!("remove {} and its volumes", short(container)),
            Action::Release => "release the supervisor".into(),
        }
    }
}

/// `shop-web-1` in `shop` is `web-1`.
pub fn short<'a>(project: &str, name: &'a str) -> &'a str {
    name.strip_prefix(project).and_then(|rest| rest.strip_prefix('-')).unwrap_or(name)
}

/// One line a step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().try_for_each(|(_, step)| writeln!(f, "{}", self.line(step)))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Completed => "completed",
            Self::Up { .. } => "up",
        })
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImageDiffers { reference, .. } => write!(f, "if {reference} is another image then"),
            Self::ImageSame { reference, .. } => write!(f, "if {reference} is the same image then"),
            Self::ImageMissing { reference } => write!(f, "if {reference} is still missing then"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Asked => f.write_str("asked for"),
            Self::Restart => f.write_str("restart"),
            Self::Policy(policy) => write!(f, "pull policy {policy}"),
            Self::Changed(changes) => f.write_str(&changes.join(", ")),
            Self::ImageChanged => f.write_str("image changed"),
            Self::ImageMayChange => f.write_str("image may change"),
            Self::NetworkChanged(name) => write!(f, "network {name} changed"),
            Self::VolumeChanged(name) => write!(f, "volume {name} changed"),
            Self::DependencyReplaced(service) => write!(f, "{service} is replaced"),
            Self::Created => f.write_str("created"),
            Self::Replaced => f.write_str("replaced"),
            Self::NotRunning => f.write_str("not running"),
            Self::Due => f.write_str("due after a boot"),
            Self::NeededBy(service) => write!(f, "{service} depends on it"),
            Self::ScaledDown => f.write_str("scaled down"),
            Self::Orphan => f.write_str("orphan"),
            Self::Interrupted => f.write_str("left by an interrupted command"),
            Self::Down => f.write_str("down"),
        }
    }
}
