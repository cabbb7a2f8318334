//! Mount options in the words of fstab, as the OCI runtime spec lists them.

use crate::sys::mount::{NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use std::path::PathBuf;

/// Attributes of a mount, `MOUNT_ATTR_…`, to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub set: u64,
    pub clear: u64,
}

/// How changes spread between copies of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`.
    pub flag: u64,
    pub recursive: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Of the mount itself.
    pub own: Attributes,
    /// Of it and all below it.
    pub all: Attributes,
    pub bind: bool,
    pub recursive: bool,
    /// Changes what is mounted there already.
    pub remount: bool,
    /// The new file system starts with what it covers.
    pub copy_up: bool,
    /// In the order given: a mount may be a slave and shared at once.
    pub propagation: Vec<Propagation>,
    /// Options of the file system itself.
    pub data: Vec<(String, Option<String>)>,
    /// Init processes of containers and where they have the very same mount.
    pub shared_with: Vec<(i32, PathBuf)>,
    /// The source must not lead out of this directory.
    pub inside: Option<PathBuf>,
}

/// See [`shared_with`].
const SHARED_WITH: &str = "shared-with=";

/// `shared-with=PID:PATH`: a word of ours.
fn shared_with(option: &str) -> Option<(i32, PathBuf)> {
    let (pid, path) = option.strip_prefix(SHARED_WITH)?.split_once(':')?;
    Some((pid.parse().ok()?, path.into()))
}

/// Words that the kernel has no use for any more, or that are for others.
const IDLE: [&str; 13] = [
    "bind",
    "defaults",
    "z",
    "Z",
    "",
    "loud",
    "silent",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "idmap",
    "ridmap",
];

pub(super) fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options {
        if let Some((set, clear)) = attribute(option) {
            parsed.own.change(set, clear);
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            parsed.all.change(set, clear);
        } else if let Some(found) = propagation(option) {
            parsed.propagation.push(found);
        } else {
            parsed.other(option);
        }
    }
    parsed
}

impl Attributes {
    fn change(&mut self, set: u64, clear: u64) {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear & !set) | clear;
    }

    pub(super) fn is_empty(self) -> bool {
        self.set | self.clear == 0
    }
}

impl Options {
    fn other(&mut self, option: &str) {
        match option {
            "rbind" => (self.bind, self.recursive) = (true, true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            _ if IDLE.contains(&option) => self.bind |= option == "bind",
            _ if option.starts_with(SHARED_WITH) => self.shared_with.extend(shared_with(option)),
            _ => match (option.strip_prefix("inside="), option.split_once('=')) {
                (Some(dir), _) => self.inside = Some(dir.into()),
                (None, Some((key, value))) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                (None, None) => self.data.push((option.to_owned(), None)),
            },
        }
    }
}

/// What is set and what is cleared.
fn attribute(option: &str) -> Option<(u64, u64)> {
    let time = |mode: u64| (mode, libc::MOUNT_ATTR__ATIME & !mode);
    Some(match option {
        "ro" => (READ_ONLY, 0),
        "rw" => (0, READ_ONLY),
        "nosuid" => (NO_SUID, 0),
        "suid" => (0, NO_SUID),
        "nodev" => (NO_DEV, 0),
        "dev" => (0, NO_DEV),
        "noexec" => (NO_EXEC, 0),
        "exec" => (0, NO_EXEC),
        "nosymfollow" => (libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, libc::MOUNT_ATTR_NOSYMFOLLOW),
        "nodiratime" => (libc::MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, libc::MOUNT_ATTR_NODIRATIME),
        "strictatime" | "norelatime" => time(libc::MOUNT_ATTR_STRICTATIME),
        "noatime" => time(libc::MOUNT_ATTR_NOATIME),
        "relatime" | "atime" | "nostrictatime" => time(0),
        _ => return None,
    })
}

/// As a mount's option or as the `rootfsPropagation`.
pub(crate) fn propagation(option: &str) -> Option<Propagation> {
    let single = |option| {
        Some(match option {
            "private" => libc::MS_PRIVATE,
            "slave" => libc::MS_SLAVE,
            "shared" => libc::MS_SHARED,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => return None,
        })
    };
    let once = single(option).map(|flag| Propagation { flag, recursive: false });
    once.or_else(|| Some(Propagation { flag: single(option.strip_prefix('r')?)?, recursive: true }))
}

/// Every word, for `features`.
pub(crate) fn words() -> Vec<String> {
    const ATTRIBUTES: [&str; 17] = [
        "atime",
        "dev",
        "diratime",
        "exec",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "relatime",
        "ro",
        "rw",
        "strictatime",
        "suid",
    ];
    const OTHERS: [&str; 22] = [
        "symfollow",
        "rsymfollow",
        "async",
        "bind",
        "defaults",
        "dirsync",
        "idmap",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noiversion",
        "nolazytime",
        "nomand",
        "private",
        "rbind",
        "remount",
        "ridmap",
        "shared",
        "silent",
        "sync",
        "tmpcopyup",
    ];
    let mut words: Vec<String> = OTHERS.map(str::to_owned).to_vec();
    words.extend(ATTRIBUTES.iter().flat_map(|word| [(*word).to_owned(), format!("r{word}")]));
    words.extend(["rprivate", "rshared", "slave", "rslave", "unbindable", "runbindable"].map(str::to_owned));
    words.sort();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Options {
        parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_of_two_opposites_wins() {
        let options = parsed(&["noexec", "ro", "size=5", "exec", "huge"]);
        assert_eq!((options.own.set, options.own.clear), (READ_ONLY, NO_EXEC));
        assert_eq!(options.data, [("size".into(), Some("5".into())), ("huge".into(), None)]);
    }

    #[test]
    fn what_begins_with_r_goes_for_all_below() {
        let options = parsed(&["rbind", "rro", "rnosuid", "relatime", "rslave", "shared"]);
        assert_eq!(options.all.set, READ_ONLY | NO_SUID);
        assert_eq!((options.own.set, options.bind, options.recursive), (0, true, true));
        let expected = [(libc::MS_SLAVE, true), (libc::MS_SHARED, false)];
        assert_eq!(options.propagation.iter().map(|p| (p.flag, p.recursive)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_word_of_the_features_is_one_of_an_option() {
        for word in words() {
            assert!(
                parsed(&[&word]).data.is_empty()
                    || ["sync", "async", "dirsync", "lazytime", "nolazytime"].contains(&word.as_str()),
                "{word}"
            );
        }
    }
}
