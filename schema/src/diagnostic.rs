//! A diagnostic is about the user's text: what is wrong, where, and what would help.
//!
//! ```text
//! error: service `web` publishes host port 8080 twice
//!   --> compose.yaml:14:9  services.web.ports[1]
//!    14 |       - "8080:80"
//!       |         ^^^^^^^^^
//! hint: Give one of the two another host port, or remove it.
//! ```

use crate::source::Place;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Error,
}

/// One finding. `message` has no full stop and starts in lower case; `hint` is a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    pub place: Option<Place>,
    /// Dotted key path, e.g. `services.web.ports[1]`; empty when none applies.
    pub key_path: String,
    pub hint: Option<String>,
    /// Further places with a remark, e.g. "first defined here".
    pub related: Vec<(Place, String)>,
}

impl Diagnostic {
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message)
    }

    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message)
    }

    fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: message.into(),
            place: None,
            key_path: String::new(),
            hint: None,
            related: Vec::new(),
        }
    }

    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub fn key(mut self, key_path: impl Into<String>) -> Self {
        self.key_path = key_path.into();
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn related(mut self, place: Place, remark: impl Into<String>) -> Self {
        self.related.push((place, remark.into()));
        self
    }

    /// The same as data; what is not there is left out.
    ///
    /// `severity`, `message`, `file`, `line`, `column`, `end_line`, `end_column` (all from 1, the end exclusive), `key_path`,
    /// `excerpt`, `hint`, and `related`: objects of `file`, `line`, `column`, … and `message`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({ "severity": self.severity, "message": self.message });
        if let Some(place) = &self.place {
            place_to_json(&mut object, place);
        }
        if !self.key_path.is_empty() {
            object["key_path"] = self.key_path.as_str().into();
        }
        if let Some(hint) = &self.hint {
            object["hint"] = hint.as_str().into();
        }
        if !self.related.is_empty() {
            let related = self.related.iter().map(|(place, remark)| {
                let mut object = serde_json::json!({ "message": remark });
                place_to_json(&mut object, place);
                object
            });
            object["related"] = related.collect();
        }
        object
    }

    /// The one shape, as plain text without colour (the terminal's writer adds it).
    pub fn render(&self) -> String {
        let head = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut out = format!("{head}: {}\n", self.message);
        if let Some(place) = &self.place {
            render_place(&mut out, place, &self.key_path);
        } else if !self.key_path.is_empty() {
            out.push_str(&format!("  --> {}\n", self.key_path));
        }
        for (place, remark) in &self.related {
            render_place(&mut out, place, remark);
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("hint: {hint}\n"));
        }
        out
    }
}

fn place_to_json(object: &mut serde_json::Value, place: &Place) {
    let (line, column) = place.line_column();
    let (end_line, end_column) = place.end_line_column();
    object["file"] = place.source.name.as_str().into();
    object["line"] = line.into();
    object["column"] = column.into();
    object["end_line"] = end_line.into();
    object["end_column"] = end_column.into();
    if let Some(text) = place.source.text.lines().nth(line - 1) {
        object["excerpt"] = text.chars().take(200).collect::<String>().into();
    }
}

/// Carets below what the place covers of its first line; a tab stays one, so that they stand where it does.
fn marks(place: &Place, line: &str, column: usize) -> Option<String> {
    let before = line.chars().take(column - 1);
    let pad: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
    let text = &place.source.text[place.start..place.end];
    let width = text.lines().next().unwrap_or_default().chars().count();
    let room = line.chars().count().checked_sub(column - 1)?;
    Some(pad + &"^".repeat(width.clamp(1, room.max(1))))
}

fn render_place(out: &mut String, place: &Place, remark: &str) {
    let (line, column) = place.line_column();
    let gap = if remark.is_empty() { "" } else { "  " };
    out.push_str(&format!("  --> {}:{line}:{column}{gap}{remark}\n", place.source.name));
    if let Some(text) = place.source.text.lines().nth(line - 1) {
        let shown: String = text.chars().take(200).collect();
        out.push_str(&format!("{line:>5} | {shown}\n"));
        if let Some(marks) = marks(place, &shown, column) {
            out.push_str(&format!("      | {marks}\n"));
        }
    }
}
