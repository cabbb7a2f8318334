//! The store looked after: damage of every kind is found and mended, and a budget is kept.

#![allow(clippy::unwrap_used)]

mod common;

use stack_runtime::image::archive::load;
use stack_runtime::image::budget::{Demand, Spare, fit};
use stack_runtime::image::check::{Checked, Damage, Kind, Repair, User, Users, check, repair};
use stack_runtime::image::prune::InUse;
use stack_runtime::image::tar_read::Entry;
use stack_runtime::image::tar_write::Writer;
use stack_runtime::image::{Digest, Image, ImageConfig, Reference, Store, fixture};
use stack_runtime::snapshot::{self, Working};
use std::path::PathBuf;

/// Names in an order that no archive of ours has, so that its files alone do not tell its digest.
fn foreign(name: &str) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for name in [format!("z-{name}"), "a".to_owned()] {
        writer.append(&Entry { size: 9000, ..Entry::file(&name, 0o644) }, &[7; 9000][..]).unwrap();
    }
    writer.finish().unwrap()
}

/// `app:1`: a base that came as an archive, and a layer that was built on it. `other:1` has the same base.
struct Bed {
    _root: tempfile::TempDir,
    store: Store,
    app: Image,
    other: Image,
}

fn bed() -> Option<Bed> {
    if !common::is_privileged() {
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let store = common::store_in(root.path());
    let other = fixture::oci_archive("other:1", ImageConfig::default(), &[foreign("base")]).unwrap();
    load(&store, &other[..]).unwrap();
    let other = store.image("other:1").unwrap().unwrap();
    let working = Working::temporary(&store, &other.chain_id).unwrap();
    std::fs::write(working.upper.join("built"), "here").unwrap();
    let built = working.commit(&store).unwrap();
    let mut document = other.document.clone();
    document.rootfs.diff_ids.push(built.diff_id);
    let (json, layers) = (serde_json::to_vec(&document).unwrap(), document.rootfs.diff_ids);
    store.write_image(&json, &layers, &["app:1".parse().unwrap()]).unwrap();
    let app = store.image("app:1").unwrap().unwrap();
    let bed = Bed { _root: root, store, app, other };
    assert_eq!(bed.check(), Vec::new(), "a store without damage");
    Some(bed)
}

impl Bed {
    fn check(&self) -> Vec<Damage> {
        check(&self.store, &self.users()).unwrap().damages
    }

    /// What a repair did; afterwards nothing is wrong.
    fn repair(&self) -> Checked {
        let repaired = repair(&self.store, || Ok(Users::default())).unwrap();
        assert!(!repaired.is_damaged(), "{repaired:?}");
        assert_eq!(self.check(), Vec::new(), "after the repair");
        repaired
    }

    /// One container runs `other:1`.
    fn users(&self) -> Users {
        let (image_id, chain_id) = (self.other.id.to_string(), self.other.chain_id.clone());
        Users {
            containers: vec![User { name: "shop-web-1".into(), image_id, chain_id }],
            cache: [self.app.chain_id.clone()].into(),
        }
    }

    fn file(&self, chain_id: &str, name: &str) -> PathBuf {
        snapshot::lower_dirs(&self.store, chain_id).unwrap()[0].join(name)
    }

    fn archive_of_base(&self) -> PathBuf {
        let blob = snapshot::blob(&self.store, &self.other.chain_id).unwrap().unwrap();
        self.store.blob_path(&blob.digest)
    }

    fn names(&self) -> Vec<String> {
        self.store.references().unwrap().iter().map(|r| r.reference.familiar()).collect()
    }
}

fn only(damages: &[Damage], kind: Kind) -> &Damage {
    let found: Vec<_> = damages.iter().filter(|d| d.kind == kind).collect();
    assert_eq!(found.len(), 1, "{damages:?}");
    found[0]
}

#[test]
fn changed_files_of_a_layer_are_unpacked_again() {
    let Some(bed) = bed() else { return };
    std::fs::write(bed.file(&bed.other.chain_id, "a"), "changed").unwrap();
    let damages = bed.check();
    let layer = only(&damages, Kind::Layer);
    assert_eq!((layer.name.as_str(), damages.len()), (bed.other.chain_id.as_str(), 1));
    assert_eq!(layer.problem, "its files are not those of its archive");
    for user in ["image other:1", "image app:1", "container shop-web-1", "the build cache"] {
        assert!(layer.needed_by.iter().any(|known| known == user), "{user} in {:?}", layer.needed_by);
    }
    // A container stands on it: nothing is touched, and that is said.
    let kept = repair(&bed.store, || Ok(bed.users())).unwrap();
    assert_eq!(kept.damages[0].repair, Repair::Kept(vec!["shop-web-1".into()]));
    assert!(kept.is_damaged());
    assert_eq!(std::fs::read(bed.file(&bed.other.chain_id, "a")).unwrap(), b"changed");
    // Without one it comes from its archive.
    assert_eq!(bed.repair().damages[0].repair, Repair::Mended);
    assert_eq!(std::fs::read(bed.file(&bed.other.chain_id, "a")).unwrap(), [7; 9000]);
    assert_eq!(bed.names(), ["app:1", "other:1"]);
}

#[test]
fn a_changed_layer_that_was_built_here_goes_with_its_image() {
    let Some(bed) = bed() else { return };
    for change in ["mode", "content", "more"] {
        let file = bed.file(&bed.app.chain_id, "built");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
        match change {
            "mode" => std::fs::set_permissions(&file, mode).unwrap(),
            "content" => std::fs::write(&file, "hera").unwrap(),
            _ => std::fs::write(file.with_file_name("more"), "").unwrap(),
        }
        assert_eq!(only(&bed.check(), Kind::Layer).name, bed.app.chain_id, "{change}");
    }
    let repaired = bed.repair();
    let layer = only(&repaired.damages, Kind::Layer);
    assert_eq!((&layer.repair, layer.went.as_slice()), (&Repair::Removed, &["image app:1".to_owned()][..]));
    assert_eq!(bed.names(), ["other:1"]);
    assert!(!snapshot::exists(&bed.store, &bed.app.chain_id));
}

#[test]
fn a_layer_without_its_archive_goes_with_all_above_it() {
    let Some(bed) = bed() else { return };
    let mut bytes = std::fs::read(bed.archive_of_base()).unwrap();
    bytes[700] ^= 1;
    std::fs::write(bed.archive_of_base(), bytes).unwrap();
    let damages = bed.check();
    let blob = only(&damages, Kind::Blob);
    assert!(blob.problem.starts_with("its content has digest sha256:"), "{blob:?}");
    assert!(blob.needed_by.contains(&"image app:1".to_owned()), "{blob:?}");
    assert_eq!(damages.len(), 2, "the archive, and the layer that it is of: {damages:?}");
    let repaired = bed.repair();
    assert_eq!(only(&repaired.damages, Kind::Blob).repair, Repair::Removed);
    let went = &only(&repaired.damages, Kind::Layer).went;
    assert!(
        went.contains(&"image app:1".to_owned()) && went.contains(&"image other:1".to_owned()),
        "{went:?}"
    );
    assert!(bed.names().is_empty() && bed.store.images().unwrap().is_empty());
    // It comes again as it was.
    let archive = fixture::oci_archive("other:1", ImageConfig::default(), &[foreign("base")]).unwrap();
    assert_eq!(load(&bed.store, &archive[..]).unwrap()[0].id, bed.other.id);
    assert_eq!(bed.check(), Vec::new());
}

#[test]
fn damaged_records_of_layers_are_found() {
    let Some(bed) = bed() else { return };
    let meta = |chain: &str| {
        let hex = Digest::parse(chain).unwrap().hex().to_owned();
        bed.store.snapshots().join(hex).join("meta.json")
    };
    let good = std::fs::read_to_string(meta(&bed.app.chain_id)).unwrap();
    let wrong = good.replace(&bed.other.chain_id, Digest::of(b"another").as_str());
    for (text, problem) in
        [("{", "its record cannot be read"), (wrong.as_str(), "its record is another layer's")]
    {
        std::fs::write(meta(&bed.app.chain_id), text).unwrap();
        let damages = bed.check();
        let layer = only(&damages, Kind::Layer);
        assert_eq!((layer.name.as_str(), layer.problem.as_str()), (bed.app.chain_id.as_str(), problem));
    }
    assert_eq!(bed.repair().damages[0].repair, Repair::Removed);
    // The base is gone altogether: what stood on it is an image without a layer.
    std::fs::remove_file(meta(&bed.other.chain_id)).unwrap();
    assert_eq!(only(&bed.check(), Kind::Layer).problem, "its record is missing");
    bed.repair();
    assert!(bed.names().is_empty());
}

#[test]
fn damaged_images_and_names_go() {
    let Some(bed) = bed() else { return };
    let config = bed.store.blob_path(&bed.app.id);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("linux", "limux")).unwrap();
    let damages = bed.check();
    assert_eq!(only(&damages, Kind::Blob).needed_by, ["image app:1"]);
    let image = only(&damages, Kind::Image);
    assert_eq!(
        (image.name.as_str(), image.needed_by.as_slice()),
        (bed.app.id.as_str(), &["name app:1".to_owned()][..])
    );
    let repaired = bed.repair();
    assert!(repaired.damages.iter().all(|damage| damage.repair == Repair::Removed));
    assert_eq!(bed.names(), ["other:1"]);
    assert!(snapshot::exists(&bed.store, &bed.app.chain_id), "a rebuild finds its layers");

    let reference = bed.store.root().join("references");
    let file = std::fs::read_dir(&reference).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read_to_string(&file).unwrap();
    for (text, problem) in [
        ("{".to_owned(), "its record cannot be read"),
        (good.replace("other:1", "other:2"), "its record is another name's"),
        (good.replace(bed.other.id.hex(), Digest::of(b"x").hex()), "is not here"),
    ] {
        std::fs::write(&file, text).unwrap();
        let damages = bed.check();
        assert!(only(&damages, Kind::Name).problem.contains(problem), "{damages:?}");
    }
    assert_eq!(only(&bed.repair().damages, Kind::Name).repair, Repair::Removed);
    assert!(bed.names().is_empty());
}

#[test]
fn an_image_does_without_its_manifest() {
    let Some(bed) = bed() else { return };
    let manifest = bed.other.manifest_digest.clone().unwrap();
    std::fs::remove_file(bed.store.blob_path(&manifest)).unwrap();
    let damages = bed.check();
    assert_eq!(only(&damages, Kind::Image).problem, "its manifest is missing");
    assert_eq!(bed.repair().damages[0].repair, Repair::Mended);
    assert_eq!(bed.names(), ["app:1", "other:1"]);
    assert_eq!(bed.store.image("other:1").unwrap().unwrap().manifest_digest, None);
}

#[test]
fn a_budget_takes_the_builder_first_and_never_what_is_needed() {
    let Some(bed) = bed() else { return };
    let store = &bed.store;
    let spare = |day: u64, chain: &str, bytes| Spare {
        last_used: std::time::UNIX_EPOCH + std::time::Duration::from_secs(day),
        chain: Some(chain.to_owned()).filter(|chain| !chain.is_empty()),
        bytes,
    };
    let removed = std::sync::Mutex::new(Vec::new());
    let fit = |budget, images: &[&Image], spares: &[Spare]| {
        let images = images.iter().map(|image| image.id.to_string()).collect();
        let in_use = InUse { images, ..InUse::default() };
        let remove = |index| {
            removed.lock().unwrap().push(index);
            Ok(())
        };
        fit(store, budget, || Ok(Demand { in_use, spares: spares.to_vec() }), remove).unwrap()
    };
    // Only this machine has them: a budget that cannot be kept takes nothing of theirs.
    let spares = [spare(2, "", 1000), spare(1, "", 500), spare(0, &bed.app.chain_id, 0)];
    let kept = fit(1, &[], &spares);
    assert_eq!((kept.spares, kept.images.len(), kept.before - kept.after), (2, 0, 1500));
    assert_eq!(*removed.lock().unwrap(), [1, 0], "the oldest first; a record that frees nothing stays");
    let all = kept.after;
    assert_eq!(fit(all, &[], &[]).spares, 0, "it fits");

    // One without a name, one from a registry.
    store.untag(&"app:1".parse().unwrap()).unwrap();
    let digest = bed.other.manifest_digest.clone().unwrap();
    store.tag(&bed.other.id, &"other:1".parse::<Reference>().unwrap().pinned(&digest)).unwrap();
    let fitted = fit(all - 1, &[], &[spare(9, &bed.app.chain_id, 0)]);
    assert_eq!((fitted.spares, fitted.images.as_slice()), (1, &[bed.app.id.clone()][..]));
    assert!(!snapshot::exists(store, &bed.app.chain_id) && snapshot::exists(store, &bed.other.chain_id));
    assert!(!store.has_blob(&bed.app.id));

    // A container, or the command at hand, needs the other one; then nobody does.
    assert_eq!(fit(1, &[&bed.other], &[]).images, []);
    let last = fit(1, &[], &[]);
    assert_eq!((last.after, last.untagged.len()), (0, 1));
    assert!(bed.names().is_empty());

    // Nothing goes while something is made.
    let _lease = store.lease().unwrap();
    assert!(stack_runtime::image::budget::fit(store, 0, || Ok(Demand::default()), |_| Ok(())).is_err());
}
