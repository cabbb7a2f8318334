//! A real registry server: Debian's package docker-registry, unpacked (never installed, so
//! that no service starts), with a configuration of ours, on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Server {
    child: Child,
    pub(crate) root: tempfile::TempDir,
    pub(crate) port: u16,
}

/// User `user`, password `s3cret`.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

impl Server {
    /// In the network namespace of the calling thread. `None`, said aloud: no package.
    pub(crate) async fn start(port: u16, with_password: bool) -> Option<Self> {
        let Some(program) = program() else {
            super::skip("package docker-registry cannot be fetched");
            return None;
        };
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().display();
        fs::write(root.path().join("htpasswd"), HTPASSWD).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {directory}/htpasswd\n");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {directory}/data\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
            if with_password { auth.as_str() } else { "" }
        );
        fs::write(root.path().join("config.yml"), config).unwrap();
        let log = fs::File::create(root.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(root.path().join("config.yml")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let server = Self { child, root, port };
        server.wait().await;
        Some(server)
    }

    async fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "the registry did not come up: {}",
                fs::read_to_string(self.root.path().join("log")).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `127.0.0.1:PORT/NAME`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// The file in which the server keeps a blob.
    pub(crate) fn blob_file(&self, hex: &str) -> PathBuf {
        let blobs = self.root.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fetches the package once; must be called where the package mirror is reachable.
pub(crate) fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let directory = cache.join("stack-tests/docker-registry");
    let program = directory.join("usr/bin/docker-registry");
    if !program.exists() {
        fetch(&directory)?;
    }
    Some(program)
}

/// Unpacked beside and renamed, since several tests may be at it.
fn fetch(directory: &Path) -> Option<()> {
    fs::create_dir_all(directory.parent()?).ok()?;
    let made = tempfile::tempdir_in(directory.parent()?).ok()?;
    let run = |command: &mut Command| {
        command.current_dir(made.path()).stdout(Stdio::null()).status().ok().filter(|s| s.success())
    };
    run(Command::new("apt-get").args(["-qq", "download", "docker-registry"]).stderr(Stdio::null()))?;
    let package = fs::read_dir(made.path())
        .ok()?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "deb"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg("unpacked"))?;
    match fs::rename(made.path().join("unpacked"), directory) {
        Err(_) if !directory.exists() => None,
        _ => Some(()),
    }
}
