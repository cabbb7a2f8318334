//! Layers that mean harm, beyond what `images.rs` shows: names, repetitions, sizes, headers and devices.

#![allow(clippy::unwrap_used)]

mod common;

use stack_runtime::image::Store;
use stack_runtime::image::tar_read::{Entry, Kind, Reader};
use stack_runtime::image::tar_write::Writer;
use stack_runtime::snapshot;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn store() -> Option<(tempfile::TempDir, Store)> {
    let root = common::is_privileged().then(|| tempfile::tempdir().unwrap())?;
    let store = common::store_in(root.path());
    Some((root, store))
}

fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        let entry = Entry { size: content.len() as u64, ..entry.clone() };
        writer.append(&entry, *content).unwrap();
    }
    writer.finish().unwrap()
}

fn unpack(store: &Store, bytes: &[u8]) -> Result<PathBuf, String> {
    let layer = snapshot::unpack(store, "", bytes, None).map_err(|e| e.to_string())?;
    Ok(snapshot::lower_dirs(store, layer.chain_id.as_ref()).unwrap().remove(0))
}

fn file(path: &str) -> Entry {
    Entry::file(path, 0o644)
}

fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.entry().map_err(|e| e.to_string())? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(|e| e.to_string())?;
        found.push((String::from_utf8_lossy(&entry.path).into_owned(), content));
    }
    Ok(found)
}

/// A header with its content, padded, without the end of an archive.
fn member(kind: u8, name: &str, claimed: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_path(name).unwrap();
    header.set_size(claimed);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = [header.as_bytes().as_slice(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let length = key.len() + value.len() + 3;
    let digits = (length + length.to_string().len()).to_string().len();
    format!("{} {key}={value}\n", length + digits).into_bytes()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let records: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    member(b'x', "pax", records.len() as u64, &records)
}

#[test]
fn absolute_names_are_inside() {
    let Some((_root, store)) = store() else { return };
    let name = "/tmp/stack-hostile-absolute";
    let made = unpack(&store, &archive(&[(file(name), b"x"), (Entry::hard_link("//h", name), b"")])).unwrap();
    assert_eq!(std::fs::read(made.join(name.trim_start_matches('/'))).unwrap(), b"x");
    assert_eq!(std::fs::read(made.join("h")).unwrap(), b"x");
    assert!(!Path::new(name).exists());
}

#[test]
fn of_an_entry_that_comes_twice_the_last_counts() {
    let Some((_root, store)) = store() else { return };
    let made = unpack(
        &store,
        &archive(&[
            (file("f"), b"old"),
            (Entry::hard_link("h", "f"), b""),
            (file("f"), b"new"),
            (Entry::directory("d", 0o755), b""),
            (file("d/inner"), b"x"),
            (file("d"), b"now a file"),
            (file("e"), b"now a directory"),
            (Entry::directory("e", 0o700), b""),
            (file("e/inner"), b"y"),
            (Entry::symlink("l", "/etc"), b""),
            (Entry::directory("l", 0o755), b""),
            (file("l/passwd"), b"mine"),
        ]),
    )
    .unwrap();
    let text = |path: &str| String::from_utf8(std::fs::read(made.join(path)).unwrap()).unwrap();
    assert_eq!((text("f").as_str(), text("h").as_str()), ("new", "old"));
    assert_eq!((text("d").as_str(), text("e/inner").as_str()), ("now a file", "y"));
    assert_eq!(made.join("e").metadata().unwrap().mode() & 0o7777, 0o700);
    assert!(made.join("l").symlink_metadata().unwrap().is_dir());
    assert_eq!(text("l/passwd"), "mine");
}

/// The archive promises more than any disk has.
#[test]
fn a_size_that_is_not_there_is_an_error_and_leaves_nothing() {
    let Some((_root, store)) = store() else { return };
    for bytes in [
        [pax(&[("size", "4000000000000000000")]), member(b'0', "f", 0, b"x")].concat(),
        member(b'0', "f", (1 << 33) - 1, &[0; 4096]),
    ] {
        let error = unpack(&store, &bytes).expect_err("it ends early");
        assert!(error.contains("ends in the middle"), "{error}");
    }
    let error =
        unpack(&store, &[pax(&[("size", "18446744073709551615")]), member(b'0', "f", 0, b"")].concat());
    assert!(error.expect_err("no file is so large").contains("out of range"));
    assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
}

/// Sparse members have a map of their data before it: read as plain files they would have the wrong content, and what is
/// behind the map would be taken for the next header.
#[test]
fn sparse_members_are_refused() {
    for bytes in [
        member(b'S', "f", 512, &[0; 512]),
        [pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]), member(b'0', "f", 512, &[0; 512])]
            .concat(),
        [pax(&[("GNU.sparse.map", "0,1")]), member(b'0', "f", 512, &[0; 512])].concat(),
    ] {
        assert!(read(&bytes).expect_err("sparse").contains("sparse"));
    }
}

/// "TARmageddon": two sizes for one member. Who skips by the wrong one takes the content for headers.
#[test]
fn the_extended_size_alone_says_where_the_next_header_is() {
    let inner = [member(b'0', "smuggled", 4, b"evil"), vec![0; 1024]].concat();
    let size = inner.len().to_string();
    let bytes =
        [pax(&[("size", &size)]), member(b'0', "outer", 0, &inner), member(b'0', "last", 1, b"x")].concat();
    let names = |found: &[(String, Vec<u8>)]| found.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let found = read(&bytes).unwrap();
    assert_eq!(names(&found), ["outer", "last"]);
    assert_eq!(found[0].1, inner);
    // Skipped instead of read.
    let mut reader = Reader::new(&bytes[..]);
    assert_eq!(reader.entry().unwrap().unwrap().path, b"outer");
    assert_eq!(reader.entry().unwrap().unwrap().path, b"last");
    // The other way round; and the size belongs to the member, not to a header between.
    let bytes =
        [pax(&[("size", "0")]), member(b'0', "empty", 9999, b""), member(b'0', "last", 1, b"x")].concat();
    assert_eq!(names(&read(&bytes).unwrap()), ["empty", "last"]);
    let long = [b"n".repeat(120), vec![0]].concat();
    let bytes = [
        pax(&[("size", &size)]),
        member(b'L', "././@LongLink", long.len() as u64, &long),
        member(b'0', "outer", 0, &inner),
        member(b'0', "last", 1, b"x"),
    ]
    .concat();
    assert_eq!(names(&read(&bytes).unwrap()), ["n".repeat(120).as_str(), "last"]);
}

#[test]
fn malformed_extensions_are_refused() {
    for records in
        ["5 a=", "0 a=b\n", "99 path=x\n", "8 path=x\n", "9 noequal\n", "x path=y\n", "-9 path=x\n"]
    {
        let bytes =
            [member(b'x', "pax", records.len() as u64, records.as_bytes()), member(b'0', "f", 0, b"")]
                .concat();
        assert!(read(&bytes).expect_err(records).contains("PAX"), "{records}");
    }
    for (key, value) in
        [("size", "-1"), ("uid", "4294967295"), ("gid", "x"), ("mtime", "1.x"), ("mtime", "9e9")]
    {
        assert!(read(&[pax(&[(key, value)]), member(b'0', "f", 0, b"")].concat()).is_err(), "{key}={value}");
    }
    // A name with a zero byte could mean two names.
    if let Some((_root, store)) = store() {
        let error = unpack(&store, &[pax(&[("path", "a\0b")]), member(b'0', "f", 0, b"")].concat());
        assert!(error.expect_err("two names").contains("zero byte"));
    }
}

/// An ordinary user can neither make nor open the device: it is left out, and the rest of the layer is there. Run again by itself
/// in a user namespace.
#[test]
fn without_root_devices_are_left_out() {
    const INNER: &str = "STACK_TEST_IN_USER_NAMESPACE";
    if std::env::var_os(INNER).is_none() {
        if !common::is_privileged() {
            return;
        }
        let me = std::env::current_exe().unwrap();
        let name = "without_root_devices_are_left_out";
        let mut inner = Command::new("unshare");
        inner.args(["--user", "--map-root-user"]).arg(me).args(["--exact", name]).env(INNER, "1");
        assert!(inner.status().unwrap().success());
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let store = common::store_in(root.path());
    let made = unpack(
        &store,
        &archive(&[
            (Entry { device: (1, 1), ..Entry::new("mem", Kind::Character, 0o666) }, b""),
            (Entry { device: (8, 0), ..Entry::new("disk", Kind::Block, 0o666) }, b""),
            (file("f"), b"x"),
        ]),
    )
    .unwrap();
    assert!(!made.join("mem").exists() && !made.join("disk").exists());
    assert_eq!(std::fs::read(made.join("f")).unwrap(), b"x");
}
