//! ADD of what a web server gives.

use crate::bed::{Bed, Case};
use stack::build::{BuildRequest, DockerfileSource, Secret};
use stack::obtain::Registries;
use stack_runtime::image::Digest;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

pub(crate) const ALL: &[(&str, Case)] = &[
    ("files_are_downloaded_and_asked_for_again", files_are_downloaded_and_asked_for_again),
    ("checksums_are_checked", checksums_are_checked),
    ("repositories_are_contexts_and_sources", repositories_are_contexts_and_sources),
];

/// What a server gives for every path, and what it was asked for.
#[derive(Default)]
struct Site {
    body: Vec<u8>,
    etag: Option<&'static str>,
    /// Request lines with the headers that matter.
    asked: Vec<String>,
}

/// Serves until the process ends.
fn serve(body: &[u8], etag: Option<&'static str>) -> (u16, Arc<Mutex<Site>>) {
    let site = Arc::new(Mutex::new(Site { body: body.to_vec(), etag, asked: Vec::new() }));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let served = site.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            for line in BufReader::new(stream.try_clone().expect("a stream")).lines() {
                match line {
                    Ok(line) if !line.is_empty() => head.push(line.to_lowercase()),
                    _ => break,
                }
            }
            let answer = served.lock().expect("not poisoned").answer(&head);
            drop(stream.write_all(&answer)); // the client may be gone
        }
    });
    (port, site)
}

impl Site {
    fn answer(&mut self, head: &[String]) -> Vec<u8> {
        let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let known = header("if-none-match:");
        let mut asked = head.first().cloned().unwrap_or_default();
        asked.extend(header("authorization:").map(|value| format!(" auth={value}")));
        self.asked.push(asked);
        let etag = self.etag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
        let modified = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nConnection: close\r\n";
        if head.first().is_some_and(|line| line.contains("/missing")) {
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
        }
        if known.is_some() && known == self.etag {
            return format!("HTTP/1.1 304 Not Modified\r\n{etag}{modified}\r\n").into_bytes();
        }
        let length = self.body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{etag}{modified}\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

fn asked(site: &Mutex<Site>) -> usize {
    site.lock().expect("not poisoned").asked.len()
}

fn files_are_downloaded_and_asked_for_again(bed: &Bed) {
    let (port, site) = serve(b"one", Some("\"1\""));
    let text = format!(
        "FROM scratch\nADD http://127.0.0.1:{port}/dir/file.txt?q=1 /dir/\nADD --chown=3:4 --chmod=755 http://127.0.0.1:{port}/x /named\n"
    );
    let built = bed.build(&text);
    assert_eq!((bed.text(&built, "dir/file.txt"), bed.text(&built, "named")), ("one".into(), "one".into()));
    let meta = |path: &str| bed.file(&built, path).expect("there").metadata().expect("there");
    let (plain, owned) = (meta("dir/file.txt"), meta("named"));
    assert_eq!((plain.mode() & 0o7777, plain.uid(), plain.mtime()), (0o600, 0, 1_445_412_480));
    assert_eq!((owned.mode() & 0o7777, owned.uid(), owned.gid()), (0o755, 3, 4));
    // The server says that nothing changed.
    assert_eq!(bed.build(&text).counts(), (2, 2));
    assert_eq!(asked(&site), 4);
    {
        let mut site = site.lock().expect("not poisoned");
        (site.body, site.etag) = (b"two".to_vec(), Some("\"2\""));
    }
    let changed = bed.build(&text);
    assert_eq!(changed.counts(), (2, 0));
    assert_eq!(bed.text(&changed, "named"), "two");
    // Without a tag it is downloaded, and the same content is the same step.
    site.lock().expect("not poisoned").etag = None;
    assert_eq!(bed.build(&text).counts(), (2, 2));
    // Offline nobody is asked, and what was never got is missed.
    let before = asked(&site);
    let offline = |text: &str| BuildRequest { registries: Registries::Offline, ..bed.request(text) };
    bed.build_request(offline(&text)).success();
    let unknown =
        bed.build_request(offline(&format!("FROM scratch\nADD http://127.0.0.1:{port}/new /"))).failure();
    assert!(unknown.contains("--offline keeps the network out"), "{unknown}");
    let git = bed.build_request(offline("FROM scratch\nADD https://127.0.0.1/x.git /")).failure();
    assert!(git.contains("--offline keeps the network out"), "{git}");
    assert_eq!(asked(&site), before);
    let missing = bed.build(&format!("FROM scratch\nADD http://127.0.0.1:{port}/missing /")).failure();
    assert!(missing.contains("404") && missing.contains(":2:1"), "{missing}");
    let mut secret = bed.request(&format!("FROM scratch\nADD http://127.0.0.1:{port}/secret /"));
    secret.secrets.insert("HTTP_AUTH_TOKEN_127.0.0.1".into(), Secret::Bytes(b"t0ken".to_vec()));
    bed.build_request(secret).success();
    let last = site.lock().expect("not poisoned").asked.last().cloned().expect("asked");
    assert!(last.contains("auth=bearer t0ken"), "{last}");
}

fn checksums_are_checked(bed: &Bed) {
    let (port, site) = serve(b"content", None);
    let add = |sum: &str, rest: &str| {
        format!("FROM scratch\nADD --checksum={sum} http://127.0.0.1:{port}/f {rest}/\n")
    };
    let right = Digest::of(b"content");
    bed.build(&add(right.as_str(), "")).success();
    assert_eq!(asked(&site), 1);
    // What is known to be right is not asked for again, in other steps either.
    assert_eq!(bed.build(&add(right.as_str(), "")).counts(), (1, 1));
    assert_eq!(bed.build(&add(right.as_str(), "/other")).counts(), (1, 0));
    assert_eq!(asked(&site), 1);
    let wrong = bed.build(&add(Digest::of(b"other").as_str(), "")).failure();
    assert!(wrong.contains("digest mismatch") && wrong.contains(":2:1"), "{wrong}");
    assert!(bed.build(&add("sha512:00", "")).result.is_err());
    bed.write("local", "x");
    let local = bed.build(&format!("FROM scratch\nADD --checksum={right} local /")).failure();
    assert!(local.contains("not remote"), "{local}");
    let several = bed.build(&add(right.as_str(), "local /")).failure();
    assert!(several.contains("multiple sources"), "{several}");
}

fn git(directory: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]).args(args);
    let ran = command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").output().expect("git");
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

/// Serves the repositories below a directory; ends when it is dropped.
struct Daemon(Child);

impl Daemon {
    fn start(base: &Path, port: u16) -> Self {
        let mut command = Command::new("git");
        command.args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", base.display()));
        let child = command.stderr(Stdio::null()).spawn().expect("git daemon");
        let deadline = std::time::Instant::now() + crate::bed::LONG;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "git daemon did not come up");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self(child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill()); // it may be gone
        drop(self.0.wait());
    }
}

fn repositories_are_contexts_and_sources(bed: &Bed) {
    let base = bed.directory.path().join("repositories");
    let work = base.join("app.git");
    std::fs::create_dir_all(work.join("sub")).expect("made");
    let write = |path: &str, text: &str| std::fs::write(work.join(path), text).expect("written");
    git(&work, &["init", "-q"]);
    write("Dockerfile", "FROM scratch\nCOPY . /\n");
    write("sub/Dockerfile", "FROM scratch\nCOPY file /sub-file\n");
    write("sub/file", "sub");
    // Means nothing here.
    write(".dockerignore", "version\n");
    write("version", "1");
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-qm", "one"]);
    git(&work, &["tag", "v1"]);
    let first = git(&work, &["rev-parse", "HEAD"]);
    write("version", "2");
    git(&work, &["commit", "-qam", "two"]);
    let _daemon = Daemon::start(&base, 15_418);
    let address = "git://127.0.0.1:15418/app.git";
    let from = |context: String| {
        let dockerfile = DockerfileSource::default();
        bed.build_request(BuildRequest { context: context.into(), dockerfile, ..bed.request("") })
    };
    let newest = from(address.into());
    assert_eq!(bed.text(&newest, "version"), "2");
    assert!(bed.file(&newest, ".git").is_none());
    assert_eq!(from(address.into()).counts(), (1, 1));
    for context in [
        format!("{address}#v1"),
        format!("{address}?tag=v1"),
        format!("{address}#{first}"),
        format!("{address}?commit={}", &first[..12]),
    ] {
        assert_eq!(bed.text(&from(context.clone()), "version"), "1", "{context}");
    }
    assert_eq!(bed.text(&from(format!("{address}#main:sub")), "sub-file"), "sub");
    for (context, why) in [
        (format!("{address}#nope"), "nope"),
        (format!("{address}?what=1"), "unexpected query"),
        (format!("{address}?branch=main&commit={first}"), "expected commit"),
        (format!("{address}#main:../.."), "no directory of"),
        ("https://127.0.0.1/x.tar".into(), "failed to download https://127.0.0.1/x.tar"),
    ] {
        let failed = from(context.clone()).failure();
        assert!(failed.contains(why), "{context}: {failed}");
    }
    let text = format!(
        "FROM scratch\nADD {address}#v1 /one/\nADD --keep-git-dir=true --checksum={first} {address}#v1 /kept/\nCOPY --from=named version /named\n"
    );
    let mut request = bed.request(&text);
    request.additional_contexts.insert("named".into(), address.into());
    let added = bed.build_request(request);
    assert_eq!((bed.text(&added, "one/version"), bed.text(&added, "named")), ("1".into(), "2".into()));
    assert!(bed.file(&added, "one/.git").is_none() && bed.file(&added, "kept/.git/HEAD").is_some());
    let wrong = bed.build(&format!("FROM scratch\nADD --checksum={first} {address} /\n")).failure();
    assert!(wrong.contains("expected commit") && wrong.contains(":2:1"), "{wrong}");
}
