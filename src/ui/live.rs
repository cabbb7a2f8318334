//! The redrawn view of a terminal: a heading that counts, one row per thing, parts summed into their parent.
//!
//! Where there are more rows than the terminal has lines, finished ones make room for those still at work. The end of
//! the view is text: the heading and every row as it was last.

use crate::event::{Progress, Status};
use indexmap::IndexMap;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);

/// Rows live until `finish`.
#[derive(Debug)]
pub(super) struct Live {
    screen: MultiProgress,
    heading: ProgressBar,
    verb: String,
    /// Marks in colour.
    colour: bool,
    rows: IndexMap<String, Row>,
    /// By row; one that made room has none.
    bars: Arc<Mutex<HashMap<String, ProgressBar>>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Row {
    status: Status,
    text: String,
    note: String,
    since: Instant,
    took: Duration,
    /// Bytes by part.
    parts: HashMap<String, (u64, u64)>,
}

impl Live {
    pub(super) fn new(verb: &str, colour: bool) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let heading = screen.add(ProgressBar::new_spinner());
        heading.set_style(style("{msg}", Instant::now()));
        let live = Self {
            screen,
            heading,
            verb: verb.to_string(),
            colour,
            rows: IndexMap::new(),
            bars: Arc::default(),
            stop: Arc::default(),
        };
        live.start_ticker();
        live
    }

    /// One thread turns every spinner; a thread per row would be dozens.
    fn start_ticker(&self) {
        let (bars, stop) = (Arc::clone(&self.bars), Arc::clone(&self.stop));
        let spawned = std::thread::Builder::new().name("ticker".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                lock(&bars).values().filter(|bar| !bar.is_finished()).for_each(ProgressBar::tick);
            }
        });
        drop(spawned); // without the thread spinners stand still, nothing else is lost
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        let id = progress.parent.as_ref().unwrap_or(&progress.id);
        let row = self.rows.entry(id.clone()).or_insert_with(Row::new);
        match &progress.parent {
            Some(_) => row.take_part(progress),
            None => row.take(progress),
        }
        self.draw(id);
        self.make_room();
        self.heading.set_message(self.title());
    }

    /// What a thing at work just said, behind its word, as far as there is room.
    pub(super) fn note(&mut self, id: &str, line: &str) {
        let Some(row) = self.rows.get_mut(id).filter(|row| row.status == Status::Working) else { return };
        row.note = line.trim_end().replace(char::is_control, " ");
        self.draw(id);
    }

    fn title(&self) -> String {
        let done = self.rows.values().filter(|r| r.status != Status::Working).count();
        format!("[+] {} {done}/{}", self.verb, self.rows.len())
    }

    fn draw(&self, id: &str) {
        let Some(row) = self.rows.get(id) else { return };
        let mut bars = lock(&self.bars);
        let bar = bars.entry(id.to_string()).or_insert_with(|| self.screen.add(ProgressBar::new_spinner()));
        if row.status == Status::Working {
            if bar.is_finished() {
                bar.reset();
            }
            bar.set_style(style(" {spinner} {msg} {took}", row.since));
            let text = format!("{id} {} {}", row.text, row.note);
            bar.set_message(console::truncate_str(text.trim_end(), self.room(), "…").into_owned());
        } else {
            bar.set_style(style("{msg}", row.since));
            bar.finish_with_message(row.line(id, self.colour));
        }
    }

    /// Cells for the text of a row at work, between its spinner and its time.
    fn room(&self) -> usize {
        let width = usize::from(console::Term::stderr().size().1);
        width.saturating_sub(" ⠋  1234.5s".chars().count()).max(20)
    }

    /// Takes finished rows off the screen, the oldest first, while it is too small.
    fn make_room(&self) {
        let (height, width) = console::Term::stderr().size();
        let lines = |id: &str, row: &Row| {
            console::measure_text_width(&row.line(id, false)).div_ceil(usize::from(width).max(1))
        };
        let mut bars = lock(&self.bars);
        let shown = self.rows.iter().filter(|(id, _)| bars.contains_key(*id));
        let mut used = 1 + shown.map(|(id, row)| lines(id, row)).sum::<usize>();
        for (id, row) in self.rows.iter().filter(|(_, row)| row.status != Status::Working) {
            // The cursor stands on the line below.
            if used < usize::from(height) {
                return;
            }
            if let Some(bar) = bars.remove(id) {
                used -= lines(id, row);
                self.screen.remove(&bar);
            }
        }
    }

    /// Other output of this terminal, above the view.
    pub(super) fn aside(&self, write: impl FnOnce()) {
        self.screen.suspend(write);
    }

    /// Takes the view off the screen and gives its last state as text.
    pub(super) fn finish(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.screen.clear(); // the terminal is gone
        // Bars that are dropped draw themselves once more.
        self.screen.set_draw_target(ProgressDrawTarget::hidden());
        let rows = self.rows.iter().map(|(id, row)| row.line(id, self.colour) + "\n");
        format!("{}\n{}", self.title(), rows.collect::<String>())
    }
}

impl Row {
    fn new() -> Self {
        let (status, text, note) = (Status::Working, String::new(), String::new());
        Self { status, text, note, since: Instant::now(), took: Duration::ZERO, parts: HashMap::new() }
    }

    fn take(&mut self, progress: &Progress) {
        self.status = progress.status;
        self.took = self.since.elapsed();
        self.note.clear();
        self.text = match &progress.details {
            Some(details) => format!("{} {details}", progress.text),
            None => progress.text.clone(),
        };
    }

    fn take_part(&mut self, part: &Progress) {
        if let Some(bytes) = part.bytes {
            self.parts.insert(part.id.clone(), bytes);
        }
        let (done, all) = self.parts.values().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        if self.status == Status::Working {
            let (done, all) = (super::human::size(done), super::human::size(all));
            self.text = format!("{} {done} / {all}", part.text);
        }
    }

    /// ` ✔ Container shop-web-1 Started 0.3s`.
    fn line(&self, id: &str, colour: bool) -> String {
        let mark = match self.status {
            Status::Working => console::style("-"),
            Status::Done => console::style("✔").green(),
            Status::Warning => console::style("!").yellow(),
            Status::Error => console::style("✘").red(),
        };
        format!(" {} {id} {} {}", mark.force_styling(colour), self.text, seconds(self.took))
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

fn style(text: &str, since: Instant) -> ProgressStyle {
    let took = move |_: &ProgressState, out: &mut dyn Write| {
        let _ = out.write_str(&seconds(since.elapsed())); // a string takes everything
    };
    let style = ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.with_key("took", took).tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
