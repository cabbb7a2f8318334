//! One project of a world.

use super::{Background, PATIENCE, Ran, World, command, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::time::Duration;

/// A project directory; its name is the project's.
pub struct Project<'w> {
    pub world: &'w World,
    pub key: String,
    pub name: String,
    pub directory: PathBuf,
}

impl Project<'_> {
    /// Writes a file of the project, making its directories.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        std::fs::create_dir_all(path.parent().expect("below the project")).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Rewrites one part of a file, in place as editors do that keep the inode.
    #[track_caller]
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.directory.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "`{from}` is not in {name}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Runs `stack ARGS` in the project's directory.
    #[track_caller]
    pub fn stack(&self, args: &[&str]) -> Ran {
        self.stack_with(&[], args)
    }

    #[track_caller]
    pub fn stack_with(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        self.stack_with_patience(env, args, PATIENCE)
    }

    /// With a limit of its own.
    #[track_caller]
    pub fn stack_with_patience(&self, env: &[(&str, &str)], args: &[&str], patience: Duration) -> Ran {
        command::run(self.world, &self.directory, env, &self.named(args), patience)
    }

    /// Starts `stack ARGS` beside the test.
    pub fn spawn(&self, args: &[&str]) -> Background {
        self.spawn_with(&[], args)
    }

    pub fn spawn_with(&self, env: &[(&str, &str)], args: &[&str]) -> Background {
        command::spawn(self.world, &self.directory, env, &self.named(args))
    }

    /// As somebody who is not root: in a user namespace that maps nobody.
    pub fn as_nobody(&self, args: &[&str]) -> Ran {
        command::run_in(self.world, &self.directory, &["unshare", "--user"], &self.named(args), PATIENCE)
    }

    /// As a shell would, with a file of the project as standard input.
    pub fn reading(&self, input: &str, args: &[&str]) -> Ran {
        let script = format!("exec \"$@\" <{input}");
        command::run_in(
            self.world,
            &self.directory,
            &["sh", "-c", &script, "sh"],
            &self.named(args),
            PATIENCE,
        )
    }

    /// A file may carry a `name:`; two tests must still not meet.
    pub(super) fn named<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["-p", self.name.as_str()], args].concat()
    }

    /// The process of its supervisor, if one is recorded.
    pub fn supervisor(&self) -> Option<i32> {
        let file = self.world.home.join("run").join(&self.name).join("supervisor.json");
        let mark: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        i32::try_from(mark["pid"].as_i64()?).ok()
    }

    /// SIGKILL, and waits for the one that follows.
    pub fn kill_supervisor(&self) {
        let pid = self.supervisor().expect("it runs");
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        eventually("the next supervisor", || self.supervisor().filter(|now| *now != pid));
    }

    /// The rows of `ps --format json`, which are one JSON object per line.
    #[track_caller]
    pub fn ps(&self) -> Vec<serde_json::Value> {
        let ran = self.stack(&["ps", "--all", "--format", "json"]).ok();
        ran.stdout
            .lines()
            .map(|row| serde_json::from_str(row).unwrap_or_else(|e| panic!("{e} in {row}")))
            .collect()
    }

    /// One column of one service's row.
    #[track_caller]
    pub fn ps_field(&self, service: &str, column: &str) -> String {
        let rows = self.ps();
        let row = rows.iter().find(|row| row["Service"] == service);
        let row = row.unwrap_or_else(|| panic!("no row of {service} in {rows:?}"));
        row[column].as_str().unwrap_or_default().to_owned()
    }
}
