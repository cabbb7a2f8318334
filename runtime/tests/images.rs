//! Layers and archives on the real file system: needs root for owners, devices and overlay marks.

#![allow(clippy::unwrap_used)]

mod common;

use stack_runtime::image::archive::{import, load, load_path, save};
use stack_runtime::image::digest::chain;
use stack_runtime::image::prune::{InUse, Which, prune, usage};
use stack_runtime::image::tar_read::{Entry, Kind};
use stack_runtime::image::tar_write::Writer;
use stack_runtime::image::{Digest, ImageConfig, Reference, Store, compress, fixture};
use stack_runtime::snapshot::{self, Working};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn store() -> Option<(tempfile::TempDir, Store)> {
    if !common::is_privileged() {
        return None;
    }
    let root = tempfile::tempdir().unwrap();
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

fn unpack(store: &Store, parent: &str, entries: &[(Entry, &[u8])]) -> Result<(String, PathBuf), String> {
    let bytes = archive(entries);
    let layer = snapshot::unpack(store, parent, &bytes[..], None).map_err(|e| e.to_string())?;
    assert_eq!(layer.diff_id, Digest::of(&bytes));
    assert_eq!(layer.chain_id, chain(parent, &layer.diff_id));
    let chain_id = layer.chain_id.to_string();
    let directory = snapshot::lower_dirs(store, &chain_id).unwrap().remove(0);
    Ok((chain_id, directory))
}

fn file(path: &str) -> Entry {
    Entry::file(path, 0o644)
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    rustix::fs::lgetxattr(path, name, &mut value[..]).ok().map(|length| value[..length].to_vec())
}

#[test]
fn attributes_survive() {
    let Some((_root, store)) = store() else { return };
    let capability =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
    let entries = [
        (Entry { mtime: (1_600_000_000, 0), uid: 7, gid: 8, ..Entry::directory("d", 0o2711) }, &b""[..]),
        (
            Entry {
                mtime: (1_500_000_000, 0),
                uid: 1000,
                gid: 1001,
                xattrs: vec![
                    (b"security.capability".to_vec(), capability.clone()),
                    (b"user.note".to_vec(), b"a\nb".to_vec()),
                ],
                ..Entry::file("d/f", 0o4755)
            },
            b"content",
        ),
        (Entry::hard_link("d/g", "d/f"), b""),
        (Entry { mtime: (1_400_000_000, 0), uid: 5, ..Entry::symlink("d/l", "/nowhere/../x") }, b""),
        (Entry { device: (1, 3), ..Entry::new("null", Kind::Character, 0o666) }, b""),
        (Entry { device: (7, 0), ..Entry::new("loop", Kind::Block, 0o660) }, b""),
        (Entry::new("pipe", Kind::Fifo, 0o600), b""),
        (file(&format!("{}/deep", "long-directory-name/".repeat(12))), b"x"),
    ];
    let (_, root) = unpack(&store, "", &entries).unwrap();
    let f = root.join("d/f").metadata().unwrap();
    assert_eq!((f.mode() & 0o7777, f.uid(), f.gid(), f.mtime()), (0o4755, 1000, 1001, 1_500_000_000));
    assert_eq!(f.ino(), root.join("d/g").metadata().unwrap().ino());
    assert_eq!(xattr(&root.join("d/f"), "security.capability"), Some(capability));
    assert_eq!(xattr(&root.join("d/f"), "user.note"), Some(b"a\nb".to_vec()));
    let d = root.join("d").metadata().unwrap();
    assert_eq!((d.mode() & 0o7777, d.uid(), d.gid(), d.mtime()), (0o2711, 7, 8, 1_600_000_000));
    let l = root.join("d/l").symlink_metadata().unwrap();
    assert_eq!((l.uid(), l.mtime()), (5, 1_400_000_000));
    assert_eq!(root.join("d/l").read_link().unwrap(), Path::new("/nowhere/../x"));
    let null = root.join("null").symlink_metadata().unwrap();
    assert!(
        null.file_type().is_char_device()
            && null.rdev() == rustix::fs::makedev(1, 3)
            && null.mode() & 0o7777 == 0o666
    );
    assert!(root.join("loop").symlink_metadata().unwrap().file_type().is_block_device());
    assert!(root.join("pipe").symlink_metadata().unwrap().file_type().is_fifo());
    assert!(root.join("long-directory-name").is_dir());
}

#[test]
fn hostile_archives_stay_inside() {
    let Some((root, store)) = store() else { return };
    let outside = root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("victim"), "safe").unwrap();
    let out = outside.to_str().unwrap();
    for (entries, reason) in [
        (vec![(file("../evil"), &b"x"[..])], "leads upwards"),
        (vec![(file("a/../../evil"), b"x")], "leads upwards"),
        (vec![(Entry::hard_link("h", "../../../etc/passwd"), b"")], "leads upwards"),
        (vec![(Entry::hard_link("h", &format!("{out}/victim")), b"")], "does not have"),
        (vec![(Entry::symlink("s", out), b""), (Entry::hard_link("h", "s/victim"), b"")], "does not have"),
        (vec![(file("f"), b"x"), (file("f/g"), b"x")], "not a directory"),
        (
            vec![(Entry::symlink("a", "b"), b""), (Entry::symlink("b", "a"), b""), (file("a/f"), b"x")],
            "too many symbolic links",
        ),
        (vec![(Entry { device: (0, 0), ..Entry::new("w", Kind::Character, 0o600) }, b"")], "whiteout"),
        (vec![(file(".wh."), b"")], "whiteout of nothing"),
        (vec![(file(".wh..."), b"")], "whiteout of nothing"),
        (vec![(file("."), b"")], "root must be"),
        (vec![(file(&"n".repeat(300)), b"")], "too long"),
    ] {
        let error = unpack(&store, "", &entries).expect_err(reason);
        assert!(error.contains(reason), "{reason}: {error}");
    }
    // A link is made as it is, and what goes through it stays inside.
    let (_, made) = unpack(
        &store,
        "",
        &[
            (Entry::symlink("s", out), b""),
            (file("s/victim"), b"mine"),
            (Entry::symlink("up", "../../.."), b""),
            (file("up/etc/f"), b"x"),
        ],
    )
    .unwrap();
    assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"safe");
    assert_eq!(std::fs::read(made.join(out.trim_start_matches('/')).join("victim")).unwrap(), b"mine");
    assert_eq!(std::fs::read(made.join("etc/f")).unwrap(), b"x");
    // Replacing a link writes beside it, not through it.
    let (_, made) =
        unpack(&store, "", &[(Entry::symlink("f", &format!("{out}/victim")), b""), (file("f"), b"new")])
            .unwrap();
    assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"safe");
    assert_eq!(std::fs::read(made.join("f")).unwrap(), b"new");
    let sly = vec![
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/x".to_vec()),
    ];
    let (_, made) =
        unpack(&store, "", &[(Entry { xattrs: sly, ..Entry::directory("d", 0o755) }, b"")]).unwrap();
    assert_eq!(xattr(&made.join("d"), "trusted.overlay.opaque"), None);
    assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
}

#[test]
fn whiteouts_and_parents_of_layers_below() {
    let Some((_root, store)) = store() else { return };
    let base = [
        (Entry { uid: 3, mtime: (1_000_000_000, 0), ..Entry::directory("usr", 0o751) }, &b""[..]),
        (Entry::directory("usr/bin", 0o755), b""),
        (Entry::symlink("bin", "usr/bin"), b""),
        (file("gone"), b"x"),
        (Entry::directory("tree", 0o755), b""),
        (file("tree/old"), b"x"),
    ];
    let (parent, _) = unpack(&store, "", &base).unwrap();
    let upper = [
        // Through the link of the layer below.
        (file("bin/tool"), &b"t"[..]),
        (file(".wh.gone"), b""),
        (file("tree/.wh..wh..opq"), b""),
        (file("tree/new"), b"n"),
        (file("deep/.wh.thing"), b""),
        (file("deep/.wh.thing2"), b""),
        (Entry::directory("deep/thing2", 0o700), b""),
        (file(".wh..wh.plnk"), b""),
    ];
    let (chain_id, root) = unpack(&store, &parent, &upper).unwrap();
    assert_eq!(std::fs::read(root.join("usr/bin/tool")).unwrap(), b"t");
    assert!(!root.join("bin").exists());
    let usr = root.join("usr").metadata().unwrap();
    assert_eq!((usr.mode() & 0o7777, usr.uid(), usr.mtime()), (0o751, 3, 1_000_000_000));
    assert!(is_whiteout(&root.join("gone")));
    assert!(is_whiteout(&root.join("deep/thing")));
    assert_eq!(xattr(&root.join("tree"), "trusted.overlay.opaque"), Some(b"y".to_vec()));
    assert_eq!(xattr(&root.join("deep/thing2"), "trusted.overlay.opaque"), Some(b"y".to_vec()));
    assert_eq!(snapshot::lower_dirs(&store, &chain_id).unwrap().len(), 2);
    assert_eq!(snapshot::lower_dirs(&store, "").unwrap().len(), 0);
    // A removed link does not lead anywhere any more.
    let (third, _) = unpack(&store, &chain_id, &[(file(".wh.bin"), b"")]).unwrap();
    let (_, fourth) = unpack(&store, &third, &[(file("bin/x"), b"x")]).unwrap();
    assert_eq!(std::fs::read(fourth.join("bin/x")).unwrap(), b"x");
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let Some((_root, store)) = store() else { return };
    let bytes = archive(&[(file("f"), b"x")]);
    let wrong = Digest::of(b"something else");
    let error = snapshot::unpack(&store, "", &bytes[..], Some(&wrong)).unwrap_err();
    assert!(error.to_string().contains("expected sha256"), "{error}");
    assert_eq!(std::fs::read_dir(store.snapshots()).unwrap().count(), 0);
    assert!(snapshot::unpack(&store, "", &bytes[..700], None).is_err());
    assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
}

#[test]
fn makers_of_one_layer_wait_for_each_other() {
    let Some((_root, store)) = store() else { return };
    let bytes = archive(&[(file("f"), &[1; 200_000])]);
    let diff_id = Digest::of(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| snapshot::unpack(&store, "", &bytes[..], Some(&diff_id)).unwrap());
        }
    });
    assert_eq!(std::fs::read_dir(store.snapshots()).unwrap().count(), 1);
}

/// Changes an upper directory as overlayfs would.
fn change(upper: &Path) {
    std::fs::create_dir(upper.join("etc")).unwrap();
    std::fs::write(upper.join("etc/motd"), "hello").unwrap();
    std::fs::hard_link(upper.join("etc/motd"), upper.join("etc/motd2")).unwrap();
    symlink("motd", upper.join("etc/link")).unwrap();
    std::os::unix::net::UnixListener::bind(upper.join("etc/socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        upper.join("gone"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    rustix::fs::setxattr(upper.join("etc"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
        .unwrap();
    rustix::fs::setxattr(upper.join("etc"), "trusted.overlay.impure", b"y", rustix::fs::XattrFlags::empty())
        .unwrap();
    rustix::fs::setxattr(upper.join("etc/motd"), "user.k", b"v", rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn a_committed_layer_is_its_archive() {
    let Some((_root, store)) = store() else { return };
    let (parent, _) =
        unpack(&store, "", &[(Entry::directory("./", 0o711), b""), (file("gone"), b"x")]).unwrap();
    let working = Working::temporary(&store, &parent).unwrap();
    assert_eq!(working.upper.metadata().unwrap().permissions().mode() & 0o7777, 0o711);
    change(&working.upper);
    let layer = working.commit(&store).unwrap();
    assert_eq!(layer.size, 5);
    let mut bytes = Vec::new();
    snapshot::archive(&store, layer.chain_id.as_str(), &mut bytes).unwrap();
    assert_eq!(Digest::of(&bytes), layer.diff_id);
    // Another store makes the same layer of it.
    let other = common::store_in(&store.root().join("other"));
    let (_, base) =
        unpack(&other, "", &[(Entry::directory("./", 0o711), b""), (file("gone"), b"x")]).unwrap();
    assert_eq!(base.metadata().unwrap().permissions().mode() & 0o7777, 0o711);
    let again = snapshot::unpack(&other, &parent, &bytes[..], Some(&layer.diff_id)).unwrap();
    let fs = snapshot::lower_dirs(&other, again.chain_id.as_str()).unwrap().remove(0);
    assert!(is_whiteout(&fs.join("gone")));
    assert_eq!(xattr(&fs.join("etc"), "trusted.overlay.opaque"), Some(b"y".to_vec()));
    assert_eq!(xattr(&fs.join("etc"), "trusted.overlay.impure"), None);
    assert_eq!(xattr(&fs.join("etc/motd"), "user.k"), Some(b"v".to_vec()));
    assert_eq!(fs.join("etc/motd").metadata().unwrap().nlink(), 2);
    let mut repacked = Vec::new();
    snapshot::archive(&other, again.chain_id.as_str(), &mut repacked).unwrap();
    assert_eq!(repacked, bytes);
    // The same change again is the same layer.
    let empty = Working::temporary(&store, &parent).unwrap().commit(&store).unwrap();
    assert_eq!(Working::temporary(&store, &parent).unwrap().commit(&store).unwrap(), empty);
    assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
}

#[test]
fn loads_every_form() {
    let Some((root, store)) = store() else { return };
    let Some(rootfs) = common::busybox() else { return };
    let second = archive(&[(file("hello"), b"hello")]);
    let layers = [rootfs, second];
    let docker =
        fixture::docker_archive(&["busybox:1", "example.com/a/b:2"], fixture::busybox_config(), &layers)
            .unwrap();
    let oci = fixture::oci_archive("busybox:oci", fixture::busybox_config(), &layers).unwrap();
    let loaded = load(&store, &docker[..]).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(
        loaded[0].references.iter().map(Reference::familiar).collect::<Vec<_>>(),
        ["busybox:1", "example.com/a/b:2"]
    );
    let zipped = zstd::encode_all(&oci[..], 1).unwrap();
    assert_eq!(load(&store, &zipped[..]).unwrap()[0].id, loaded[0].id);
    let mut gzipped = compress::gzip(Vec::new());
    gzipped.write_all(&docker).unwrap();
    let path = root.path().join("image.tgz");
    std::fs::write(&path, gzipped.finish().unwrap()).unwrap();
    assert_eq!(load_path(&store, &path).unwrap(), loaded);

    let image = store.image("busybox:oci").unwrap().unwrap();
    assert_eq!(image.references.len(), 3);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.chain_id, chain(image.layers[0].as_str(), &image.layers[1]).to_string());
    assert_eq!(image.config.cmd.as_deref().unwrap(), ["sh"]);
    assert!(image.size > 1_000_000);
    assert_eq!(store.image(image.id.short()).unwrap().unwrap().id, image.id);
    assert!(store.image("nosuch").unwrap().is_none());
    let fs = snapshot::lower_dirs(&store, &image.chain_id).unwrap();
    assert_eq!(std::fs::read(fs[0].join("hello")).unwrap(), b"hello");
    assert!(fs[1].join("bin/busybox").is_file());
    assert_eq!(fs[1].join("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn broken_archives_are_refused() {
    let Some((_root, store)) = store() else { return };
    let layer = archive(&[(file("f"), b"x")]);
    let good = fixture::docker_archive(&["a"], ImageConfig::default(), std::slice::from_ref(&layer)).unwrap();
    let config = fixture::document(ImageConfig::default(), &[archive(&[(file("other"), b"y")])]);
    let mut writer = Writer::new(Vec::new());
    writer.append_bytes("c", &config).unwrap();
    writer.append_bytes("l", &layer).unwrap();
    writer.append_bytes("manifest.json", br#"[{"Config":"c","RepoTags":null,"Layers":["l"]}]"#).unwrap();
    let wrong_layer = writer.finish().unwrap();
    for (bytes, reason) in [
        (good[..good.len() / 2].to_vec(), ""),
        (archive(&[(file("manifest.json"), b"[{\"Config\":\"c\"}]")]), "`c` is missing"),
        (archive(&[(file("manifest.json"), b"{")]), "manifest.json"),
        (archive(&[(file("readme"), b"x")]), "neither manifest.json nor index.json"),
        (b"not a tar archive at all".repeat(40), "not a tar archive"),
        (wrong_layer, "expected sha256"),
    ] {
        let error = load(&store, &bytes[..]).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    assert!(store.images().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
}

#[test]
fn saves_what_it_loads() {
    let Some((root, store)) = store() else { return };
    let Some(_) = common::busybox() else { return };
    let image = fixture::load_busybox(&store).unwrap();
    // A layer built here on top.
    let base = store.image("busybox").unwrap().unwrap();
    let working = Working::temporary(&store, &base.chain_id).unwrap();
    std::fs::write(working.upper.join("built"), "here").unwrap();
    let layer = working.commit(&store).unwrap();
    let mut document = base.document.clone();
    document.rootfs.diff_ids.push(layer.diff_id.clone());
    let layers = [base.layers[0].clone(), layer.diff_id.clone()];
    let built = store
        .write_image(
            &serde_json::to_vec(&document).unwrap(),
            &layers,
            &[Reference::parse("built:1").unwrap()],
        )
        .unwrap();

    let mut bytes = Vec::new();
    save(&store, &["busybox".into(), "built:1".into()], &mut bytes).unwrap();
    let other = common::store_in(&root.path().join("other"));
    let loaded = load(&other, &bytes[..]).unwrap();
    assert_eq!(loaded.iter().map(|l| l.id.clone()).collect::<Vec<_>>(), [image.id, built.clone()]);
    let fs = snapshot::lower_dirs(&other, &other.image("built:1").unwrap().unwrap().chain_id).unwrap();
    assert_eq!(std::fs::read(fs[0].join("built")).unwrap(), b"here");
    // As an OCI layout directory, too.
    let layout = root.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    tar::Archive::new(&bytes[..]).unpack(&layout).unwrap();
    std::fs::remove_file(layout.join("manifest.json")).unwrap();
    let third = common::store_in(&root.path().join("third"));
    assert_eq!(load_path(&third, &layout).unwrap()[1].id, built);
    assert!(save(&store, &["nosuch".into()], Vec::new()).is_err());
}

#[test]
fn imports_a_root_file_system() {
    let Some((_root, store)) = store() else { return };
    let mut config = fixture::busybox_config();
    config.labels.insert("made.by".into(), "test".into());
    let reference = Reference::parse("imported").unwrap();
    let Some(rootfs) = common::busybox() else { return };
    let id = import(&store, &rootfs[..], config, &[reference]).unwrap();
    let image = store.image("imported").unwrap().unwrap();
    assert_eq!((image.id, image.labels["made.by"].as_str()), (id, "test"));
    let mut bytes = Vec::new();
    save(&store, &["imported".into()], &mut bytes).unwrap();
    assert!(!store.has_blob(&image.layers[0]));
    let mut count = 0;
    tar::Archive::new(&bytes[..]).entries().unwrap().for_each(|e| {
        let mut entry = e.unwrap();
        entry.read_to_end(&mut Vec::new()).unwrap();
        count += 1;
    });
    assert!(count >= 6);
}

#[test]
fn names_move_and_go() {
    let Some((_root, store)) = store() else { return };
    let first =
        fixture::docker_archive(&["a:1", "b:1"], ImageConfig::default(), &[archive(&[(file("1"), b"")])])
            .unwrap();
    let second =
        fixture::docker_archive(&["a:1"], ImageConfig::default(), &[archive(&[(file("2"), b"")])]).unwrap();
    let one = load(&store, &first[..]).unwrap().remove(0).id;
    let two = load(&store, &second[..]).unwrap().remove(0).id;
    assert_eq!(store.image("a:1").unwrap().unwrap().id, two);
    assert_eq!(store.image("b:1").unwrap().unwrap().references.len(), 1);
    store.remove("b:1", false).unwrap();
    assert!(store.record(&one).unwrap().is_none());
    store.tag(&two, &Reference::parse("c").unwrap()).unwrap();
    assert!(store.remove(two.short(), false).unwrap_err().to_string().contains("forced"));
    assert_eq!(store.remove("c", false).unwrap().len(), 1);
    assert_eq!(store.remove(two.short(), false).unwrap().len(), 2);
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn prune_frees_exactly_the_rest() {
    let Some((_root, store)) = store() else { return };
    let base = archive(&[(file("base"), &[7; 9000])]);
    let layers = |name: &str| [base.clone(), archive(&[(file(name), &[8; 9000])])];
    let make = |name: &str| fixture::oci_archive(name, ImageConfig::default(), &layers(name)).unwrap();
    let one = load(&store, &make("one:1")[..]).unwrap().remove(0).id;
    let two = load(&store, &make("two:1")[..]).unwrap().remove(0).id;
    store.untag(&Reference::parse("two:1").unwrap()).unwrap();
    std::fs::write(store.tmp().join("left"), "x").unwrap();
    std::fs::write(store.tmp().join("new.partial"), "x").unwrap();

    let nothing = || Ok(InUse::default());
    let lease = store.lease().unwrap();
    let busy = prune(&store, nothing, Which::Dangling).unwrap_err();
    assert!(busy.to_string().contains("try again"), "{busy}");
    drop(lease);

    let used = InUse { images: [two.to_string()].into(), ..Default::default() };
    assert_eq!(usage(&store, &used).unwrap().images_in_use, 1);
    assert!(prune(&store, || Ok(used), Which::Dangling).unwrap().images.is_empty());
    assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 1);
    let freed = prune(&store, nothing, Which::Dangling).unwrap();
    assert_eq!(freed.images, [two]);
    assert!(freed.bytes > 9000);
    let image = store.image("one:1").unwrap().unwrap();
    assert_eq!(image.id, one);
    assert_eq!(snapshot::lower_dirs(&store, &image.chain_id).unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(store.snapshots()).unwrap().count(), 2);
    // Config, manifest and two layers.
    assert_eq!(std::fs::read_dir(store.root().join("blobs/sha256")).unwrap().count(), 4);
    assert_eq!(
        load(
            &store,
            &{
                let mut b = Vec::new();
                save(&store, &["one:1".into()], &mut b).unwrap();
                b
            }[..]
        )
        .unwrap()[0]
            .id,
        one
    );

    // A chain in use stays without any image.
    let chains = InUse { chains: [image.chain_id.clone()].into(), ..Default::default() };
    assert_eq!(prune(&store, || Ok(chains), Which::Unused).unwrap().untagged.len(), 1);
    assert_eq!(snapshot::lower_dirs(&store, &image.chain_id).unwrap().len(), 2);
    prune(&store, nothing, Which::Unused).unwrap();
    for part in ["snapshots", "blobs/sha256", "images", "references"] {
        assert_eq!(std::fs::read_dir(store.root().join(part)).unwrap().count(), 0, "{part}");
    }
}

fn copy(from: &Path, to: &Path) -> bool {
    use std::os::fd::AsFd;
    let (from, to) = (std::fs::File::open(from).unwrap(), std::fs::File::open(to).unwrap());
    stack_runtime::volume::copy_tree(from.as_fd(), to.as_fd()).unwrap()
}

/// Runs with an overlay of a chain mounted, in a mount namespace of the thread's own.
fn with_overlay(store: &Store, working: &Working, test: impl FnOnce(&Path) + Send) {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            let at = store.root().join("mounted");
            std::fs::create_dir_all(&at).unwrap();
            let lower = snapshot::lower_dirs(store, &working.parent).unwrap();
            let lower: Vec<&str> = lower.iter().map(|d| d.to_str().unwrap()).collect();
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.join(":"),
                working.upper.display(),
                working.work.display()
            );
            mount(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
            test(&at);
            umount2(&at, MntFlags::empty()).unwrap();
        });
    });
}

#[test]
fn the_kernel_reads_and_writes_layers_as_we_do() {
    let Some((root, store)) = store() else { return };
    let (base, _) = unpack(
        &store,
        "",
        &[
            (file("gone"), b"x"),
            (file("tree/old"), b"x"),
            (file("kept"), b"k"),
            (Entry::directory("renamed", 0o755), b""),
        ],
    )
    .unwrap();
    let (middle, _) = unpack(
        &store,
        &base,
        &[(file(".wh.gone"), b""), (file("tree/.wh..wh..opq"), b""), (file("tree/new"), b"n")],
    )
    .unwrap();
    let working = Working::temporary(&store, &middle).unwrap();
    with_overlay(&store, &working, |at| {
        assert!(!at.join("gone").exists() && !at.join("tree/old").exists());
        assert_eq!(std::fs::read(at.join("tree/new")).unwrap(), b"n");
        std::fs::remove_file(at.join("kept")).unwrap();
        std::fs::remove_dir_all(at.join("tree")).unwrap();
        std::fs::create_dir(at.join("tree")).unwrap();
        std::fs::write(at.join("tree/third"), "3").unwrap();
        // Copy-up of the merged view into a volume, whatever layer it is of.
        let volume = root.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        assert!(copy(at, &volume));
        assert_eq!(std::fs::read(volume.join("tree/third")).unwrap(), b"3");
        assert!(!volume.join("kept").exists() && !volume.join("gone").exists());
    });
    let layer = working.commit(&store).unwrap();
    let mut bytes = Vec::new();
    snapshot::archive(&store, layer.chain_id.as_str(), &mut bytes).unwrap();
    let names: Vec<String> = tar::Archive::new(&bytes[..])
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, [".wh.kept", "tree/", "tree/.wh..wh..opq", "tree/third"]);
    let next = Working::temporary(&store, layer.chain_id.as_str()).unwrap();
    with_overlay(&store, &next, |at| {
        assert!(!at.join("kept").exists() && !at.join("tree/new").exists());
        assert_eq!(std::fs::read(at.join("tree/third")).unwrap(), b"3");
    });
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Whatever names and links an archive has, nothing appears outside of its layer.
    #[test]
    fn nothing_leaves_the_layer(entries in proptest::collection::vec(("[ab./]{0,8}", "[ab./]{0,12}", 0..5u8), 0..12)) {
        if let Some((root, store)) = store() {
            let mut writer = Writer::new(Vec::new());
            for (path, link, kind) in &entries {
                let kind = [Kind::File, Kind::Directory, Kind::Symlink, Kind::HardLink, Kind::Fifo][usize::from(*kind)];
                writer.append(&Entry { link: link.as_bytes().to_vec(), ..Entry::new(path, kind, 0o755) }, &b""[..]).unwrap();
            }
            let _ = snapshot::unpack(&store, "", &writer.finish().unwrap()[..], None);
            let inside = |path: &Path| std::fs::read_dir(path).unwrap().count();
            proptest::prop_assert_eq!((inside(root.path()), inside(&root.path().join("data")), inside(store.root()), inside(&store.tmp())), (1, 1, 7, 0));
        }
    }
}
