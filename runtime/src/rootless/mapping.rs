//! Which ids of the user namespace are which outside.

use std::fs;
use std::io;
use std::process::Command;

/// Consecutive ids outside, from subuid(5) or subgid(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub start: u32,
    pub count: u32,
}

/// How ids are mapped for the calling user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    uid: u32,
    gid: u32,
    /// Subordinate users and groups; without both only one id is mapped.
    ranges: Option<(Vec<Range>, Vec<Range>)>,
}

/// The programs that may map subordinate ids.
pub(crate) const HELPERS: [&str; 2] = ["newuidmap", "newgidmap"];

impl Mapping {
    /// Subordinate ids where the user has some and the helper programs that may map them are there.
    pub fn of_user() -> Self {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
        let of = |file: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            Some(ranges(&text, &name, uid.as_raw())).filter(|found| !found.is_empty())
        };
        let has_helpers = HELPERS.iter().all(|helper| is_on_path(helper));
        let ranges = has_helpers.then(|| of("/etc/subuid").zip(of("/etc/subgid"))).flatten();
        Self { uid: uid.as_raw(), gid: gid.as_raw(), ranges }
    }

    /// Only the user's own id.
    pub fn is_single(&self) -> bool {
        self.ranges.is_none()
    }

    /// Gives process `pid`, which has just entered a new user namespace, its mapping. Runs outside of it.
    ///
    /// # Errors
    /// Of the kernel or the helper programs, with their words.
    pub fn write(&self, pid: i32) -> io::Result<()> {
        match &self.ranges {
            Some((users, groups)) => {
                map("newuidmap", pid, self.uid, users)?;
                map("newgidmap", pid, self.gid, groups)
            }
            None => {
                let file = |name: &str| format!("/proc/{pid}/{name}");
                // Without it the kernel does not let an ordinary user map a group (user_namespaces(7)).
                fs::write(file("setgroups"), "deny")?;
                fs::write(file("uid_map"), format!("0 {} 1", self.uid))?;
                fs::write(file("gid_map"), format!("0 {} 1", self.gid))
            }
        }
    }
}

fn map(helper: &str, pid: i32, own: u32, ranges: &[Range]) -> io::Result<()> {
    let mut arguments =
        vec![pid, 0, own.cast_signed(), 1].into_iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let mut inside = 1_u64;
    for range in ranges {
        arguments.extend([inside.to_string(), range.start.to_string(), range.count.to_string()]);
        inside += u64::from(range.count);
    }
    let output = Command::new(helper).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{helper} failed: {words}")))
}

/// Lines `USER:START:COUNT`, where USER is a name or a number.
pub(crate) fn ranges(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let user = fields.next().filter(|user| *user == number || (!name.is_empty() && *user == name))?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Range { start, count }).filter(|range| !user.is_empty() && range.count > 0)
    };
    text.lines().filter_map(parse).collect()
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# comment\nroot:1:2\ndev:100000:65536\n1000:300000:10\nbroken:x:1\ndev:5\nother:9:9\n";
        let expected = [Range { start: 100_000, count: 65536 }, Range { start: 300_000, count: 10 }];
        assert_eq!(ranges(text, "dev", 1000), expected);
        assert_eq!(ranges(text, "", 7), []);
    }
}
