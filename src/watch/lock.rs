//! One `watch` per project: two would copy and rebuild against each other.

use crate::failure::{Failure, Kind};
use stack_runtime::home::{self, Home, Lock};
use std::io;
use std::path::Path;

/// Held until dropped, at the latest until the process ends, however it ends.
#[derive(Debug)]
pub struct Only {
    _lock: Lock,
}

impl Only {
    /// # Errors
    /// `Conflict`, naming the process that watches the project already.
    pub fn watch(home: &Home, project: &str) -> Result<Self, Failure> {
        let path = home.run_of(project).join("watch.lock");
        let failed = |e: io::Error| Failure::other(format!("failed to lock {}: {e}", path.display()));
        match home::try_lock(&path).map_err(failed)? {
            Some(lock) => {
                std::fs::write(&path, std::process::id().to_string()).map_err(failed)?;
                Ok(Self { _lock: lock })
            }
            None => Err(taken(project, &path)),
        }
    }
}

fn taken(project: &str, path: &Path) -> Failure {
    let holder = std::fs::read_to_string(path).unwrap_or_default();
    let message = format!(
        "cannot take exclusive lock for project \"{project}\": process with PID {} is still running",
        holder.trim()
    );
    Failure::new(Kind::Conflict, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_watch_is_told_who_is_first() {
        let top = tempfile::tempdir().unwrap();
        let home = Home { data: top.path().into(), run: top.path().join("run") };
        let first = Only::watch(&home, "shop").unwrap();
        let second = Only::watch(&home, "shop").unwrap_err();
        assert!(second.message.contains(&format!("PID {} is", std::process::id())), "{}", second.message);
        assert!(Only::watch(&home, "other").is_ok());
        drop(first);
        assert!(Only::watch(&home, "shop").is_ok());
    }
}
