//! Logs of several containers as one stream of whole lines.

use crate::failure::{Result, failed};
use jiff::{SignedDuration, Timestamp};
use stack_runtime::logs::{self, Entry, Options, Stream};
use stack_runtime::monitor::Attachment;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Beyond this a line without an end is shown in pieces.
const LONGEST_LINE_BYTES: usize = 1 << 20;

/// A whole line of a container, without its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// As [`Follow::add`] was told.
    pub(super) name: String,
    pub(super) stream: Stream,
    pub(super) time: Timestamp,
    pub(super) text: String,
}

/// Puts the pieces of long lines together.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<(String, bool), String>);

impl Lines {
    pub(super) fn take(&mut self, name: &str, entry: Entry) -> Option<Line> {
        let slot = (name.to_string(), entry.stream == Stream::Stdout);
        let mut text = self.0.remove(&slot).unwrap_or_default();
        text.push_str(&entry.log);
        if !text.ends_with('\n') && text.len() < LONGEST_LINE_BYTES {
            self.0.insert(slot, text);
            return None;
        }
        let text = text.strip_suffix('\n').unwrap_or(&text).to_string();
        Some(Line { name: name.to_string(), stream: entry.stream, time: entry.time, text })
    }

    /// What a container left unterminated.
    pub(super) fn rest(&mut self, name: &str, time: Timestamp) -> Vec<Line> {
        let streams = [(true, Stream::Stdout), (false, Stream::Stderr)];
        let line = |(is_out, stream): (bool, Stream)| {
            let text = self.0.remove(&(name.to_string(), is_out))?;
            Some(Line { name: name.to_string(), stream, time, text })
        };
        streams.into_iter().filter_map(line).collect()
    }
}

/// Follows containers; those that are added later join.
pub(super) struct Follow {
    sender: mpsc::Sender<(String, Entry)>,
    receiver: mpsc::Receiver<(String, Entry)>,
    lines: Lines,
    /// By name: the directory, and the time of the last entry that was shown.
    sources: HashMap<String, Source>,
    /// By name: those without a log, until their output ends.
    attached: HashMap<String, JoinHandle<()>>,
}

#[derive(Debug, Clone)]
struct Source {
    directory: PathBuf,
    since: Option<Timestamp>,
    shown: Option<Timestamp>,
}

impl Follow {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(256);
        let (sources, attached) = (HashMap::new(), HashMap::new());
        Self { sender, receiver, lines: Lines::default(), sources, attached }
    }

    /// Twice for the same container is once.
    pub(super) fn add(&mut self, name: &str, directory: PathBuf, options: Options) {
        if self.sources.get(name).is_some_and(|s| s.directory == directory) {
            return;
        }
        let source = Source { directory: directory.clone(), since: options.since, shown: None };
        self.sources.insert(name.to_string(), source);
        let (sender, name) = (self.sender.clone(), name.to_string());
        let mut entries = logs::read(directory, Options { follow: true, ..options });
        tokio::spawn(async move {
            while let Some(Ok(entry)) = entries.recv().await {
                if sender.send((name.clone(), entry)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// One that has no log, by its output itself; once more while it is heard is once.
    pub(super) fn attach(&mut self, name: &str, directory: PathBuf, attachment: Attachment) {
        if self.attached.get(name).is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.sources.entry(name.into()).or_insert(Source { directory, since: None, shown: None });
        let (sender, name) = (self.sender.clone(), name.to_string());
        let listening = listen(name.clone(), attachment, sender);
        self.attached.insert(name, tokio::spawn(listening));
    }

    /// The rest of one that has no log and has ended; what others say meanwhile is shown as well.
    async fn hear_out(&mut self, name: &str) -> Vec<Line> {
        let Some(mut task) = self.attached.remove(name) else { return Vec::new() };
        let mut lines = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some((name, entry)) = self.receiver.recv() => lines.extend(self.show(&name, entry)),
                _ = &mut task => break,
            }
        }
        while let Ok((name, entry)) = self.receiver.try_recv() {
            lines.extend(self.show(&name, entry));
        }
        lines
    }

    /// The next line; pending for ever while nothing is printed.
    pub(super) async fn next(&mut self) -> Line {
        loop {
            let Some((name, entry)) = self.receiver.recv().await else { std::future::pending().await };
            if let Some(line) = self.show(&name, entry) {
                return line;
            }
        }
    }

    fn show(&mut self, name: &str, entry: Entry) -> Option<Line> {
        let source = self.sources.get_mut(name)?;
        if source.shown.is_some_and(|shown| entry.time <= shown) {
            return None; // was shown by `drain`
        }
        source.shown = Some(entry.time);
        self.lines.take(name, entry)
    }

    /// Everything an ended container still has to say: its log is complete, so it is read to its end.
    pub(super) async fn drain(&mut self, name: &str) -> Vec<Line> {
        let mut lines = self.hear_out(name).await;
        let Some(source) = self.sources.get(name).cloned() else { return lines };
        let options = Options { since: source.shown.or(source.since), ..Options::default() };
        let mut entries = logs::read(source.directory, options);
        while let Some(Ok(entry)) = entries.recv().await {
            lines.extend(self.show(name, entry));
        }
        let time = self.sources.get(name).and_then(|s| s.shown).unwrap_or_default();
        lines.extend(self.lines.rest(name, time));
        lines
    }
}

/// Each piece as entries of one line at most, at different times.
async fn listen(name: String, attachment: Attachment, sender: mpsc::Sender<(String, Entry)>) {
    let mut last = Timestamp::MIN;
    while let Ok(Some((stream, bytes))) = attachment.output().await {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let next = last.checked_add(SignedDuration::from_nanos(1)).unwrap_or(last);
            last = Timestamp::now().max(next);
            let log = String::from_utf8_lossy(line).into_owned();
            let entry = Entry { log, stream, attrs: Default::default(), time: last };
            if sender.send((name.clone(), entry)).await.is_err() {
                return;
            }
        }
    }
}

/// What several containers have printed so far, in the order of time; `out` gets every line.
///
/// # Errors
/// What reading meets.
pub(super) async fn merged(
    sources: Vec<(String, PathBuf, Options)>,
    mut out: impl FnMut(Line),
) -> Result<()> {
    let mut lines = Lines::default();
    let mut heads = Vec::new();
    for (name, directory, options) in sources {
        // The last lines of all may be later than what is wanted: then they are counted here.
        let counted = options.tail.filter(|_| options.until.is_some());
        let tail = options.tail.filter(|_| options.until.is_none());
        let entries = logs::read(directory, Options { follow: false, tail, ..options });
        let mut head = Head { name, entries, kept: VecDeque::new(), next: None };
        if let Some(lines) = counted {
            head.keep_last(lines).await?;
        }
        head.advance().await?;
        heads.push(head);
    }
    while let Some(first) = heads.iter_mut().filter(|h| h.next.is_some()).min_by_key(|h| h.time()) {
        let Some(entry) = first.next.take() else { break };
        first.advance().await?;
        let (name, time, is_last) = (first.name.clone(), entry.time, first.next.is_none());
        lines.take(&name, entry).into_iter().for_each(&mut out);
        if is_last {
            lines.rest(&name, time).into_iter().for_each(&mut out);
        }
    }
    Ok(())
}

struct Head {
    name: String,
    entries: mpsc::Receiver<std::io::Result<Entry>>,
    /// Read already.
    kept: VecDeque<Entry>,
    next: Option<Entry>,
}

impl Head {
    async fn advance(&mut self) -> Result<()> {
        self.next = match self.kept.pop_front() {
            Some(entry) => Some(entry),
            None => self.read().await?,
        };
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<Entry>> {
        let entry = self.entries.recv().await.transpose();
        entry.map_err(failed(&format!("read the log of {}", self.name)))
    }

    /// All that is left of it are the last lines; one in pieces counts once.
    async fn keep_last(&mut self, lines: usize) -> Result<()> {
        let is_end = |entry: &Entry| entry.log.ends_with('\n');
        let mut ends = 0;
        while let Some(entry) = self.read().await? {
            ends += usize::from(is_end(&entry));
            self.kept.push_back(entry);
            while ends > lines {
                ends -= self.kept.pop_front().map_or(ends, |first| usize::from(is_end(&first)));
            }
        }
        Ok(())
    }

    fn time(&self) -> Timestamp {
        self.next.as_ref().map(|e| e.time).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, stream: Stream) -> Entry {
        Entry { log: text.into(), stream, attrs: Default::default(), time: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn pieces_become_one_line() {
        let mut lines = Lines::default();
        assert_eq!(lines.take("a", entry("one ", Stream::Stdout)), None);
        assert_eq!(lines.take("a", entry("other\n", Stream::Stderr)).map(|l| l.text), Some("other".into()));
        assert_eq!(lines.take("a", entry("two\n", Stream::Stdout)).map(|l| l.text), Some("one two".into()));
    }

    #[test]
    fn an_unterminated_line_is_not_lost() {
        let mut lines = Lines::default();
        lines.take("a", entry("end", Stream::Stdout));
        let rest: Vec<String> = lines.rest("a", Timestamp::UNIX_EPOCH).into_iter().map(|l| l.text).collect();
        assert_eq!(rest, ["end"]);
        assert!(lines.rest("a", Timestamp::UNIX_EPOCH).is_empty());
    }
}
