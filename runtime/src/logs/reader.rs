//! Reading and following. Files are told apart by inode, so a rotation in between loses and doubles nothing.

use super::compressed::{self, Mark};
use super::{Entry, Options};
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc::{self, Sender};

const CHUNK_BYTES: usize = 64 * 1024;
/// How long a follower rests: from the first, after news, to the second, when idle.
const RESTS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(80)];
/// A line in the file is never longer: 16 KiB, escaped, and what is around it. Garbage is cut here.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// Entries in the order written, over rotations and restarts. Call within a tokio runtime.
///
/// Lines that are no entries are left out; the channel ends with the log, or when following is over.
pub fn read(dir: PathBuf, options: Options) -> mpsc::Receiver<io::Result<Entry>> {
    let (sender, receiver) = mpsc::channel(256);
    tokio::spawn(async move {
        let mut reader = Reader { dir, options, sender, is_over: false };
        if let Err(e) = reader.run().await {
            // Nobody listens any more: then it does not matter.
            let _ = reader.sender.send(Err(e)).await;
        }
    });
    receiver
}

struct Reader {
    dir: PathBuf,
    options: Options,
    sender: Sender<io::Result<Entry>>,
    /// The receiver is gone, or `until` is reached.
    is_over: bool,
}

/// An open log file and what of its last line has been read.
struct Source {
    file: File,
    inode: u64,
    /// Which file it was, if it is compressed; `file` is its content then.
    compressed: Option<Mark>,
    partial: Vec<u8>,
}

impl Reader {
    async fn run(&mut self) -> io::Result<()> {
        let mut sources = open_all(&self.dir, None)?;
        if let Some(lines) = self.options.tail {
            seek_tail(&mut sources, lines)?;
        }
        let mut current = self.drain_all(sources).await?;
        let mut rest = RESTS[0];
        while self.options.follow && !self.has_ended() {
            let (moved, next) = self.follow(current).await?;
            current = next;
            rest = if moved { RESTS[0] } else { (rest * 2).min(RESTS[1]) };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.sender.closed() => self.is_over = true,
            }
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.is_over || !self.dir.exists() || self.options.until.is_some_and(|until| until < Timestamp::now())
    }

    /// What is new; the old file to its end before newer ones.
    async fn follow(&mut self, current: Option<Source>) -> io::Result<(bool, Option<Source>)> {
        let newest = std::fs::metadata(self.dir.join("log.json")).ok().map(|meta| meta.ino());
        let Some(mut source) = current else {
            let sources = open_all(&self.dir, None)?;
            return Ok((!sources.is_empty(), self.drain_all(sources).await?));
        };
        let moved = self.drain(&mut source).await?;
        if newest.is_none_or(|inode| inode == source.inode) {
            return Ok((moved, Some(source)));
        }
        let newer = open_all(&self.dir, Some(&source))?;
        let next = self.drain_all(newer).await?;
        Ok((true, next.or(Some(source))))
    }

    /// All of them, oldest first; gives the newest back.
    async fn drain_all(&mut self, sources: Vec<Source>) -> io::Result<Option<Source>> {
        let mut newest = None;
        for mut source in sources {
            self.drain(&mut source).await?;
            newest = Some(source);
        }
        Ok(newest)
    }

    /// To the end of the file as it is now; true if there was anything.
    async fn drain(&mut self, source: &mut Source) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut moved = false;
        while !self.is_over {
            let length = source.file.read(&mut chunk)?;
            if length == 0 {
                break;
            }
            moved = true;
            source.partial.extend_from_slice(&chunk[..length]);
            let mut start = 0;
            while let Some(end) = source.partial[start..].iter().position(|byte| *byte == b'\n') {
                self.give(&source.partial[start..start + end]).await;
                start += end + 1;
            }
            source.partial.drain(..start);
            if source.partial.len() > MAX_LINE_BYTES {
                source.partial.clear();
            }
        }
        Ok(moved)
    }

    async fn give(&mut self, line: &[u8]) {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else { return };
        if self.options.since.is_some_and(|since| entry.time < since) {
            return;
        }
        if self.options.until.is_some_and(|until| entry.time > until)
            || self.sender.send(Ok(entry)).await.is_err()
        {
            self.is_over = true;
        }
    }
}

/// The log files, oldest first; only those newer than this one, if it is still there.
fn open_all(dir: &Path, newer_than: Option<&Source>) -> io::Result<Vec<Source>> {
    let (mut sources, mut gaps): (Vec<Source>, u32) = (Vec::new(), 0);
    for number in 0.. {
        let name = if number == 0 { "log.json".to_owned() } else { format!("log.json.{number}") };
        let found = match Found::open(&dir.join(name))? {
            Some(found) => found,
            // A rotation under way leaves one number free.
            None if gaps > 0 => break,
            None => {
                gaps += 1;
                continue;
            }
        };
        if newer_than.is_some_and(|source| found.is(source)) {
            break;
        }
        // Rotated while we were opening: we have it already.
        if !sources.iter().any(|source| found.is(source)) {
            sources.push(found.source()?);
        }
    }
    sources.reverse();
    Ok(sources)
}

/// A log file as it is found.
enum Found {
    Plain(File, Mark),
    Compressed(Box<compressed::Opened>),
}

impl Found {
    /// `None`: there is none of that name.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        match File::open(path) {
            Err(e) if missing(&e) => {}
            file => {
                let file = file?;
                let mark = Mark::of(&file)?;
                return Ok(Some(Self::Plain(file, mark)));
            }
        }
        match compressed::open(&compressed::name(path)) {
            Err(e) if missing(&e) => Ok(None),
            opened => opened.map(|opened| Some(Self::Compressed(Box::new(opened)))),
        }
    }

    /// An inode is not given away while the source has it open; a compressed file tells when the plain one was
    /// written last, too.
    fn is(&self, source: &Source) -> bool {
        match (self, source.compressed) {
            (Self::Plain(_, mark), None) => mark.inode == source.inode,
            (Self::Plain(..), Some(_)) => false,
            (Self::Compressed(opened), Some(mark)) => opened.mark == Some(mark),
            (Self::Compressed(opened), None) => {
                Mark::of(&source.file).is_ok_and(|mark| opened.mark == Some(mark))
            }
        }
    }

    fn source(self) -> io::Result<Source> {
        Ok(match self {
            Self::Plain(file, mark) => {
                Source { file, inode: mark.inode, compressed: None, partial: Vec::new() }
            }
            Self::Compressed(opened) => {
                let compressed = opened.mark;
                let inode = compressed.map_or(0, |mark| mark.inode);
                Source { file: opened.content()?, inode, compressed, partial: Vec::new() }
            }
        })
    }
}

/// Leaves only the last lines to be read.
fn seek_tail(sources: &mut Vec<Source>, lines: usize) -> io::Result<()> {
    let mut wanted = lines;
    let mut first = sources.len();
    for (index, source) in sources.iter_mut().enumerate().rev() {
        first = index;
        let (offset, found) = tail_offset(&mut source.file, wanted)?;
        source.file.seek(SeekFrom::Start(offset))?;
        wanted -= found;
        if wanted == 0 {
            break;
        }
    }
    drop(sources.drain(..first.min(sources.len())));
    Ok(())
}

/// Where the last `wanted` lines start, and how many there are.
fn tail_offset(file: &mut File, wanted: usize) -> io::Result<(u64, usize)> {
    let end = file.metadata()?.len();
    let (mut position, mut found) = (end, 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    while position > 0 {
        let length = position.min(CHUNK_BYTES as u64);
        position -= length;
        file.seek(SeekFrom::Start(position))?;
        let chunk = &mut chunk[..length as usize];
        file.read_exact(chunk)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            // The feed before the first wanted line is one more than there are lines.
            if *byte == b'\n' && position + index as u64 + 1 != end {
                found += 1;
                if found == wanted {
                    return Ok((position + index as u64 + 1, wanted));
                }
            }
            if wanted == 0 {
                return Ok((end, 0));
            }
        }
    }
    Ok((0, if end > 0 { found + 1 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{Stream, Writer};
    use crate::spec::LogSpec;

    fn writer(dir: &Path, max_size: Option<u64>) -> Writer {
        Writer::open(dir, &LogSpec { max_size, max_file: 4, ..LogSpec::default() }).unwrap()
    }

    fn compressing(dir: &Path, max_size: u64) -> Writer {
        let spec = LogSpec { max_size: Some(max_size), max_file: 4, compress: true, ..LogSpec::default() };
        Writer::open(dir, &spec).unwrap()
    }

    async fn all(dir: &Path, options: Options) -> Vec<String> {
        let mut receiver = read(dir.to_owned(), options);
        let mut logs = Vec::new();
        while let Some(entry) = receiver.recv().await {
            logs.push(entry.unwrap().log);
        }
        logs
    }

    #[tokio::test]
    async fn tail_counts_over_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), Some(150));
        for number in 0..7 {
            writer.take(Stream::Stdout, format!("{number}\n").as_bytes());
        }
        for (tail, expected) in [(0, vec![]), (1, vec!["6\n"]), (3, vec!["4\n", "5\n", "6\n"])] {
            let options = Options { tail: Some(tail), ..Options::default() };
            assert_eq!(all(dir.path(), options).await, expected, "tail {tail}");
        }
        assert_eq!(all(dir.path(), Options::default()).await.len(), 7);
    }

    #[tokio::test]
    async fn compressed_files_read_as_plain_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = compressing(dir.path(), 150);
        for number in 0..7 {
            writer.take(Stream::Stdout, format!("{number}\n").as_bytes());
        }
        let names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(".json."))
            .collect();
        assert!(!names.is_empty() && names.iter().all(|name| name.ends_with(".gz")), "{names:?}");
        assert_eq!(
            all(dir.path(), Options { tail: Some(3), ..Options::default() }).await,
            ["4\n", "5\n", "6\n"]
        );
        assert_eq!(all(dir.path(), Options::default()).await.len(), 7);
    }

    #[tokio::test]
    async fn since_and_until_choose_by_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), None);
        writer.take(Stream::Stdout, b"early\n");
        let between = Timestamp::now();
        writer.take(Stream::Stdout, b"late\n");
        let since = Options { since: Some(between), ..Options::default() };
        let until = Options { until: Some(between), ..Options::default() };
        assert_eq!(all(dir.path(), since).await, ["late\n"]);
        assert_eq!(all(dir.path(), until).await, ["early\n"]);
    }

    #[tokio::test]
    async fn following_survives_rotation_and_ends_with_the_directory() {
        for compress in [false, true] {
            follows_over_rotations(compress).await;
        }
    }

    async fn follows_over_rotations(compress: bool) {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = read(dir.path().to_owned(), Options { follow: true, ..Options::default() });
        let mut writer = if compress { compressing(dir.path(), 150) } else { writer(dir.path(), Some(150)) };
        for number in 0..20 {
            writer.take(Stream::Stdout, format!("{number}\n").as_bytes());
            let entry = tokio::time::timeout(Duration::from_secs(30), receiver.recv()).await.unwrap();
            assert_eq!(entry.unwrap().unwrap().log, format!("{number}\n"));
        }
        drop(dir);
        assert!(tokio::time::timeout(Duration::from_secs(30), receiver.recv()).await.unwrap().is_none());
    }
}
