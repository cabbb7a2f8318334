//! ADD of what a web server gives.

use crate::bed::{Bed, Case};
use stack::build::Secret;
use stack_runtime::image::Digest;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};

pub(crate) const ALL: &[(&str, Case)] = &[
    ("files_are_downloaded_and_asked_for_again", files_are_downloaded_and_asked_for_again),
    ("checksums_are_checked", checksums_are_checked),
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
    let missing = bed.build(&format!("FROM scratch\nADD http://127.0.0.1:{port}/missing /")).failure();
    assert!(missing.contains("404") && missing.contains(":2:1"), "{missing}");
    let mut secret = bed.request(&format!("FROM scratch\nADD http://127.0.0.1:{port}/secret /"));
    secret.secrets.insert("HTTP_AUTH_TOKEN_127.0.0.1".into(), Secret::Bytes(b"t0ken".to_vec()));
    bed.build_request(secret).success();
    let last = site.lock().expect("not poisoned").asked.last().cloned().expect("asked");
    assert!(last.contains("auth=bearer t0ken"), "{last}");
    for git in ["https://127.0.0.1/x.git", "git@127.0.0.1:x"] {
        assert!(bed.build(&format!("FROM scratch\nADD {git} /")).failure().contains("git repository"));
    }
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
