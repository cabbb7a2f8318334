//! Services in dependency order, each after what it depends on, else in the user's order.

use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Project, Service};
use std::collections::BTreeSet;

type Result<T> = std::result::Result<T, Diagnostic>;

/// All services of the project.
pub(super) fn all(project: &Project) -> Result<Vec<&Service>> {
    let keys: Vec<&str> = project.services.keys().map(String::as_str).collect();
    with_dependencies(project, &keys)
}

/// The named ones only.
pub(super) fn only<'a>(project: &'a Project, keys: &[String]) -> Result<Vec<&'a Service>> {
    keys.iter().try_for_each(|key| known(project, key).map(drop))?;
    let named = |service: &&Service| keys.is_empty() || keys.contains(&service.key);
    Ok(all(project)?.into_iter().filter(named).collect())
}

/// The named ones and all they depend on; none named: all.
pub(super) fn selected<'a>(
    project: &'a Project,
    keys: &[String],
    dependencies: bool,
) -> Result<Vec<&'a Service>> {
    if keys.is_empty() || !dependencies {
        return only(project, keys);
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    with_dependencies(project, &keys)
}

pub(super) fn known<'a>(project: &'a Project, key: &str) -> Result<&'a Service> {
    project.services.get(key).ok_or_else(|| Diagnostic::error(format!("no such service: {key}")))
}

fn with_dependencies<'a>(project: &'a Project, keys: &[&str]) -> Result<Vec<&'a Service>> {
    let mut walk = Walk { project, done: BTreeSet::new(), path: Vec::new(), order: Vec::new() };
    for key in keys {
        walk.visit(known(project, key)?)?;
    }
    Ok(walk.order)
}

struct Walk<'a> {
    project: &'a Project,
    done: BTreeSet<&'a str>,
    path: Vec<&'a str>,
    order: Vec<&'a Service>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, service: &'a Service) -> Result<()> {
        if self.done.contains(service.key.as_str()) {
            return Ok(());
        }
        if self.path.contains(&service.key.as_str()) {
            let cycle = format!("{} -> {}", self.path.join(" -> "), service.key);
            return Err(Diagnostic::error(format!("dependency cycle detected: {cycle}")));
        }
        self.path.push(&service.key);
        for key in service.depends_on.keys() {
            if let Some(dependency) = self.project.services.get(key) {
                self.visit(dependency)?;
            }
        }
        self.path.pop();
        self.done.insert(&service.key);
        self.order.push(service);
        Ok(())
    }
}
