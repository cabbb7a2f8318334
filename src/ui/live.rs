//! The redrawn view of a terminal: a heading that counts, one line per thing, parts summed into their parent.

use crate::event::{Progress, Status};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);

/// Rows live until `finish`, which leaves their last state on the screen.
#[derive(Debug)]
pub(super) struct Live {
    screen: MultiProgress,
    heading: ProgressBar,
    verb: String,
    rows: HashMap<String, Row>,
    bars: Arc<Mutex<Vec<ProgressBar>>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Row {
    bar: ProgressBar,
    status: Status,
    since: Instant,
    /// Bytes by part.
    parts: HashMap<String, (u64, u64)>,
}

impl Live {
    pub(super) fn new(verb: &str) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let heading = screen.add(ProgressBar::new_spinner());
        heading.set_style(template("{msg}"));
        let live = Self {
            screen,
            heading,
            verb: verb.to_string(),
            rows: HashMap::new(),
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
                let bars = bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                bars.iter().filter(|b| !b.is_finished()).for_each(ProgressBar::tick);
            }
        });
        drop(spawned); // without the thread spinners stand still, nothing else is lost
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        match &progress.parent {
            Some(parent) => self.show_part(parent, progress),
            None => self.show_row(progress),
        }
        let done = self.rows.values().filter(|r| r.status != Status::Working).count();
        self.heading.set_message(format!("[+] {} {done}/{}", self.verb, self.rows.len()));
    }

    fn show_row(&mut self, progress: &Progress) {
        let text = text_of(progress);
        let row = self.row(&progress.id);
        row.status = progress.status;
        let took = row.since.elapsed().as_secs_f64();
        let mark = match progress.status {
            Status::Working => return row.bar.set_message(format!("{} {text}", progress.id)),
            Status::Done => console::style("✔").green(),
            Status::Warning => console::style("!").yellow(),
            Status::Error => console::style("✘").red(),
        };
        row.bar.set_style(template(" {msg}"));
        row.bar.finish_with_message(format!("{mark} {} {text} {took:.1}s", progress.id));
    }

    fn show_part(&mut self, parent: &str, progress: &Progress) {
        let text = progress.text.clone();
        let row = self.row(parent);
        if let Some(bytes) = progress.bytes {
            row.parts.insert(progress.id.clone(), bytes);
        }
        let (done, all) = row.parts.values().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        if row.status == Status::Working {
            let (done, all) = (super::human::size(done), super::human::size(all));
            row.bar.set_message(format!("{parent} {text} {done} / {all}"));
        }
    }

    fn row(&mut self, id: &str) -> &mut Row {
        self.rows.entry(id.to_string()).or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::new_spinner());
            bar.set_style(template(" {spinner} {msg}").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
            self.bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(bar.clone());
            Row { bar, status: Status::Working, since: Instant::now(), parts: HashMap::new() }
        })
    }

    /// Other output of this terminal, above the view.
    pub(super) fn aside(&self, write: impl FnOnce()) {
        self.screen.suspend(write);
    }

    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for row in self.rows.values().filter(|r| !r.bar.is_finished()) {
            row.bar.abandon();
        }
        self.heading.abandon();
    }
}

fn text_of(progress: &Progress) -> String {
    match &progress.details {
        Some(details) => format!("{} {details}", progress.text),
        None => progress.text.clone(),
    }
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
