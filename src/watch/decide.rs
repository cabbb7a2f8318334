//! Pure: a batch of changed paths and the rules, to ordered steps.

use super::rule::{Rule, Rules};
use indexmap::{IndexMap, IndexSet};
use stack_schema::project::WatchAction;
use std::path::PathBuf;

/// One thing to do. Every step names services by key and is done for all their replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Build the images of these services again and replace their containers.
    Rebuild {
        services: Vec<String>,
    },
    /// Make these places of the containers what they are on the host.
    Sync {
        service: String,
        copies: Vec<Copy>,
    },
    Restart {
        services: Vec<String>,
    },
    /// The hook of `sync+exec`, once per batch and rule.
    Exec {
        service: String,
        command: Vec<String>,
    },
}

/// A path of the host and its place in the container. What is gone on the host is removed there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Copy {
    pub from: PathBuf,
    pub to: String,
}

/// See the module. A path that no rule wants gives no step.
pub fn decide(rules: &Rules, changed: &[PathBuf]) -> Vec<Step> {
    let mut wishes = Wishes::default();
    for rule in &rules.rules {
        let wanted: Vec<&PathBuf> = changed.iter().filter(|path| rule.wants(path)).collect();
        if !wanted.is_empty() {
            wishes.add(rule, &wanted);
        }
    }
    wishes.into_steps()
}

/// The files that a rule with `initial_sync` wants at the start of a session.
pub fn first_sync(rules: &Rules, present: &[PathBuf]) -> Vec<Step> {
    let mut wishes = Wishes::default();
    for rule in rules.rules.iter().filter(|rule| rule.initial_sync) {
        wishes.copy(rule, present.iter().filter(|path| rule.wants(path)));
    }
    wishes.into_steps()
}

#[derive(Default)]
struct Wishes {
    rebuild: IndexSet<String>,
    copies: IndexMap<String, IndexSet<Copy>>,
    restart: IndexSet<String>,
    exec: Vec<Step>,
}

impl Wishes {
    fn add(&mut self, rule: &Rule, changed: &[&PathBuf]) {
        if rule.action == WatchAction::Rebuild {
            self.rebuild.insert(rule.service.clone());
        }
        if rule.syncs() {
            self.copy(rule, changed.iter().copied());
        }
        if rule.restarts() {
            self.restart.insert(rule.service.clone());
        }
        if rule.action == WatchAction::SyncExec {
            self.exec.push(Step::Exec { service: rule.service.clone(), command: rule.exec.clone() });
        }
    }

    fn copy<'a>(&mut self, rule: &Rule, paths: impl Iterator<Item = &'a PathBuf>) {
        let copies = paths.filter_map(|from| Some(Copy { from: from.clone(), to: rule.place(from)? }));
        self.copies.entry(rule.service.clone()).or_default().extend(copies);
    }

    fn into_steps(self) -> Vec<Step> {
        let listed = |services: IndexSet<String>| services.into_iter().collect::<Vec<_>>();
        let mut steps = Vec::new();
        if !self.rebuild.is_empty() {
            steps.push(Step::Rebuild { services: listed(self.rebuild) });
        }
        for (service, copies) in self.copies.into_iter().filter(|(_, copies)| !copies.is_empty()) {
            let mut copies: Vec<Copy> = copies.into_iter().collect();
            // A directory comes before what lies in it.
            copies.sort_by(|a, b| a.to.cmp(&b.to));
            steps.push(Step::Sync { service, copies });
        }
        if !self.restart.is_empty() {
            steps.push(Step::Restart { services: listed(self.restart) });
        }
        steps.extend(self.exec);
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::rule::Rules;
    use stack_schema::project::{Build, Project, Service, WatchRule};

    fn rule(action: WatchAction, path: &str, target: Option<&str>) -> WatchRule {
        let (ignore, include) = (Vec::new(), Vec::new());
        let exec = (action == WatchAction::SyncExec).then(|| vec!["reload".to_owned()]);
        WatchRule {
            action,
            path: path.into(),
            target: target.map(str::to_owned),
            ignore,
            include,
            initial_sync: false,
            exec,
        }
    }

    fn rules(services: &[(&str, Vec<WatchRule>)]) -> Rules {
        let services = services.iter().map(|(key, develop)| {
            let build = Some(Build::default());
            (
                (*key).to_owned(),
                Service { key: (*key).to_owned(), develop: develop.clone(), build, ..Service::default() },
            )
        });
        Rules::of(&Project { services: services.collect(), ..Project::default() }, &[]).unwrap()
    }

    fn changed(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    fn copy(from: &str, to: &str) -> Copy {
        Copy { from: from.into(), to: to.into() }
    }

    #[test]
    fn one_edit_is_one_copy() {
        let rules = rules(&[(
            "api",
            vec![
                rule(WatchAction::Sync, "/p/api", Some("/app")),
                rule(WatchAction::Rebuild, "/p/api/requirements.txt", None),
            ],
        )]);
        let steps = decide(&rules, &changed(&["/p/api/app.py"]));
        assert_eq!(
            steps,
            [Step::Sync { service: "api".into(), copies: vec![copy("/p/api/app.py", "/app/app.py")] }]
        );
        assert_eq!(decide(&rules, &changed(&["/p/other"])), []);
    }

    #[test]
    fn the_order_is_rebuild_sync_restart_exec_and_a_rebuild_supersedes_nothing() {
        let rules = rules(&[
            ("hook", vec![rule(WatchAction::SyncExec, "/p", Some("/h"))]),
            ("conf", vec![rule(WatchAction::SyncRestart, "/p", Some("/c"))]),
            (
                "api",
                vec![rule(WatchAction::Rebuild, "/p/lock", None), rule(WatchAction::Sync, "/p", Some("/a"))],
            ),
        ]);
        let steps = decide(&rules, &changed(&["/p/lock"]));
        let expected = [
            Step::Rebuild { services: vec!["api".into()] },
            Step::Sync { service: "hook".into(), copies: vec![copy("/p/lock", "/h/lock")] },
            Step::Sync { service: "conf".into(), copies: vec![copy("/p/lock", "/c/lock")] },
            Step::Sync { service: "api".into(), copies: vec![copy("/p/lock", "/a/lock")] },
            Step::Restart { services: vec!["conf".into()] },
            Step::Exec { service: "hook".into(), command: vec!["reload".into()] },
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn two_rules_for_one_service_rebuild_it_once() {
        let rules = rules(&[(
            "api",
            vec![rule(WatchAction::Rebuild, "/p/a", None), rule(WatchAction::Rebuild, "/p/b", None)],
        )]);
        let steps = decide(&rules, &changed(&["/p/b", "/p/a", "/p/a"]));
        assert_eq!(steps, [Step::Rebuild { services: vec!["api".into()] }]);
    }

    #[test]
    fn only_rules_that_ask_for_it_sync_at_the_start() {
        let wished = WatchRule { initial_sync: true, ..rule(WatchAction::Sync, "/p/a", Some("/a")) };
        let hook = WatchRule { initial_sync: true, ..rule(WatchAction::SyncExec, "/p/a", Some("/h")) };
        let rules =
            rules(&[("a", vec![wished, rule(WatchAction::Sync, "/p/b", Some("/b"))]), ("h", vec![hook])]);
        let steps = first_sync(&rules, &changed(&["/p/a/x", "/p/b/x"]));
        assert_eq!(steps, [Step::Sync { service: "a".into(), copies: vec![copy("/p/a/x", "/a/x")] }]);
    }
}
