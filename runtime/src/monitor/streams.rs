//! The program's standard streams: to the log, and to and from the clients of the attach socket.
//!
//! A client that is slow holds the program up, as a terminal would; one that goes does not matter.

use super::attach::{Client, Input, listen};
use crate::container::Bundle;
use crate::logs::{Log, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::OwnedFd;

const CHUNK_BYTES: usize = 16 * 1024;

/// The monitor's ends.
#[derive(Debug, Default)]
pub(super) struct Streams {
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    /// Held while the program may get input.
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    log: Option<Log>,
    listener: Option<OwnedFd>,
    clients: Vec<Client>,
    /// Input that the program has not taken yet.
    unread: Vec<u8>,
}

impl Streams {
    /// Ours, and the program's three; a terminal is made by init.
    pub(super) fn open(bundle: &Bundle, given: Vec<OwnedFd>) -> io::Result<(Self, Option<[OwnedFd; 3]>)> {
        let mut ours = Self::default();
        if bundle.extras.has_streams {
            let given =
                <[OwnedFd; 3]>::try_from(given).map_err(|_| io::Error::other("three streams are needed"))?;
            return Ok((ours, Some(given)));
        }
        ours.log = Some(Log::open(&bundle.dir, &bundle.log)?);
        ours.listener = Some(listen(&bundle.dir)?);
        if bundle.has_terminal() {
            return Ok((ours, None));
        }
        let (output, their_output) = pipe_with(PipeFlags::CLOEXEC)?;
        let (error, their_error) = pipe_with(PipeFlags::CLOEXEC)?;
        let their_input = if bundle.extras.stdin_open {
            let (their_input, input) = pipe_with(PipeFlags::CLOEXEC)?;
            ioctl_fionbio(&input, true)?;
            ours.input = Some(input);
            their_input
        } else {
            open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
        };
        for fd in [&output, &error] {
            ioctl_fionbio(fd, true)?;
        }
        (ours.output, ours.error) = (Some(output), Some(error));
        Ok((ours, Some([their_input, their_output, their_error])))
    }

    pub(super) fn set_terminal(&mut self, terminal: OwnedFd) {
        let _ = ioctl_fionbio(&terminal, true);
        self.terminal = Some(terminal);
    }

    /// Before the start: who is connected by now gets the first byte, and the size he asked for.
    pub(super) fn greet(&mut self) {
        self.accept();
        for index in 0..self.clients.len() {
            self.serve(index, PollFlags::IN);
        }
    }

    /// Moves bytes until the program has ended and all it wrote is read.
    pub(super) fn pump(&mut self, program: &OwnedFd) {
        while !self.turn(program) {}
        self.accept();
        // What it wrote before its end is still in the pipes.
        while self.read_all() {}
        if let Some(log) = &mut self.log {
            log.finish();
        }
        for client in &mut self.clients {
            client.flush_blocking();
        }
    }

    /// Waits for something and does it; true when the program has ended.
    fn turn(&mut self, program: &OwnedFd) -> bool {
        let is_held_up = self.clients.iter().any(Client::is_full);
        let mut sources: Vec<(Source, PollFd<'_>)> =
            vec![(Source::Program, PollFd::new(program, PollFlags::IN))];
        if !is_held_up {
            let outputs = [&self.output, &self.error, &self.terminal].into_iter().flatten();
            sources.extend(outputs.map(|fd| (Source::Output, PollFd::new(fd, PollFlags::IN))));
        }
        sources.extend(self.listener.iter().map(|fd| (Source::Listener, PollFd::new(fd, PollFlags::IN))));
        if !self.unread.is_empty() {
            let inputs = self.terminal.iter().chain(&self.input);
            sources.extend(inputs.map(|fd| (Source::Input, PollFd::new(fd, PollFlags::OUT))));
        }
        let may_read = self.unread.is_empty();
        for (index, client) in self.clients.iter().enumerate() {
            sources.push((Source::Client(index), PollFd::new(client.socket(), client.interest(may_read))));
        }
        let (sources, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = sources.into_iter().unzip();
        if poll(&mut fds, None).is_err() {
            return false;
        }
        let ready: Vec<(Source, PollFlags)> = sources
            .into_iter()
            .zip(fds.iter().map(|fd| fd.revents()))
            .filter(|(_, events)| !events.is_empty())
            .collect();
        let mut has_ended = false;
        for (source, events) in ready {
            match source {
                Source::Program => has_ended = true,
                Source::Output => drop(self.read_all()),
                Source::Listener => self.accept(),
                Source::Input => self.feed(),
                Source::Client(index) => self.serve(index, events),
            }
        }
        self.clients.retain(|client| !client.is_gone());
        has_ended
    }

    /// One chunk of each output; false when none had any.
    fn read_all(&mut self) -> bool {
        let output = self.output.take();
        let (output, a) = self.read_one(output, Stream::Stdout);
        let error = self.error.take();
        let (error, b) = self.read_one(error, Stream::Stderr);
        let terminal = self.terminal.take();
        let (terminal, c) = self.read_one(terminal, Stream::Stdout);
        (self.output, self.error, self.terminal) = (output, error, terminal);
        a || b || c
    }

    /// Gives the descriptor back unless it is at its end. A terminal without a program is EIO.
    fn read_one(&mut self, fd: Option<OwnedFd>, stream: Stream) -> (Option<OwnedFd>, bool) {
        let Some(fd) = fd else { return (None, false) };
        let mut chunk = [0; CHUNK_BYTES];
        match read(&fd, &mut chunk) {
            Ok(length) if length > 0 => {
                let bytes = &chunk[..length];
                if let Some(log) = &mut self.log {
                    log.take(stream, bytes);
                }
                for client in &mut self.clients {
                    client.send(stream, bytes);
                }
                (Some(fd), true)
            }
            Err(Errno::AGAIN | Errno::INTR) => (Some(fd), false),
            _ => (None, false),
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(listener, flags) {
            self.clients.push(Client::new(socket));
        }
    }

    fn serve(&mut self, index: usize, events: PollFlags) {
        let client = &mut self.clients[index];
        if events.contains(PollFlags::OUT) {
            client.flush();
        }
        if !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        match client.receive() {
            Some(Input::Bytes(bytes)) => {
                self.unread.extend(bytes);
                self.feed();
            }
            Some(Input::Close) => self.close_input(),
            Some(Input::Resize { rows, cols }) => {
                let terminal = self.terminal.as_ref();
                let _ = terminal.map(|terminal| crate::sys::tty::resize(terminal, rows, cols));
            }
            None => {}
        }
    }

    /// As much input as the program takes now.
    fn feed(&mut self) {
        let Some(fd) = self.terminal.as_ref().or(self.input.as_ref()) else { return self.unread.clear() };
        match write(fd, &self.unread) {
            Ok(length) => drop(self.unread.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The program does not read any more.
            Err(_) => {
                self.unread.clear();
                self.input = None;
            }
        }
    }

    /// A terminal's end of file is a character.
    fn close_input(&mut self) {
        const END_OF_TRANSMISSION: u8 = 4;
        if self.terminal.is_some() {
            self.unread.push(END_OF_TRANSMISSION);
            self.feed();
        } else if self.unread.is_empty() {
            self.input = None;
        }
    }
}

enum Source {
    Program,
    Output,
    Listener,
    Input,
    Client(usize),
}
