//! Who the program is: `user[:group]` looked up in the container's own passwd and group files.

use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// A passwd or group file is not read beyond this.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks up in the files below `root`.
pub(super) fn lookup(root: impl AsFd, user: &str, group_add: &[String]) -> Result<Identity, String> {
    resolve(user, group_add, &read(&root, "/etc/passwd"), &read(&root, "/etc/group"))
}

/// By numbers alone; only the home directory is looked up.
pub(super) fn numbered(root: impl AsFd, uid: u32, gid: u32, groups: &[u32]) -> Identity {
    let passwd = read(&root, "/etc/passwd");
    let account = passwd.lines().filter_map(Account::parse).find(|account| account.uid == uid);
    let home = account.map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
}

/// User and group alone.
pub(crate) fn ids(root: impl AsFd, user: &str) -> Result<(u32, u32), String> {
    lookup(root, user, &[]).map(|identity| (identity.uid, identity.gid))
}

fn read(root: impl AsFd, path: &str) -> String {
    let open = || {
        // An image may have anything there, a FIFO that never opens too.
        let fd = super::path::open(root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK)?;
        if super::path::file_type(&fd)? != FileType::RegularFile {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        File::from(fd).take(MAX_BYTES).read_to_end(&mut bytes).map(|_| bytes)
    };
    String::from_utf8_lossy(&open().unwrap_or_default()).into_owned()
}

fn resolve(user: &str, group_add: &[String], passwd: &str, group: &str) -> Result<Identity, String> {
    let (name, explicit) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<u32> = name.parse().ok();
    let entry = passwd.lines().filter_map(Account::parse).find(|a| a.name == name || Some(a.uid) == number);
    let mut identity = match (&entry, number) {
        (Some(account), _) => {
            Identity { uid: account.uid, gid: account.gid, groups: Vec::new(), home: account.home.to_owned() }
        }
        (None, Some(uid)) => Identity { uid, ..Identity::default() },
        (None, None) => {
            return Err(format!("unable to find user {name}: no matching entries in passwd file"));
        }
    };
    match explicit.filter(|group| !group.is_empty()) {
        Some(asked) => identity.gid = find_group(asked, group)?,
        None => identity.groups.extend(entry.iter().flat_map(|account| memberships(account.name, group))),
    }
    for asked in group_add {
        identity.groups.push(find_group(asked, group)?);
    }
    if identity.home.is_empty() {
        identity.home = "/".into();
    }
    Ok(identity)
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim_end().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

/// Name, number, members.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim_end().split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

fn find_group(asked: &str, text: &str) -> Result<u32, String> {
    let number: Option<u32> = asked.parse().ok();
    let found = groups(text).find(|(name, gid, _)| *name == asked || Some(*gid) == number);
    found
        .map(|(_, gid, _)| gid)
        .or(number)
        .ok_or_else(|| format!("unable to find group {asked}: no matching entries in group file"))
}

fn memberships(user: &str, text: &str) -> Vec<u32> {
    groups(text)
        .filter(|(_, _, members)| members.split(',').any(|m| m == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:,,,:/home/web:/bin/sh\nbroken line\n";
    const GROUP: &str = "root:x:0:\nweb:x:1001:\nvideo:x:44:web,other\ndocker:x:999:root\n";

    fn found(user: &str, add: &[&str]) -> Result<Identity, String> {
        let add: Vec<String> = add.iter().map(|group| (*group).to_owned()).collect();
        resolve(user, &add, PASSWD, GROUP)
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity { uid, gid, groups: groups.to_vec(), home: home.into() }
    }

    #[test]
    fn names_and_numbers_with_an_entry_are_the_same() {
        assert_eq!(found("web", &[]).unwrap(), identity(1000, 1001, &[44], "/home/web"));
        assert_eq!(found("1000", &[]).unwrap(), identity(1000, 1001, &[44], "/home/web"));
        assert_eq!(found("", &[]).unwrap(), identity(0, 0, &[999], "/root"));
    }

    #[test]
    fn a_number_without_an_entry_is_fine() {
        assert_eq!(found("4242", &[]).unwrap(), identity(4242, 0, &[], "/"));
        assert_eq!(found("4242:77", &[]).unwrap(), identity(4242, 77, &[], "/"));
    }

    #[test]
    fn an_explicit_group_drops_memberships_and_group_add_comes_on_top() {
        assert_eq!(found("web:docker", &["video", "5"]).unwrap(), identity(1000, 999, &[44, 5], "/home/web"));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(found("x", &[]).unwrap_err(), "unable to find user x: no matching entries in passwd file");
        assert_eq!(
            found("web", &["x"]).unwrap_err(),
            "unable to find group x: no matching entries in group file"
        );
    }
}
