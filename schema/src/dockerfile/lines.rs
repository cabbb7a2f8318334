//! Text to logical lines: parser directives, comments, continuations, heredoc bodies.
//!
//! Errors: an unknown escape character, a repeated directive, an unterminated heredoc, a line over
//! [`LINE_BYTES_MAX`].

use super::lint::{Check, Finding};
use super::words::{self, Json};
use super::{Frontend, Heredoc, expand};
use crate::diagnostic::Diagnostic;
use crate::source::{Place, Source};
use std::sync::Arc;

/// The longest physical line, as in BuildKit.
const LINE_BYTES_MAX: usize = 65_535;

pub(super) struct Read {
    pub(super) escape: char,
    pub(super) lines: Vec<Line>,
    pub(super) frontend: Option<Frontend>,
    pub(super) check: Check,
    pub(super) findings: Vec<Finding>,
}

/// One instruction's text, joined.
#[derive(Debug)]
pub(super) struct Line {
    /// As written.
    pub(super) keyword: String,
    pub(super) flags: Vec<String>,
    /// What follows keyword and flags, without blanks around it.
    pub(super) arguments: String,
    /// All of it.
    pub(super) text: String,
    pub(super) place: Place,
    pub(super) heredocs: Vec<Heredoc>,
    /// The comments above, up to an empty one.
    pub(super) comments: Vec<String>,
}

impl Line {
    /// Upper case.
    pub(super) fn keyword(&self) -> String {
        self.keyword.to_uppercase()
    }

    /// What follows the keyword.
    pub(super) fn rest(&self) -> &str {
        words::first(self.text.trim()).map_or("", |(_, rest)| rest)
    }
}

/// A physical line: its bytes without the line end, and the same with it.
struct Physical<'a> {
    start: usize,
    text: &'a str,
    full: &'a str,
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    physical: Vec<Physical<'a>>,
    next: usize,
    escape: char,
    comments: Vec<String>,
    frontend: Option<Frontend>,
    findings: Vec<Finding>,
}

pub(super) fn read(source: &Arc<Source>) -> Result<Read, Box<Diagnostic>> {
    let mut reader = Reader {
        source,
        physical: split(&source.text),
        next: 0,
        escape: '\\',
        comments: Vec::new(),
        frontend: None,
        findings: Vec::new(),
    };
    if let Some(long) =
        reader.physical.iter().find(|line| line.full.trim_end_matches('\n').len() > LINE_BYTES_MAX)
    {
        let place = Place { source: source.clone(), start: long.start, end: long.start };
        return Err(Box::new(
            Diagnostic::error(format!("line longer than {LINE_BYTES_MAX} bytes")).at(place),
        ));
    }
    let check = reader.directives()?;
    let mut lines = Vec::new();
    while let Some(line) = reader.logical()? {
        lines.push(line);
    }
    let Reader { escape, frontend, findings, .. } = reader;
    Ok(Read { escape, lines, frontend, check, findings })
}

fn split(text: &str) -> Vec<Physical<'_>> {
    let mut start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut lines = Vec::new();
    for full in text[start..].split_inclusive('\n') {
        lines.push(Physical { start, text: full.trim_end_matches(['\n', '\r']), full });
        start += full.len();
    }
    lines
}

impl Reader<'_> {
    /// The block of `# key=value` comments at the very top.
    fn directives(&mut self) -> Result<Check, Box<Diagnostic>> {
        let mut seen: Vec<String> = Vec::new();
        let mut check = Check::default();
        while let Some((key, value)) = self.physical.get(self.next).and_then(|line| directive(line.text)) {
            let place = self.place(self.next, self.next);
            if seen.contains(&key) {
                let message = format!("only one {key} parser directive can be used");
                return Err(Box::new(Diagnostic::error(message).at(place)));
            }
            match key.as_str() {
                "syntax" => self.frontend = Some(Frontend { text: value.to_owned(), place }),
                "escape" => self.escape = escape_of(value, place)?,
                _ => {
                    check = Check::parse(value).map_err(|why| Box::new(Diagnostic::error(why).at(place)))?;
                }
            }
            seen.push(key);
            self.next += 1;
        }
        Ok(check)
    }

    fn logical(&mut self) -> Result<Option<Line>, Box<Diagnostic>> {
        let Some(first) = self.first_of_instruction() else { return Ok(None) };
        let text = self.join(first);
        let trimmed = text.trim();
        let (keyword, rest) = words::first(trimmed).unwrap_or((trimmed, ""));
        let (flags, arguments) = words::flags(rest, self.escape);
        let mut line = Line {
            keyword: keyword.to_owned(),
            flags,
            arguments: arguments.to_owned(),
            place: self.place(first, self.next - 1),
            heredocs: Vec::new(),
            comments: std::mem::take(&mut self.comments),
            text,
        };
        self.take_heredocs(&mut line, first)?;
        line.place = self.place(first, self.next - 1);
        Ok(Some(line))
    }

    /// The text of an instruction over all its continuations.
    fn join(&mut self, first: usize) -> String {
        let mut text = String::new();
        let mut open = self.append(first, true, &mut text);
        let mut has_gap = false;
        while open && self.next < self.physical.len() {
            let at = self.next;
            self.next += 1;
            let line = self.physical[at].text;
            if is_comment(line) {
                continue;
            }
            if line.trim().is_empty() {
                has_gap = true;
                continue;
            }
            open = self.append(at, false, &mut text);
        }
        if has_gap {
            let last = self.next - 1;
            let message = "an empty line inside a continued instruction";
            self.findings.push(Finding::new("NoEmptyContinuation", &self.place(last, last), message));
        }
        text
    }

    /// Skips blank lines and comments, which are kept.
    fn first_of_instruction(&mut self) -> Option<usize> {
        while let Some(line) = self.physical.get(self.next) {
            self.next += 1;
            if is_comment(line.text) {
                self.comment();
            } else if !line.text.trim().is_empty() {
                return Some(self.next - 1);
            }
        }
        None
    }

    /// The comment before the next line; an empty one ends those above it.
    fn comment(&mut self) {
        let text = self.physical[self.next - 1].text;
        // Behind an indentation the sign is part of it.
        let comment = text.get(1..).unwrap_or_default().trim();
        if comment.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(comment.to_owned());
        }
    }

    /// Adds a physical line without its continuation mark; true when one was there.
    fn append(&self, at: usize, first: bool, text: &mut String) -> bool {
        let line = self.physical[at].text;
        let line = if first { line.trim_start() } else { line };
        let (body, continued) = without_continuation(line, self.escape);
        text.push_str(body);
        continued
    }

    fn take_heredocs(&mut self, line: &mut Line, first: usize) -> Result<(), Box<Diagnostic>> {
        for mut heredoc in heredocs_of(line, self.escape) {
            let mut terminated = false;
            while let Some(body) = self.physical.get(self.next) {
                self.next += 1;
                let candidate =
                    if heredoc.strip_tabs { body.text.trim_start_matches('\t') } else { body.text };
                if candidate == heredoc.name {
                    terminated = true;
                    break;
                }
                heredoc.content.push_str(body.full);
            }
            if !terminated {
                let message = format!("unterminated heredoc `{}`", heredoc.name);
                let hint = format!("End it with a line that holds only `{}`.", heredoc.name);
                return Err(Box::new(Diagnostic::error(message).at(self.place(first, first)).hint(hint)));
            }
            line.heredocs.push(heredoc);
        }
        Ok(())
    }

    fn place(&self, first: usize, last: usize) -> Place {
        let begin = &self.physical[first];
        let indent = begin.text.len() - begin.text.trim_start().len();
        let end = &self.physical[last];
        Place { source: self.source.clone(), start: begin.start + indent, end: end.start + end.text.len() }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        // Two of them are an escaped escape character, not a continuation.
        Some(body) if !body.ends_with(escape) => (body, true),
        _ => (line, false),
    }
}

/// `# key=value` of a known key; a value of blanks alone is one of them.
fn directive(line: &str) -> Option<(String, &str)> {
    let is_blank = |c: char| matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ');
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let key = key.trim_matches(is_blank).to_ascii_lowercase();
    if value.is_empty() || !["syntax", "escape", "check"].contains(&key.as_str()) {
        return None;
    }
    let trimmed = value.trim_matches(is_blank);
    Some((key, if trimmed.is_empty() { " " } else { trimmed }))
}

fn escape_of(value: &str, place: Place) -> Result<char, Box<Diagnostic>> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        other => {
            let message = format!("invalid escape token `{other}`: it has to be ` or \\");
            Err(Box::new(Diagnostic::error(message).at(place)))
        }
    }
}

/// The heredocs a line announces, still without bodies.
fn heredocs_of(line: &Line, escape: char) -> Vec<Heredoc> {
    if !line.text.contains("<<") {
        return Vec::new();
    }
    let (keyword, arguments) = match line.keyword().as_str() {
        "ONBUILD" => {
            let (keyword, rest) = words::first(&line.arguments).unwrap_or((&line.arguments, ""));
            (keyword.to_uppercase(), words::flags(rest, escape).1)
        }
        keyword => (keyword.to_owned(), line.arguments.as_str()),
    };
    let is_json = || matches!(words::json_array(arguments), Some(Json::Strings(_)));
    if !["RUN", "COPY", "ADD"].contains(&keyword.as_str()) || is_json() {
        return Vec::new();
    }
    // Whatever the escape character of the file is.
    expand::split_as_written(&line.text).iter().filter_map(|word| heredoc(word)).collect()
}

/// `<<NAME`, `<<-NAME`, `3<<"NAME"`, `<< NAME`.
pub(super) fn heredoc(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let delimiter = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    let (name, had_quotes) = expand::unquoted(delimiter)?;
    Some(Heredoc { name, content: String::new(), strip_tabs, expand: !had_quotes })
}
