//! Rules: the `develop.watch` sections of the watched services, checked and compiled.
//!
//! What a rule ignores (features 1.15): its own `ignore` list, relative to its `path`; for services that
//! are built, the `.dockerignore` of the build context; what editors leave beside a file while they save;
//! and the repository's own folder. A list that holds `*` ignores nothing, as in Compose.

use crate::failure::{Failure, Kind};
use stack_schema::ignore::Patterns;
use stack_schema::project::{Build, MountKind, Project, Service, WatchAction, WatchRule};
use std::path::{Path, PathBuf};

/// Names that never are the user's edit, at any depth.
const EDITORS: [&str; 10] = [
    "**/.git",
    "**/.idea",
    "**/*~",
    "**/.*.swp",
    "**/.*.swo",
    "**/.*.swn",
    "**/.*.swx",
    "**/4913",
    "**/.#*",
    "**/#*#",
];
/// Temporary files of one more editor; it writes them beside the file.
const JETBRAINS: [&str; 2] = ["**/*___jb_tmp___", "**/*___jb_old___"];

/// One rule of one service.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The service's key.
    pub service: String,
    pub action: WatchAction,
    /// Absolute; a directory, a file, or not there yet.
    pub path: PathBuf,
    /// Absolute in the container; only for the actions that sync.
    pub target: String,
    pub initial_sync: bool,
    pub exec: Vec<String>,
    ignore: Patterns,
    /// `None`: everything.
    include: Option<Patterns>,
    /// The build context and its ignore file.
    context: Option<(PathBuf, Patterns)>,
    editors: Patterns,
}

/// All rules of a session, in the order of the services and of their lists.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// What the user should know, e.g. a path that is bind-mounted already.
    pub warnings: Vec<String>,
}

impl Rules {
    /// Compiles the rules of these services, or of all that have some.
    ///
    /// # Errors
    /// No service has a rule; a rule rebuilds a service that is not built; a pattern cannot be read.
    pub fn of(project: &Project, services: &[String]) -> Result<Self, Failure> {
        let selected = |key: &String| services.is_empty() || services.contains(key);
        let mut rules = Self::default();
        let mut configured = false;
        for (_, service) in project.services.iter().filter(|(key, _)| selected(key)) {
            configured |= !service.develop.is_empty();
            rules.add(service)?;
        }
        if !configured {
            let message =
                "none of the selected services is configured for watch, consider setting a 'develop' section";
            return Err(Failure::new(Kind::Project, message));
        }
        Ok(rules)
    }

    fn add(&mut self, service: &Service) -> Result<(), Failure> {
        for written in &service.develop {
            if written.action == WatchAction::Rebuild && service.build.is_none() {
                let message = format!(
                    "can't watch service \"{}\" with action rebuild without a build context",
                    service.key
                );
                return Err(Failure::new(Kind::Project, message));
            }
            if copies(written.action) && covered_by_bind(service, &written.path) {
                let path = written.path.display();
                let warning = format!(
                    "path {path} of service {} is also bind-mounted, so it is not synchronised",
                    service.key
                );
                self.warnings.push(warning);
                continue;
            }
            self.rules.push(Rule::new(service, written)?);
        }
        Ok(())
    }

    /// Whether no rule can want anything below this directory, so that it need not be watched.
    pub fn prunes(&self, directory: &Path) -> bool {
        self.rules.iter().all(|rule| rule.prunes(directory))
    }

    pub fn wants(&self, path: &Path) -> bool {
        self.rules.iter().any(|rule| rule.wants(path))
    }
}

impl Rule {
    fn new(service: &Service, written: &WatchRule) -> Result<Self, Failure> {
        let compile = |patterns: &[String]| {
            Patterns::from_list(patterns)
                .map_err(|e| Failure::new(Kind::Project, format!("service `{}`: {e}", service.key)))
        };
        let own = if written.ignore.iter().any(|pattern| pattern == "*") { &[][..] } else { &written.ignore };
        let include = if written.include.is_empty() { None } else { Some(compile(&written.include)?) };
        let editors: Vec<&str> = EDITORS.iter().chain(&JETBRAINS).copied().collect();
        Ok(Self {
            service: service.key.clone(),
            action: written.action,
            path: written.path.clone(),
            target: written.target.clone().unwrap_or_default(),
            initial_sync: written.initial_sync
                && copies(written.action)
                && written.action != WatchAction::SyncExec,
            exec: written.exec.clone().unwrap_or_default(),
            ignore: compile(own)?,
            include,
            context: service.build.as_ref().and_then(context_ignores),
            editors: Patterns::from_list(&editors).expect("constant patterns"),
        })
    }

    /// Whether a change of this path concerns the rule.
    pub fn wants(&self, path: &Path) -> bool {
        let Some(relative) = self.relative(path) else { return false };
        // A file that the rule names is wanted, whatever lists say about its kind.
        relative.is_empty()
            || !self.ignores(path, relative)
                && self.include.as_ref().is_none_or(|include| include.matches(relative))
    }

    /// Where a path of the host lies in the container.
    pub fn place(&self, path: &Path) -> Option<String> {
        let relative = self.relative(path)?;
        let target = self.target.trim_end_matches('/');
        Some(if relative.is_empty() { self.target.clone() } else { format!("{target}/{relative}") })
    }

    pub fn syncs(&self) -> bool {
        copies(self.action)
    }

    /// Whether the actions that follow a copy restart the service.
    pub fn restarts(&self) -> bool {
        matches!(self.action, WatchAction::Restart | WatchAction::SyncRestart)
    }

    /// `""` for the path itself; `None` outside of it or for a name that is not text.
    fn relative<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.strip_prefix(&self.path).ok().and_then(Path::to_str)
    }

    fn ignores(&self, path: &Path, relative: &str) -> bool {
        self.ignore.matches(relative)
            || self.editors.matches(relative)
            || in_context(self.context.as_ref(), path).is_some_and(|(ignores, inner)| ignores.matches(inner))
    }

    fn prunes(&self, directory: &Path) -> bool {
        let Some(relative) = self.relative(directory) else { return true };
        if relative.is_empty() || !self.ignores(directory, relative) {
            return false;
        }
        let context = in_context(self.context.as_ref(), directory);
        !self.ignore.may_take_back_below(relative)
            && !context.is_some_and(|(ignores, inner)| ignores.may_take_back_below(inner))
    }
}

fn copies(action: WatchAction) -> bool {
    matches!(action, WatchAction::Sync | WatchAction::SyncRestart | WatchAction::SyncExec)
}

fn covered_by_bind(service: &Service, path: &Path) -> bool {
    let sources = service.volumes.iter().filter(|mount| mount.kind == MountKind::Bind);
    sources.filter_map(|mount| mount.source.as_deref()).any(|source| path.starts_with(source))
}

fn in_context<'a>(
    context: Option<&'a (PathBuf, Patterns)>,
    path: &'a Path,
) -> Option<(&'a Patterns, &'a str)> {
    let (directory, ignores) = context?;
    let inner = path.strip_prefix(directory).ok()?.to_str()?;
    (!inner.is_empty()).then_some((ignores, inner))
}

/// The ignore file of a build: the one beside the Dockerfile, else the context's. An unreadable or wrong one is the
/// build's to report.
fn context_ignores(build: &Build) -> Option<(PathBuf, Patterns)> {
    let mut beside = build.context.join(&build.dockerfile).into_os_string();
    beside.push(".dockerignore");
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let text = read(Path::new(&beside)).or_else(|| read(&build.context.join(".dockerignore")))?;
    if text.lines().any(|line| line.trim() == "*") {
        return None;
    }
    Patterns::parse(&text).ok().map(|patterns| (build.context.clone(), patterns))
}

#[cfg(test)]
mod tests;
