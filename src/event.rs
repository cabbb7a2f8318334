//! Event: what just happened, in one versioned type. The terminal view and `--progress json` are both
//! made from it, so neither can show what the other does not.
//!
//! As NDJSON on standard error, one object a line, empty fields left out:
//!
//! ```text
//! {"v":1,"id":"Container shop-web-1","status":"Working","text":"Creating"}
//! {"v":1,"id":"sha256:ab…","parent_id":"Image redis:8","status":"Working","text":"Downloading","current":10,"total":99,"percent":10}
//! {"v":1,"level":"warning","msg":"…"}
//! {"v":1,"level":"warning","msg":"…","diagnostic":{"message":"…","file":"compose.yaml","line":4,"column":7,…}}
//! {"v":1,"error":true,"message":"…","diagnostics":[{…}]}
//! ```

use serde::Serialize;
use std::sync::Arc;

/// Grows when a field changes its meaning; new fields do not count.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Something is being done to a thing.
    Progress(Progress),
    /// A line of detail below a thing: what a build prints.
    Output { parent: String, line: String },
    /// A remark to the user.
    Message { level: Level, text: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Info,
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Status {
    Working,
    Done,
    Warning,
    Error,
}

/// One thing and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Kind and name: `Container shop-web-1`, `Image redis:8`, `Network shop_default`.
    pub id: String,
    pub parent: Option<String>,
    pub status: Status,
    /// Compose's word: `Creating`, `Started`, `Pulling`, …
    pub text: String,
    pub details: Option<String>,
    /// Bytes done and to do.
    pub bytes: Option<(u64, u64)>,
}

impl Event {
    pub fn working(id: impl Into<String>, text: &str) -> Self {
        Self::progress(id, Status::Working, text)
    }

    pub fn done(id: impl Into<String>, text: &str) -> Self {
        Self::progress(id, Status::Done, text)
    }

    pub fn failed(id: impl Into<String>, details: impl Into<String>) -> Self {
        Self::Progress(Progress {
            details: Some(details.into()),
            ..Progress::new(id.into(), Status::Error, "Error")
        })
    }

    pub fn warned(id: impl Into<String>, text: &str) -> Self {
        Self::progress(id, Status::Warning, text)
    }

    /// A part (a layer) of a thing, with bytes.
    pub fn part(id: impl Into<String>, parent: impl Into<String>, text: &str, bytes: (u64, u64)) -> Self {
        let (status, parent) = (Status::Working, Some(parent.into()));
        Self::Progress(Progress { parent, bytes: Some(bytes), ..Progress::new(id.into(), status, text) })
    }

    pub fn warning(text: impl Into<String>) -> Self {
        Self::Message { level: Level::Warning, text: text.into() }
    }

    pub fn info(text: impl Into<String>) -> Self {
        Self::Message { level: Level::Info, text: text.into() }
    }

    fn progress(id: impl Into<String>, status: Status, text: &str) -> Self {
        Self::Progress(Progress::new(id.into(), status, text))
    }

    /// The line of `--progress json`, without its line end.
    pub fn to_json(&self) -> String {
        let line = match self {
            Self::Progress(p) => Line::from(p),
            Self::Output { parent, line } => Line { parent_id: parent, text: line, ..Line::default() },
            Self::Message { level, text } => Line { level: Some(*level), msg: text, ..Line::default() },
        };
        serde_json::to_string(&line).expect("plain strings and numbers serialise")
    }
}

impl Progress {
    fn new(id: String, status: Status, text: &str) -> Self {
        Self { id, parent: None, status, text: text.into(), details: None, bytes: None }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    parent_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<Level>,
    #[serde(skip_serializing_if = "str::is_empty")]
    msg: &'a str,
}

impl Default for Line<'_> {
    fn default() -> Self {
        let (current, total, percent) = (None, None, None);
        let (status, level) = (None, None);
        Self {
            v: VERSION,
            id: "",
            parent_id: "",
            status,
            text: "",
            details: "",
            current,
            total,
            percent,
            level,
            msg: "",
        }
    }
}

impl<'a> From<&'a Progress> for Line<'a> {
    fn from(p: &'a Progress) -> Self {
        Self {
            id: &p.id,
            parent_id: p.parent.as_deref().unwrap_or(""),
            status: Some(p.status),
            text: &p.text,
            details: p.details.as_deref().unwrap_or(""),
            current: p.bytes.map(|b| b.0),
            total: p.bytes.map(|b| b.1),
            percent: p.bytes.map(|(done, all)| (done * 100).checked_div(all).unwrap_or(0).min(100)),
            ..Self::default()
        }
    }
}

/// Where events go. Called from any thread, never blocks for long.
pub trait Sink: Send + Sync {
    fn emit(&self, event: Event);
}

/// The shared handle that apply, build and watch are given.
pub type Events = Arc<dyn Sink>;

/// Drops everything (`--progress quiet`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn emit(&self, _: Event) {}
}

/// Keeps everything, for tests.
#[derive(Debug, Default)]
pub struct Kept(std::sync::Mutex<Vec<Event>>);

impl Kept {
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Sink for Kept {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_leaves_empty_fields_out() {
        let event = Event::working("Container shop-web-1", "Creating");
        let expected = r#"{"v":1,"id":"Container shop-web-1","status":"Working","text":"Creating"}"#;
        assert_eq!(event.to_json(), expected);
    }

    #[test]
    fn json_counts_bytes() {
        let event = Event::part("abc", "Image redis:8", "Downloading", (10, 40));
        let json = event.to_json();
        assert!(
            json.contains(r#""parent_id":"Image redis:8""#) && json.contains(r#""percent":25"#),
            "{json}"
        );
    }
}
