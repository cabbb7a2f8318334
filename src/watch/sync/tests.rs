use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

/// A directory that plays the container, one that plays the host.
struct Pair {
    inside: tempfile::TempDir,
    outside: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        Self { inside: tempfile::tempdir().unwrap(), outside: tempfile::tempdir().unwrap() }
    }
    fn replica(&self) -> Replica {
        let own = fs::metadata(self.inside.path()).unwrap();
        Replica {
            name: "web-1".into(),
            root: Root::of_directory(self.inside.path()).unwrap(),
            owner: Some((own.uid(), own.gid())),
        }
    }
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.outside.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
    fn sync(&self, from: &Path, to: &str, equal: Equal) -> io::Result<()> {
        copy_into(&self.replica(), &[Copy { from: from.into(), to: to.into() }], equal)
    }
    fn inside(&self, name: &str) -> PathBuf {
        self.inside.path().join(name)
    }
}

#[test]
fn a_file_arrives_with_mode_and_time_and_its_directories() {
    let pair = Pair::new();
    let from = pair.write("run.sh", "echo");
    fs::set_permissions(&from, fs::Permissions::from_mode(0o750)).unwrap();
    pair.sync(&from, "/app/bin/run.sh", Equal::Replace).unwrap();
    let (there, here) = (fs::metadata(pair.inside("app/bin/run.sh")).unwrap(), fs::metadata(&from).unwrap());
    assert_eq!(there.mode() & 0o7777, 0o750);
    assert_eq!((there.mtime(), there.mtime_nsec()), (here.mtime(), here.mtime_nsec()));
    assert_eq!(fs::read_dir(pair.inside("app/bin")).unwrap().count(), 1, "no temporary is left");
}

#[test]
fn a_replaced_file_is_a_new_one_and_an_equal_one_may_stay() {
    let pair = Pair::new();
    fs::write(pair.inside("a"), "text").unwrap();
    let old = fs::metadata(pair.inside("a")).unwrap().ino();
    let from = pair.write("a", "text");
    pair.sync(&from, "/a", Equal::Keep).unwrap();
    assert_eq!(fs::metadata(pair.inside("a")).unwrap().ino(), old);
    pair.sync(&from, "/a", Equal::Replace).unwrap();
    assert_ne!(fs::metadata(pair.inside("a")).unwrap().ino(), old);
    let from = pair.write("a", "TEXT");
    pair.sync(&from, "/a", Equal::Keep).unwrap();
    assert_eq!(fs::read_to_string(pair.inside("a")).unwrap(), "TEXT");
}

#[test]
fn what_is_gone_outside_is_removed_inside() {
    let pair = Pair::new();
    fs::create_dir_all(pair.inside("app/sub/deep")).unwrap();
    fs::write(pair.inside("app/sub/deep/f"), "").unwrap();
    symlink("/etc", pair.inside("app/sub/link")).unwrap();
    pair.sync(&pair.outside.path().join("sub"), "/app/sub", Equal::Replace).unwrap();
    assert!(!pair.inside("app/sub").exists() && pair.inside("app").exists());
    pair.sync(&pair.outside.path().join("never"), "/nowhere/never", Equal::Replace).unwrap();
    assert!(!pair.inside("nowhere").exists());
}

#[test]
fn links_of_the_container_never_lead_out() {
    let pair = Pair::new();
    let secret = tempfile::tempdir().unwrap();
    symlink(secret.path(), pair.inside("absolute")).unwrap();
    symlink("../../../../../../../../../../tmp", pair.inside("relative")).unwrap();
    let from = pair.write("f", "x");
    // A dangling link is in the way: resolved inside, nothing is there.
    assert!(pair.sync(&from, "/absolute/f", Equal::Replace).is_err());
    assert_eq!(fs::read_dir(secret.path()).unwrap().count(), 0);
    fs::create_dir(pair.inside("tmp")).unwrap();
    pair.sync(&from, "/relative/stack-sync-test", Equal::Replace).unwrap();
    assert!(pair.inside("tmp/stack-sync-test").exists());
    // The last name is replaced, not followed.
    let outer = secret.path().join("outer");
    fs::write(&outer, "kept").unwrap();
    symlink(&outer, pair.inside("file")).unwrap();
    pair.sync(&from, "/file", Equal::Replace).unwrap();
    assert_eq!(fs::read_to_string(&outer).unwrap(), "kept");
    assert!(fs::symlink_metadata(pair.inside("file")).unwrap().is_file());
}

#[test]
fn links_stay_links_and_kinds_may_change() {
    let pair = Pair::new();
    let link = pair.outside.path().join("link");
    symlink("somewhere", &link).unwrap();
    fs::create_dir_all(pair.inside("x/y")).unwrap();
    pair.sync(&link, "/x", Equal::Replace).unwrap();
    assert_eq!(fs::read_link(pair.inside("x")).unwrap(), Path::new("somewhere"));
    let directory = pair.outside.path().join("directory");
    fs::create_dir(&directory).unwrap();
    pair.sync(&directory, "/x", Equal::Replace).unwrap();
    assert!(fs::symlink_metadata(pair.inside("x")).unwrap().is_dir());
    let file = pair.write("file", "now a file");
    pair.sync(&file, "/x", Equal::Replace).unwrap();
    assert!(fs::symlink_metadata(pair.inside("x")).unwrap().is_file());
}

#[test]
fn our_own_root_is_no_container() {
    let own = crate::host::process::ProcessMark::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert_eq!(Root::of_process(own).unwrap_err().kind(), io::ErrorKind::NotFound);
}
