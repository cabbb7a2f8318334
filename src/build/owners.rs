//! Users and groups of an image: `user[:group]` by its own passwd and group files.
//!
//! For COPY and ADD an unknown name means 0 and is no error; a user alone brings its group, a number alone the
//! same number as group. Files larger than [`FILE_BYTES_MAX`] are not read.

use super::tree::Tree;
use std::io::Read;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whether the text needs no files.
pub(super) fn numeric(text: &str) -> Option<Ids> {
    match text.split_once(':') {
        Some((user, group)) => Some(Ids { uid: user.parse().ok()?, gid: group.parse().ok()? }),
        None => text.parse().ok().map(|id| Ids { uid: id, gid: id }),
    }
}

/// Looks names up in a tree.
pub(super) fn lookup(text: &str, tree: &Tree) -> Ids {
    if let Some(ids) = numeric(text) {
        return ids;
    }
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let by_name = row(tree, "etc/passwd", user);
    let field = |row: &Option<Vec<String>>, index: usize| row.as_ref()?.get(index)?.parse().ok();
    let uid = user.parse().ok().or_else(|| field(&by_name, 2)).unwrap_or(0);
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| field(&row(tree, "etc/group", group), 2)).unwrap_or(0),
        None => field(&by_name, 3).unwrap_or(0),
    };
    Ids { uid, gid }
}

/// The fields of the line that begins with a name.
fn row(tree: &Tree, file: &str, name: &str) -> Option<Vec<String>> {
    let path = tree.resolve(Path::new(file), true).ok()?;
    let mut bytes = Vec::new();
    tree.file(&path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(fields).find(|fields| fields[0] == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("etc")).expect("made");
        std::fs::write(directory.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:10:20::/:\n")
            .expect("written");
        std::fs::write(directory.path().join("etc/group"), "staff:x:50:\n").expect("written");
        let tree = Tree::open(directory.path()).expect("opened");
        let ids = |text: &str| {
            let ids = lookup(text, &tree);
            (ids.uid, ids.gid)
        };
        assert_eq!(ids("app"), (10, 20));
        assert_eq!(ids("app:staff"), (10, 50));
        assert_eq!(ids("7"), (7, 7));
        assert_eq!(ids("7:8"), (7, 8));
        assert_eq!(ids("7:staff"), (7, 50));
        assert_eq!(ids("nobody:nogroup"), (0, 0));
    }
}
