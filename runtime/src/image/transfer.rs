//! Moving single blobs: resumed, repeated, verified on the way.
//!
//! A download lies in `tmp/HEX.partial` until it is whole; another attempt, in this process or
//! a later one, goes on where it ended. Whatever the registry says, a blob gets its name only
//! when its size and digest are right.

use super::digest::Hasher;
use super::error::{Doing, Error, Result};
use super::manifest::Descriptor;
use super::pending;
use super::progress::{Phase, Progress, Report};
use super::registry::Registry;
use super::store::Store;
use reqwest::{Body, StatusCode};
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Between two reports of one transfer.
const REPORT_BYTES: u64 = 256 << 10;
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
const UPLOAD_CHUNK: usize = 256 << 10;

/// Repeats what may succeed the next time. A registry that cannot be reached at the first
/// attempt is not waited for: the caller may have another way.
pub(crate) async fn repeated<T, F: Future<Output = Result<T>>>(
    what: &str,
    report: Report<'_>,
    attempt: impl Fn() -> F,
) -> Result<T> {
    repeated_if(is_passing, what, report, attempt).await
}

async fn repeated_if<T, F: Future<Output = Result<T>>>(
    may_pass: fn(&Error) -> bool,
    what: &str,
    report: Report<'_>,
    attempt: impl Fn() -> F,
) -> Result<T> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if tries < ATTEMPTS && may_pass(&error) => {
                let reason = error.to_string();
                report(Progress::Retrying { what: what.to_owned(), reason, attempt: tries });
                tokio::time::sleep(pause).await;
                pause *= 2;
                tries += 1;
            }
            other => return other,
        }
    }
}

fn is_passing(error: &Error) -> bool {
    match error {
        Error::TooMany { .. } => true,
        Error::Registry { status, .. } => *status >= 500,
        _ => false,
    }
}

/// In the middle of a transfer a broken connection passes, too.
fn is_interruption(error: &Error) -> bool {
    error.is_unreachable() || is_passing(error)
}

/// A download in the making.
struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
}

impl Partial {
    /// What an earlier attempt left is hashed again.
    fn open(path: PathBuf, size: u64) -> io::Result<Self> {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        let mut hasher = Hasher::default();
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        io::copy(&mut file, &mut hasher)?;
        Ok(Self { path, file, hasher })
    }

    fn restart(&mut self) -> io::Result<()> {
        self.hasher = Hasher::default();
        self.file.set_len(0)?;
        self.file.rewind()
    }

    fn length(&self) -> u64 {
        self.hasher.length
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

fn partial_path(store: &Store, blob: &Descriptor) -> PathBuf {
    store.tmp().join(format!("{}.partial", blob.digest.hex()))
}

/// Bytes of a blob that are still to be fetched.
pub(crate) fn missing_bytes(store: &Store, blob: &Descriptor) -> u64 {
    if store.has_blob(&blob.digest) {
        return 0;
    }
    let there = fs::metadata(partial_path(store, blob)).map_or(0, |partial| partial.len());
    blob.size.saturating_sub(there)
}

/// Fetches a blob into the store unless it is there.
pub(crate) async fn download(
    store: &Store,
    registry: &Registry,
    blob: &Descriptor,
    report: Report<'_>,
) -> Result<()> {
    if store.has_blob(&blob.digest) {
        return Ok(());
    }
    let doing = || format!("download blob {}", blob.digest);
    let (owned, digest) = (store.clone(), blob.digest.clone());
    // Another process may be at it: then wait and find it.
    let _lock = blocking(move || owned.lock("blob", &digest)).await.doing(doing)?;
    if store.has_blob(&blob.digest) {
        return Ok(());
    }
    let (path, size) = (partial_path(store, blob), blob.size);
    let mut partial = blocking(move || Partial::open(path, size)).await.doing(doing)?;
    let resumed = partial.length() > 0;
    let mut checked = fetch(registry, blob, &mut partial, report).await;
    if resumed && matches!(checked, Err(Error::Digest { .. })) {
        // The rest of another download, perhaps; from the start, then.
        partial.restart().doing(doing)?;
        checked = fetch(registry, blob, &mut partial, report).await;
    }
    if let Err(Error::Digest { .. } | Error::Size { .. }) = &checked {
        fs::remove_file(&partial.path).doing(doing)?;
    }
    checked?;
    pending::mark(store, pending::Kind::Blob, &blob.digest).doing(doing)?;
    fs::rename(&partial.path, store.blob_path(&blob.digest)).doing(doing)
}

async fn fetch(
    registry: &Registry,
    blob: &Descriptor,
    partial: &mut Partial,
    report: Report<'_>,
) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    while partial.length() < blob.size {
        let before = partial.length();
        let Err(error) = fetch_once(registry, blob, partial, report).await else { break };
        // An attempt that brought something is not a failure to be counted.
        if partial.length() > before {
            (tries, pause) = (0, FIRST_PAUSE);
        }
        if !is_interruption(&error) || tries >= ATTEMPTS {
            return Err(error);
        }
        tries += 1;
        let what = format!("layer {}", blob.digest.short());
        report(Progress::Retrying { what, reason: error.to_string(), attempt: tries });
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    verify(blob, partial)
}

fn verify(blob: &Descriptor, partial: &Partial) -> Result<()> {
    let what = || format!("blob {}", blob.digest.short());
    if partial.length() != blob.size {
        return Err(Error::Size { what: what(), expected: blob.size, found: partial.length() });
    }
    let found = partial.hasher.clone().finish();
    if found != blob.digest {
        return Err(Error::Digest { what: what(), expected: blob.digest.clone(), found });
    }
    Ok(())
}

async fn fetch_once(
    registry: &Registry,
    blob: &Descriptor,
    partial: &mut Partial,
    report: Report<'_>,
) -> Result<()> {
    let doing = || format!("download blob {}", blob.digest);
    let mut response = registry.blob(&blob.digest, partial.length()).await?;
    if response.status() != StatusCode::PARTIAL_CONTENT && partial.length() > 0 {
        partial.restart().doing(doing)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            response = registry.blob(&blob.digest, 0).await?;
        }
    }
    let mut reported = partial.length();
    while let Some(chunk) = response.chunk().await.map_err(|e| registry.broken(&e))? {
        if partial.length() + chunk.len() as u64 > blob.size {
            let found = partial.length() + chunk.len() as u64;
            return Err(Error::Size {
                what: format!("blob {}", blob.digest.short()),
                expected: blob.size,
                found,
            });
        }
        partial.append(&chunk).doing(doing)?;
        if partial.length() - reported >= REPORT_BYTES {
            reported = partial.length();
            report_layer(report, blob, Phase::Downloading, reported);
        }
    }
    Ok(())
}

pub(crate) fn report_layer(report: Report<'_>, blob: &Descriptor, phase: Phase, done: u64) {
    report(Progress::Layer { digest: blob.digest.clone(), phase, done, total: blob.size });
}

/// Uploads a blob of the store unless the repository has it.
pub(crate) async fn upload(
    store: &Store,
    registry: &Registry,
    blob: &Descriptor,
    report: Report<'_>,
) -> Result<()> {
    if repeated("blob", report, || registry.has_blob(&blob.digest)).await? {
        report_layer(report, blob, Phase::Exists, blob.size);
        return Ok(());
    }
    let path = store.blob_path(&blob.digest);
    let sent = Arc::new(AtomicU64::new(0));
    let body = || {
        sent.store(0, Ordering::Relaxed);
        Body::wrap_stream(chunks(path.clone(), sent.clone()))
    };
    let what = format!("layer {}", blob.digest.short());
    let uploading =
        repeated_if(is_interruption, &what, report, || registry.upload(&blob.digest, blob.size, body));
    tokio::pin!(uploading);
    loop {
        tokio::select! {
            result = &mut uploading => {
                result?;
                report_layer(report, blob, Phase::Done, blob.size);
                return Ok(());
            }
            () = tokio::time::sleep(REPORT_INTERVAL) => {
                report_layer(report, blob, Phase::Uploading, sent.load(Ordering::Relaxed));
            }
        }
    }
}

/// A file as a stream that counts what was taken from it.
fn chunks(
    path: PathBuf,
    sent: Arc<AtomicU64>,
) -> impl futures_util::Stream<Item = io::Result<bytes::Bytes>> + Send {
    futures_util::stream::unfold(None::<File>, move |file| {
        let (path, sent) = (path.clone(), sent.clone());
        async move {
            let read = blocking(move || next_chunk(file, &path)).await;
            match read {
                Ok((_, chunk)) if chunk.is_empty() => None,
                Ok((file, chunk)) => {
                    sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    Some((Ok(bytes::Bytes::from(chunk)), Some(file)))
                }
                Err(e) => Some((Err(e), None)),
            }
        }
    })
}

fn next_chunk(file: Option<File>, path: &std::path::Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = match file {
        Some(file) => file,
        None => File::open(path)?,
    };
    let mut chunk = Vec::new();
    (&mut file).take(UPLOAD_CHUNK as u64).read_to_end(&mut chunk)?;
    Ok((file, chunk))
}

/// File work that may take long, off the asynchronous threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
