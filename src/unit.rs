//! The systemd unit of a stack: after a boot it runs `stack start --due`, before the machine goes down
//! `stack stop --keep-due`.
//!
//! It is active from then on, without a process of its own, so that systemd orders the stop before the network and the
//! file systems go. Nothing else depends on systemd: any other way to run the two commands does the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What the unit is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub project: String,
    pub program: PathBuf,
    /// Where the home is; it may be on a file system that is mounted late.
    pub data: PathBuf,
    /// What the commands need to find the same home and the same programs.
    pub environment: Vec<(String, String)>,
    pub is_of_user: bool,
}

/// Of the environment of the caller.
pub const KEPT: [&str; 4] = ["STACK_HOME", "XDG_DATA_HOME", "PATH", "STACK_LOG"];

/// `stack-shop.service`. Names of projects have no letter that systemd escapes.
pub fn name(project: &str) -> String {
    format!("stack-{project}.service")
}

impl Unit {
    pub fn text(&self) -> String {
        let (project, program) = (&self.project, quoted(&self.program.to_string_lossy()));
        let mut text = format!(
            "# Written by `stack enable`; `stack disable` removes it.\n[Unit]\nDescription=Stack {project}\n"
        );
        if self.is_of_user {
            text.push_str("After=basic.target\n");
        } else {
            text.push_str("Wants=network-online.target\nAfter=network-online.target local-fs.target\n");
            let _ = writeln!(text, "RequiresMountsFor={}", quoted(&self.data.to_string_lossy()));
        }
        text.push_str("\n[Service]\nType=oneshot\nRemainAfterExit=yes\n");
        for (key, value) in &self.environment {
            let _ = writeln!(text, "Environment={}", quoted(&format!("{key}={value}")));
        }
        let _ = writeln!(text, "ExecStart={program} --progress plain -p {project} start --due");
        let _ = writeln!(text, "ExecStop={program} --progress plain -p {project} stop --keep-due");
        // A health check or a grace period may take long.
        text.push_str("TimeoutStartSec=infinity\nTimeoutStopSec=10min\n");
        let target = if self.is_of_user { "default.target" } else { "multi-user.target" };
        let _ = writeln!(text, "\n[Install]\nWantedBy={target}");
        text
    }

    /// What makes systemd start it: a link in this folder of the target, beside the unit.
    pub fn wanted_by(&self) -> &'static Path {
        Path::new(if self.is_of_user { "default.target.wants" } else { "multi-user.target.wants" })
    }
}

/// One word of systemd.syntax(7): what it would expand is doubled.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let is_plain = escaped.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-=:%$,@+".contains(&b));
    if is_plain { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(is_of_user: bool) -> Unit {
        Unit {
            project: "shop".into(),
            program: "/opt/my tools/stack".into(),
            data: "/srv/100%/home".into(),
            environment: vec![
                ("STACK_HOME".into(), "/srv/100%/home".into()),
                ("PATH".into(), "/usr/bin:/bin".into()),
            ],
            is_of_user,
        }
    }

    #[test]
    fn a_unit_of_root_waits_for_network_and_mounts() {
        let expected = "# Written by `stack enable`; `stack disable` removes it.
[Unit]
Description=Stack shop
Wants=network-online.target
After=network-online.target local-fs.target
RequiresMountsFor=/srv/100%%/home

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=STACK_HOME=/srv/100%%/home
Environment=PATH=/usr/bin:/bin
ExecStart=\"/opt/my tools/stack\" --progress plain -p shop start --due
ExecStop=\"/opt/my tools/stack\" --progress plain -p shop stop --keep-due
TimeoutStartSec=infinity
TimeoutStopSec=10min

[Install]
WantedBy=multi-user.target
";
        assert_eq!(unit(false).text(), expected);
    }

    #[test]
    fn a_unit_of_a_user_is_wanted_by_their_session() {
        let unit = unit(true);
        let text = unit.text();
        assert!(text.ends_with("\n[Install]\nWantedBy=default.target\n"), "{text}");
        assert!(!text.contains("network-online") && !text.contains("RequiresMountsFor"), "{text}");
        assert_eq!(unit.wanted_by(), Path::new("default.target.wants"));
    }

    #[test]
    fn words_are_what_systemd_reads_back() {
        assert_eq!(quoted("/usr/bin/stack"), "/usr/bin/stack");
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("$HOME \"x\" \\ 5%"), "\"$$HOME \\\"x\\\" \\\\ 5%%\"");
        assert_eq!(quoted("A=ü"), "\"A=ü\"");
    }
}
