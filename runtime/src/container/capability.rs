//! Which capabilities a container gets: Docker's default, plus what is added, minus what is dropped.

use oci_spec::runtime::Capability;
use std::collections::BTreeSet;

/// By number, as in `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Capability numbers.
pub(crate) type Set = BTreeSet<u8>;

/// Every capability known here.
pub(crate) fn all() -> Set {
    (0..NAMES.len() as u8).collect()
}

/// The set for a container; an unknown name is the error.
pub(crate) fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<Set, String> {
    let (add_all, add) = parse(add, "CapAdd")?;
    let (drop_all, drop) = parse(drop, "CapDrop")?;
    Ok(if privileged {
        all()
    } else if add_all {
        &all() - &drop
    } else if drop_all {
        add
    } else {
        &(&default() - &drop) | &add
    })
}

fn default() -> Set {
    DEFAULT.iter().filter_map(|name| number(name)).collect()
}

fn parse(names: &[String], option: &str) -> Result<(bool, Set), String> {
    let mut all = false;
    let mut set = Set::new();
    for name in names {
        let upper = name.to_uppercase();
        match upper.strip_prefix("CAP_").unwrap_or(&upper) {
            "ALL" => all = true,
            known if number(known).is_some() => set.extend(number(known)),
            unknown => return Err(format!("invalid {option}: unknown capability: \"CAP_{unknown}\"")),
        }
    }
    Ok((all, set))
}

fn number(name: &str) -> Option<u8> {
    NAMES.iter().position(|known| *known == name).map(|index| index as u8)
}

/// A full name, as in `CAP_CHOWN`.
pub(crate) fn is_known(name: &str) -> bool {
    name.strip_prefix("CAP_").is_some_and(|short| number(short).is_some())
}

/// `CAP_…`, for warnings.
pub(crate) fn name(number: u8) -> String {
    NAMES
        .get(usize::from(number))
        .map_or_else(|| format!("capability {number}"), |name| format!("CAP_{name}"))
}

pub(crate) fn to_oci(set: &Set) -> std::collections::HashSet<Capability> {
    set.iter().filter_map(|number| NAMES[usize::from(*number)].parse().ok()).collect()
}

pub(crate) fn from_oci(set: &std::collections::HashSet<Capability>) -> Set {
    set.iter().filter_map(|capability| number(capability.to_string().trim_start_matches("CAP_"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn default_is_dockers_fourteen() {
        assert_eq!(resolve(&[], &[], false).unwrap().len(), 14);
    }

    #[test]
    fn every_name_survives_the_oci_form() {
        assert_eq!(from_oci(&to_oci(&all())), all());
    }

    #[test]
    fn prefix_and_case_do_not_matter() {
        let set = resolve(&strings(&["cap_net_admin"]), &strings(&["Kill"]), false).unwrap();
        assert!(set.contains(&12) && !set.contains(&5));
    }

    #[test]
    fn all_wins_over_dropped_all() {
        assert_eq!(resolve(&strings(&["ALL"]), &strings(&["all", "CHOWN"]), false).unwrap().len(), 40);
        assert_eq!(resolve(&strings(&["CHOWN"]), &strings(&["ALL"]), false).unwrap(), Set::from([0]));
    }

    #[test]
    fn unknown_name_is_refused() {
        let error = resolve(&strings(&["FOO"]), &[], false).unwrap_err();
        assert_eq!(error, "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    }
}
