//! One project of a world.

use super::{Background, PATIENCE, Ran, World, command};
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

    /// A file may carry a `name:`; two tests must still not meet.
    pub(super) fn named<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["-p", self.name.as_str()], args].concat()
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
