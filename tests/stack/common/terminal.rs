//! The program on a terminal of its own: a pty with a size, keys to press, and the screen as its user would see it.

use super::command::program;
use super::{PATIENCE, Project, eventually};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A run on a terminal; killed when dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    printed: Arc<Mutex<Vec<u8>>>,
    columns: usize,
}

impl Terminal {
    /// `stack ARGS` in the project's directory, on a terminal of `size` rows and columns.
    pub fn spawn(project: &Project<'_>, size: (u16, u16), env: &[(&str, &str)], args: &[&str]) -> Self {
        Self::start(project, size, env, args, true)
    }

    /// As above, but nothing can be typed: standard input is no terminal.
    pub fn deaf(project: &Project<'_>, args: &[&str]) -> Self {
        Self::start(project, (30, 100), &[], args, false)
    }

    fn start(
        project: &Project<'_>,
        size: (u16, u16),
        env: &[(&str, &str)],
        args: &[&str],
        listens: bool,
    ) -> Self {
        let args = project.named(args);
        let stack = program(&project.world.home, &project.directory, env, &args);
        let (master, device) = open(size);
        // Makes the terminal the program's own, as a login does, and becomes it.
        let mut command = Command::new("setsid");
        command.args(listens.then_some("--ctty")).arg(stack.get_program()).args(stack.get_args()).env_clear();
        command.envs(stack.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.current_dir(&project.directory).env("TERM", "xterm-256color");
        let stream = || std::process::Stdio::from(device.try_clone().expect("a descriptor"));
        let input = if listens { stream() } else { std::process::Stdio::null() };
        let child = command.stdin(input).stdout(stream()).stderr(stream()).spawn().expect("setsid is there");
        let keyboard = File::from(master);
        let printed = Arc::default();
        std::thread::spawn({
            let (printed, screen) = (Arc::clone(&printed), keyboard.try_clone().expect("a descriptor"));
            move || read_all(screen, &printed)
        });
        Self { child, keyboard, printed, columns: size.1.into() }
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.keyboard, winsize(rows, columns)).expect("the terminal is there");
    }

    /// Every byte so far, escape sequences and all.
    pub fn raw(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// What stands on the screen and above it, a line each, without the empty ones.
    pub fn lines(&self) -> Vec<String> {
        let mut screen = Screen::new(self.columns);
        screen.show(&self.raw());
        screen.lines()
    }

    /// Waits for a text on the screen.
    pub fn until(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.lines().iter().any(|line| line.contains(text)) {
            assert!(Instant::now() < deadline, "`{text}` is not on the screen:\n{}", self.lines().join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end and for its last words.
    pub fn wait(&mut self) -> ExitStatus {
        let status = eventually("the end of the program on the terminal", || self.child.try_wait().unwrap());
        let mut length = 0;
        // Its side of the terminal is closed by now; the reader may lag behind.
        while std::mem::replace(&mut length, self.raw().len()) != self.raw().len() || length == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        status
    }

    /// As [`Self::wait`], with a code that was expected.
    #[track_caller]
    pub fn code(&mut self, code: i32) {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "{}", self.lines().join("\n"));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Master and device side.
fn open(size: (u16, u16)) -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a pty of ours");
    tcsetwinsize(&master, winsize(size.0, size.1)).expect("a pty of ours");
    let name = ptsname(&master, Vec::new()).expect("a pty of ours");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let device = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).expect("its device");
    (master, device.into())
}

/// Until the last one has let go of the device: EIO.
fn read_all(mut screen: File, printed: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 4096];
    while let Ok(count) = screen.read(&mut chunk) {
        if count == 0 {
            return;
        }
        printed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(&chunk[..count]);
    }
}

/// As much of a terminal as redrawn progress needs; it scrolls without end.
struct Screen {
    columns: usize,
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    fn new(columns: usize) -> Self {
        Self { columns, cells: vec![Vec::new()], row: 0, column: 0 }
    }

    fn show(&mut self, text: &str) {
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => self.row += 1,
                '\u{1b}' if rest.next_if_eq(&'[').is_some() => {
                    let mut number = String::new();
                    while let Some(c) = rest.next_if(|c| c.is_ascii_digit() || matches!(c, ';' | '?')) {
                        number.push(c);
                    }
                    self.control(rest.next().unwrap_or('m'), &number);
                }
                '\u{1b}' => {}
                c => self.put(c),
            }
            while self.cells.len() <= self.row {
                self.cells.push(Vec::new());
            }
        }
    }

    fn put(&mut self, c: char) {
        if self.column == self.columns {
            self.column = 0;
            self.row += 1;
        }
        if self.cells.len() <= self.row {
            self.cells.push(Vec::new());
        }
        let line = &mut self.cells[self.row];
        if line.len() <= self.column {
            line.resize(self.column + 1, ' ');
        }
        line[self.column] = c;
        self.column += 1;
    }

    fn control(&mut self, command: char, number: &str) {
        let count = number.parse::<usize>().unwrap_or(1).max(1);
        match (command, number) {
            ('A', _) => self.row = self.row.saturating_sub(count),
            ('B', _) => self.row += count,
            ('C', _) => self.column = (self.column + count).min(self.columns - 1),
            ('D', _) => self.column = self.column.saturating_sub(count),
            ('G', _) => self.column = count - 1,
            ('K', "2") => self.cells[self.row].clear(),
            ('K', _) => self.cells[self.row].truncate(self.column),
            ('J', _) => {
                self.cells[self.row].truncate(self.column);
                self.cells.truncate(self.row + 1);
            }
            _ => {}
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = self.cells.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
        text.filter(|line| !line.is_empty()).collect()
    }
}
