//! Mount options in the words of fstab, as the OCI runtime spec lists them.

use crate::sys::mount::{NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use std::path::PathBuf;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `MOUNT_ATTR_…` to set and to clear.
    pub set: u64,
    pub clear: u64,
    pub recursive: bool,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`.
    pub propagation: Option<u64>,
    /// Options of the file system itself.
    pub data: Vec<(String, Option<String>)>,
    /// The source must not lead out of this directory.
    pub inside: Option<PathBuf>,
}

pub(super) fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options {
        if let Some((set, clear)) = attribute(option) {
            parsed.set = (parsed.set & !clear) | set;
            parsed.clear = (parsed.clear & !set) | clear;
        } else if let Some(flag) = propagation(option) {
            parsed.propagation = Some(flag);
        } else if option == "rbind" {
            parsed.recursive = true;
        } else if let Some(dir) = option.strip_prefix("inside=") {
            parsed.inside = Some(dir.into());
        } else if !["bind", "defaults", "z", "Z", ""].contains(&option.as_str()) {
            let (key, value) = option.split_once('=').map_or((option.as_str(), None), |(k, v)| (k, Some(v)));
            parsed.data.push((key.to_owned(), value.map(str::to_owned)));
        }
    }
    parsed
}

/// What is set and what is cleared.
fn attribute(option: &str) -> Option<(u64, u64)> {
    let atime = libc::MOUNT_ATTR__ATIME;
    Some(match option {
        "ro" | "rro" => (READ_ONLY, 0),
        "rw" => (0, READ_ONLY),
        "nosuid" => (NO_SUID, 0),
        "suid" => (0, NO_SUID),
        "nodev" => (NO_DEV, 0),
        "dev" => (0, NO_DEV),
        "noexec" => (NO_EXEC, 0),
        "exec" => (0, NO_EXEC),
        "strictatime" => (libc::MOUNT_ATTR_STRICTATIME, atime & !libc::MOUNT_ATTR_STRICTATIME),
        "noatime" => (libc::MOUNT_ATTR_NOATIME, atime & !libc::MOUNT_ATTR_NOATIME),
        "relatime" => (0, atime),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<u64> {
    Some(match option {
        "private" | "rprivate" => libc::MS_PRIVATE,
        "slave" | "rslave" => libc::MS_SLAVE,
        "shared" | "rshared" => libc::MS_SHARED,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_opposites_wins() {
        let options = parse(&["noexec", "ro", "size=5", "exec", "huge"].map(str::to_owned));
        assert_eq!((options.set, options.clear), (READ_ONLY, NO_EXEC));
        assert_eq!(options.data, [("size".into(), Some("5".into())), ("huge".into(), None)]);
    }
}
