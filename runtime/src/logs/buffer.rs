//! `mode: non-blocking`: output waits for its log in memory, and what finds no room there is lost.

use super::{Stream, Writer};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Pieces on their way to a slow place, written by a thread of its own.
#[derive(Debug)]
pub(crate) struct Buffer {
    shared: Arc<Shared>,
    max_bytes: usize,
    /// Started by the first piece: a monitor makes its init before, while it has one thread.
    writer: Option<Writer>,
    writing: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<(Stream, Vec<u8>)>,
    bytes: usize,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece; `None` when there will be none.
    fn next(&self) -> Option<(Stream, Vec<u8>)> {
        let is_idle = |waiting: &mut Waiting| waiting.pieces.is_empty() && !waiting.is_over;
        let waiting = self.changed.wait_while(self.lock(), is_idle);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let piece = waiting.pieces.pop_front()?;
        waiting.bytes -= piece.1.len();
        Some(piece)
    }
}

impl Buffer {
    pub(crate) fn new(writer: Writer, max_bytes: usize) -> Self {
        Self { shared: Arc::default(), max_bytes, writer: Some(writer), writing: None }
    }

    /// Never waits.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(mut writer) = self.writer.take() {
            self.writing = self.start(move |piece| match piece {
                Some((stream, bytes)) => writer.take(stream, bytes),
                None => writer.finish(),
            });
        }
        self.put(stream, bytes);
    }

    fn put(&self, stream: Stream, bytes: &[u8]) {
        let mut waiting = self.shared.lock();
        if waiting.bytes + bytes.len() <= self.max_bytes {
            waiting.bytes += bytes.len();
            waiting.pieces.push_back((stream, bytes.to_vec()));
            self.shared.changed.notify_one();
        }
    }

    /// Without a thread nothing is kept, and the program goes on.
    fn start(
        &self,
        mut write: impl FnMut(Option<(Stream, &[u8])>) + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        let shared = self.shared.clone();
        let work = move || {
            while let Some((stream, bytes)) = shared.next() {
                write(Some((stream, &bytes)));
            }
            write(None);
        };
        std::thread::Builder::new().stack_size(128 << 10).spawn(work).ok()
    }

    /// The program has ended: what waits is written.
    pub(crate) fn finish(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_slow_log_holds_nobody_up_and_loses_what_finds_no_room() {
        let (shared, writer, writing) = (Arc::default(), None, None);
        let mut buffer = Buffer { shared, max_bytes: 10, writer, writing };
        let (go, gate) = mpsc::channel::<()>();
        let (sender, written) = mpsc::channel();
        buffer.writing = buffer.start(move |piece| {
            let Some((_, bytes)) = piece else { return };
            sender.send(bytes.to_vec()).unwrap();
            let _ = gate.recv();
        });
        buffer.put(Stream::Stdout, b"first");
        assert_eq!(written.recv().unwrap(), b"first"); // and is stuck
        for piece in ["12345", "67890", "lost", "!"] {
            buffer.put(Stream::Stdout, piece.as_bytes());
        }
        drop(go);
        buffer.finish();
        assert_eq!(written.iter().collect::<Vec<_>>(), [b"12345", b"67890"]);
    }
}
