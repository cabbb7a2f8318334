//! The only writer to the terminal.
//!
//! Data goes to standard output, progress and remarks to standard error. The view is one of four, all made
//! from the same [`Event`]s: redrawn (a terminal), one line per event (plain), NDJSON, nothing.

pub mod human;
mod live;
pub mod log;
pub mod table;
pub mod template;

use crate::event::{Event, Level, Progress, Sink};
use crate::failure::Failure;
use live::Live;
use stack_schema::diagnostic::{Diagnostic, Severity};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    Terminal,
    Plain,
    Json,
    Quiet,
}

#[derive(Debug)]
pub struct Ui {
    view: View,
    /// Escape sequences on standard output (logs) and standard error (marks).
    pub colour_out: bool,
    colour_err: bool,
    data_on_terminal: bool,
    notes_on_stdout: bool,
    verb: String,
    live: Mutex<Option<Live>>,
    /// Last word shown for each thing, so that plain output repeats nothing.
    seen: Mutex<Vec<(String, String)>>,
}

/// What the flags and the environment say about the view.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// `--progress`.
    pub progress: Option<String>,
    /// `--ansi`.
    pub ansi: Option<String>,
    /// `NO_COLOR` is set and not empty.
    pub no_colour: bool,
    /// `COMPOSE_STATUS_STDOUT`: side notes are no progress.
    pub notes_on_stdout: bool,
}

impl Ui {
    /// # Errors
    /// An unknown `--progress`, or one that `--ansi` contradicts.
    pub fn new(wishes: &Wishes, verb: &str) -> Result<Self, Failure> {
        let ansi = wishes.ansi.as_deref().unwrap_or("auto");
        let colour = |terminal: bool| match ansi {
            "always" => true,
            "auto" => terminal && !wishes.no_colour,
            _ => false,
        };
        let view = view(wishes.progress.as_deref().unwrap_or("auto"), ansi, io::stderr().is_terminal())?;
        let data_on_terminal = io::stdout().is_terminal();
        let (colour_out, colour_err) = (colour(data_on_terminal), colour(io::stderr().is_terminal()));
        let (live, seen) = (Mutex::default(), Mutex::default());
        let (notes_on_stdout, verb) = (wishes.notes_on_stdout, verb.to_string());
        Ok(Self { view, colour_out, colour_err, data_on_terminal, notes_on_stdout, verb, live, seen })
    }

    /// A view that shows nothing but data and failures.
    pub fn quiet() -> Self {
        let wishes = Wishes { progress: Some("quiet".into()), ..Wishes::default() };
        Self::new(&wishes, "").expect("quiet is a known view")
    }

    pub fn view(&self) -> View {
        self.view
    }

    /// Data, as it is. A reader that went away ends the program as SIGPIPE would.
    pub fn data(&self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A container's own standard error.
    pub fn data_err(&self, text: &str) {
        self.bytes_err(text.as_bytes());
    }

    pub fn bytes_err(&self, bytes: &[u8]) {
        self.beside_view(|| {
            let _ = io::stderr().lock().write_all(bytes); // nobody is left to tell
        });
    }

    pub fn bytes(&self, bytes: &[u8]) {
        let write = || {
            let mut out = io::stdout().lock();
            end_if_closed(out.write_all(bytes).and_then(|()| out.flush()));
        };
        if self.data_on_terminal { self.beside_view(write) } else { write() }
    }

    /// Writes where the redrawn view does not paint over it.
    fn beside_view(&self, write: impl FnOnce()) {
        match lock(&self.live).as_ref() {
            Some(live) => live.aside(write),
            None => write(),
        }
    }

    /// A line for the user on standard error (or as [`Wishes::notes_on_stdout`] says), whatever the view except quiet.
    pub fn remark(&self, text: &str) {
        match self.view {
            View::Quiet => {}
            _ if self.notes_on_stdout => self.data(&format!("{text}\n")),
            _ => self.note(text),
        }
    }

    /// Ends the redrawn part of the screen; the next event starts a new one.
    pub fn settle(&self) {
        let live = lock(&self.live).take();
        if let Some(live) = live {
            self.raw(&live.finish());
        }
    }

    /// The only printer of failures.
    pub fn failure(&self, failure: &Failure) {
        self.settle();
        if self.view == View::Json {
            return self.note(&json_failure(failure));
        }
        let text = failure.render();
        if !text.is_empty() {
            self.raw(&self.painted(&text));
        }
    }

    /// Findings about the user's text that do not stop the verb.
    pub fn diagnostics(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics.iter().filter(|d| d.severity == Severity::Warning) {
            match self.view {
                View::Quiet => {}
                View::Json => self.note(&json_warning(diagnostic)),
                _ => self.raw(&self.painted(&diagnostic.render())),
            }
        }
    }

    /// Findings as data: one object a line, on standard error.
    pub fn findings(&self, diagnostics: &[Diagnostic]) {
        diagnostics.iter().for_each(|diagnostic| self.note(&diagnostic.to_json().to_string()));
    }

    fn painted(&self, text: &str) -> String {
        if !self.colour_err {
            return text.to_string();
        }
        let style = console::Style::new().force_styling(true).bold();
        text.split_inclusive('\n').map(|line| painted_line(line, &style)).collect()
    }

    fn note(&self, text: &str) {
        self.raw(&format!("{text}\n"));
    }

    fn raw(&self, text: &str) {
        self.bytes_err(text.as_bytes());
    }

    fn show(&self, progress: &Progress) {
        match self.view {
            View::Terminal => {
                lock(&self.live).get_or_insert_with(|| Live::new(&self.verb, self.colour_err)).show(progress)
            }
            _ => self.show_line(progress),
        }
    }

    /// Plain output tells each change of state once and leaves bytes out.
    fn show_line(&self, progress: &Progress) {
        let mut seen = lock(&self.seen);
        let known = seen.iter_mut().find(|(id, _)| *id == progress.id);
        match known {
            Some((_, word)) if *word == progress.text => return,
            Some((_, word)) => *word = progress.text.clone(),
            None => seen.push((progress.id.clone(), progress.text.clone())),
        }
        let details = progress.details.as_deref().map(|d| format!(" {d}")).unwrap_or_default();
        self.note(&format!("{} {}{details}", progress.id, progress.text));
    }
}

impl Sink for Ui {
    fn emit(&self, event: Event) {
        match (self.view, &event) {
            (View::Quiet, _) => {}
            (View::Json, _) => self.raw(&format!("{}\n", event.to_json())),
            (_, Event::Progress(progress)) => self.show(progress),
            (View::Terminal, Event::Output { parent, line }) => {
                if let Some(live) = lock(&self.live).as_mut() {
                    live.note(parent, line);
                }
            }
            (_, Event::Output { parent, line }) => self.note(&format!("{parent} {line}")),
            (_, Event::Message { level: Level::Info, text }) => self.remark(text),
            (_, Event::Message { level: Level::Warning, text }) => {
                self.note(self.painted(&format!("warning: {text}")).trim_end());
            }
        }
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.settle();
    }
}

fn view(progress: &str, ansi: &str, terminal: bool) -> Result<View, Failure> {
    let usage = |text: String| Err(Failure::usage(text));
    match (progress, ansi) {
        ("tty", "never") => usage("can't use --progress tty while ANSI support is disabled".into()),
        ("plain", "always") => usage("can't use --progress plain while ANSI support is forced".into()),
        ("auto" | "", "never") => Ok(View::Plain),
        ("auto" | "", _) => Ok(if terminal { View::Terminal } else { View::Plain }),
        ("tty", _) => Ok(View::Terminal),
        ("plain", _) => Ok(View::Plain),
        ("json", _) => Ok(View::Json),
        ("quiet" | "none", _) => Ok(View::Quiet),
        _ => usage(format!("unsupported --progress value {progress:?}")),
    }
}

fn painted_line(line: &str, bold: &console::Style) -> String {
    let (word, rest) = match line.split_once(": ") {
        Some(parts) => parts,
        None => return line.to_string(),
    };
    let style = match word {
        "error" => bold.clone().red(),
        "warning" => bold.clone().yellow(),
        "hint" => bold.clone().cyan(),
        _ => return line.to_string(),
    };
    format!("{}: {rest}", style.apply_to(word))
}

fn json_failure(failure: &Failure) -> String {
    let mut object = serde_json::json!({ "v": crate::event::VERSION, "error": true });
    if !failure.summary().is_empty() {
        object["message"] = failure.render().trim_end().into();
    }
    if !failure.diagnostics.is_empty() {
        object["diagnostics"] = failure.diagnostics.iter().map(Diagnostic::to_json).collect();
    }
    object.to_string()
}

fn json_warning(diagnostic: &Diagnostic) -> String {
    serde_json::json!({
        "v": crate::event::VERSION,
        "level": "warning",
        "msg": diagnostic.message,
        "diagnostic": diagnostic.to_json(),
    })
    .to_string()
}

/// Ends quietly, as SIGPIPE would have, when the reader of standard output is gone.
fn end_if_closed(result: io::Result<()>) {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(141),
        _ => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_looks_at_the_terminal() {
        assert_eq!(view("auto", "auto", true).ok(), Some(View::Terminal));
        assert_eq!(view("auto", "auto", false).ok(), Some(View::Plain));
        assert_eq!(view("auto", "never", true).ok(), Some(View::Plain));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(view("tty", "never", true).is_err());
        assert!(view("plain", "always", true).is_err());
        let unknown = view("foo", "auto", true).expect_err("not a view");
        assert_eq!(unknown.message, "unsupported --progress value \"foo\"");
    }

    #[test]
    fn a_failure_in_json_is_one_line() {
        let line = json_failure(&Failure::other("no such thing"));
        assert_eq!(line, r#"{"v":1,"error":true,"message":"error: no such thing"}"#);
        assert_eq!(json_failure(&Failure::exit(3)), r#"{"v":1,"error":true}"#);
    }
}
