//! Images for worlds: loaded once by the program under test into a home of their own, then copied into each world's.

use super::command::program;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is in the store when the test begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    None,
    /// `busybox:1`.
    Busybox,
    /// `debian:trixie-slim`, `python:3.13-slim`, `postgres:17`, `redis:8`, `busybox:1`.
    Base,
}

impl Images {
    pub(super) fn available(self) -> Result<(), String> {
        match self {
            Self::None => Ok(()),
            Self::Busybox => {
                busybox().map(drop).ok_or_else(|| "needs a static busybox; tests/run fetches one".into())
            }
            Self::Base => {
                base_archive().map(drop).ok_or_else(|| "needs the base images; tests/run makes them".into())
            }
        }
    }

    pub(super) fn provide(self, home: &Path) {
        let Some(archive) = self.archive() else { return };
        let loaded = loaded(&archive);
        copy_store(&loaded, home);
    }

    pub(super) fn archive(self) -> Option<PathBuf> {
        match self {
            Self::None => None,
            Self::Busybox => Some(busybox_archive(&busybox().expect("checked by available"))),
            Self::Base => Some(base_archive().expect("checked by available")),
        }
    }
}

/// A docker-archive of one layer, for tests that load images themselves.
pub fn busybox_archive(busybox: &Path) -> PathBuf {
    let scratch = scratch();
    let path = scratch.join(format!("busybox-{}.tar", fingerprint(busybox)));
    let _lock = lock(&scratch.join("busybox.lock"));
    if !path.exists() {
        let made = path.with_extension("making");
        write_archive(&made, &busybox_layer(busybox, &scratch));
        fs::rename(&made, &path).unwrap();
    }
    path
}

/// The tree comes from the script that also makes the image of that name.
fn busybox_layer(busybox: &Path, scratch: &Path) -> Vec<u8> {
    let tree = scratch.join(super::unique("tree"));
    let script = super::checkout().join("tests/images/busybox/rootfs.sh");
    let made = Command::new("sh").arg(script).args([busybox, &tree]).status().unwrap();
    assert!(made.success(), "rootfs.sh failed");
    let mut layer = tar::Builder::new(Vec::new());
    layer.follow_symlinks(false);
    layer.append_dir_all(".", &tree).unwrap();
    let bytes = layer.into_inner().unwrap();
    fs::remove_dir_all(&tree).unwrap();
    bytes
}

/// `docker save`'s format: manifest.json, the configuration, the layers.
fn write_archive(path: &Path, layer: &[u8]) {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let digest = hex(&Sha256::digest(layer));
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let config = config.to_string().into_bytes();
    let (config_name, layer_name) =
        (format!("{}.json", hex(&Sha256::digest(&config))), format!("{digest}/layer.tar"));
    let manifest =
        serde_json::json!([{ "Config": config_name, "RepoTags": ["busybox:1"], "Layers": [layer_name] }]);
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        (&config_name, config.as_slice()),
        (&layer_name, layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.into_inner().unwrap();
}

/// A home into which this build of the program has loaded the archive; made once, by whoever comes first.
fn loaded(archive: &Path) -> PathBuf {
    let scratch = scratch();
    let key =
        format!("images-{}-{}", fingerprint(Path::new(env!("CARGO_BIN_EXE_stack"))), fingerprint(archive));
    let home = scratch.join(&key);
    let _lock = lock(&scratch.join(format!("{key}.lock")));
    if !home.exists() {
        let making = scratch.join(super::unique("loading"));
        fs::create_dir_all(&making).unwrap();
        let archive = archive.to_str().expect("a path of ours");
        let output = program(&making, &making, &[], &["image", "load", "--input", archive]).output().unwrap();
        assert!(
            output.status.success(),
            "cannot load {archive}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::rename(&making, &home).unwrap();
    }
    home
}

/// Layers and blobs never change, so links do; everything else is copied.
fn copy_store(loaded: &Path, home: &Path) {
    let script = r#"
        set -e
        cd "$1"
        for name in $(ls -A); do
            [ "$name" = store ] || [ "$name" = run ] || cp -a "$name" "$2/"
        done
        mkdir -p "$2/store"
        for name in $(ls -A store); do
            case $name in
                blobs | snapshots) cp -al "store/$name" "$2/store/" 2>/dev/null || cp -a "store/$name" "$2/store/" ;;
                *) cp -a "store/$name" "$2/store/" ;;
            esac
        done"#;
    let copied = super::as_owner("sh").args(["-c", script, "copy"]).args([loaded, home]).status().unwrap();
    assert!(copied.success(), "cannot copy {}", loaded.display());
}

/// A static one: from the variable, the cache of tests/run, or the system.
pub fn busybox() -> Option<PathBuf> {
    let named = std::env::var_os("STACK_TEST_BUSYBOX").map(PathBuf::from);
    let places =
        [named, Some(cache().join("stack-tests/busybox-static/bin/busybox")), Some("/bin/busybox".into())];
    places.into_iter().flatten().find(|path| path.is_file() && !is_dynamic(path))
}

fn is_dynamic(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.windows(9).any(|window| window == b"/ld-linux" || window == b"/ld-musl-")
}

/// The newest archive that `tests/images/make` has left.
fn base_archive() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("STACK_TEST_IMAGES") {
        return Some(named.into());
    }
    let entries = fs::read_dir(cache().join("stack-images")).ok()?;
    let archives = entries
        .flatten()
        .map(|e| e.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("images-")));
    archives.max_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok())
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

pub(super) fn scratch() -> PathBuf {
    let path =
        std::env::var_os("STACK_TEST_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Held until dropped; several test programs may run at once.
fn lock(path: &Path) -> File {
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
}

/// Of the first mebibyte, the size and the time of change: enough to tell two builds or archives apart.
fn fingerprint(path: &Path) -> String {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let meta = file.metadata().unwrap();
    let mut start = Vec::new();
    file.take(1 << 20).read_to_end(&mut start).unwrap();
    let mut hash = Sha256::new();
    hash.update(&start);
    hash.update(meta.len().to_le_bytes());
    hash.update(format!("{:?}", meta.modified().unwrap()));
    hex(&hash.finalize())[..16].to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
