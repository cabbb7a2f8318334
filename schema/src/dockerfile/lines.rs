//! Text to logical lines: parser directives, comments, continuations, heredoc bodies.
//!
//! Errors: an unknown escape character, a repeated directive, a foreign `# syntax=`, an unterminated
//! heredoc, a line over [`LINE_BYTES_MAX`].

use super::lint::{Check, Finding};
use super::{Heredoc, words};
use crate::diagnostic::Diagnostic;
use crate::source::{Place, Source};
use std::sync::Arc;

/// The longest physical line, as in BuildKit.
const LINE_BYTES_MAX: usize = 65_535;
/// Frontends whose language this parser speaks.
const OWN_FRONTENDS: [&str; 4] = [
    "docker/dockerfile",
    "docker/dockerfile-upstream",
    "docker.io/docker/dockerfile",
    "docker.io/docker/dockerfile-upstream",
];

pub(super) struct Read {
    pub(super) escape: char,
    pub(super) lines: Vec<Line>,
    pub(super) check: Check,
    pub(super) findings: Vec<Finding>,
}

/// One instruction's text, joined.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) place: Place,
    pub(super) heredocs: Vec<Heredoc>,
}

impl Line {
    /// Upper case.
    pub(super) fn keyword(&self) -> String {
        self.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
    }

    /// What follows the keyword.
    pub(super) fn rest(&self) -> &str {
        let text = self.text.trim();
        text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim())
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
    findings: Vec<Finding>,
}

pub(super) fn read(source: &Arc<Source>) -> Result<Read, Box<Diagnostic>> {
    let mut reader =
        Reader { source, physical: split(&source.text), next: 0, escape: '\\', findings: Vec::new() };
    if let Some(long) = reader.physical.iter().find(|line| line.text.len() > LINE_BYTES_MAX) {
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
    Ok(Read { escape: reader.escape, lines, check, findings: reader.findings })
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
                "syntax" => accept_frontend(value, place)?,
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
        while let Some(first) = self.first_of_instruction() {
            let (text, last) = self.join(first);
            let place = self.place(first, last);
            let mut line = Line { text: text.trim().to_owned(), place, heredocs: Vec::new() };
            self.take_heredocs(&mut line, first)?;
            if !line.text.is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The text of an instruction over all its continuations, and its last physical line.
    fn join(&mut self, first: usize) -> (String, usize) {
        let mut text = String::new();
        let mut open = self.append(first, true, &mut text);
        let (mut last, mut has_gap) = (first, false);
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
            last = at;
        }
        if has_gap {
            let message = "an empty line inside a continued instruction";
            self.findings.push(Finding::new("NoEmptyContinuation", &self.place(last, last), message));
        }
        (text, last)
    }

    /// Skips blank lines and comments.
    fn first_of_instruction(&mut self) -> Option<usize> {
        while let Some(line) = self.physical.get(self.next) {
            self.next += 1;
            if !line.text.trim().is_empty() && !is_comment(line.text) {
                return Some(self.next - 1);
            }
        }
        None
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

fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let key = key.trim().to_ascii_lowercase();
    let value = value.trim();
    (["syntax", "escape", "check"].contains(&key.as_str()) && !value.is_empty()).then_some((key, value))
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

/// The reference's frontend is served here, whatever its version; others would be programs to pull and run.
fn accept_frontend(value: &str, place: Place) -> Result<(), Box<Diagnostic>> {
    let reference = value.split_whitespace().next().unwrap_or_default();
    let name = reference.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    };
    if OWN_FRONTENDS.contains(&name) {
        return Ok(());
    }
    let message = format!("the frontend `{reference}` is not supported");
    let hint = "Only the language of `docker/dockerfile` is built in; other frontends are not run.";
    Err(Box::new(Diagnostic::error(message).at(place).hint(hint)))
}

/// The heredocs a line announces, still without bodies.
fn heredocs_of(line: &Line, escape: char) -> Vec<Heredoc> {
    let mut keyword = line.keyword();
    let mut rest = line.rest();
    if keyword == "ONBUILD" {
        let (inner, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        keyword = inner.to_ascii_uppercase();
        rest = after;
    }
    if !["RUN", "COPY", "ADD"].contains(&keyword.as_str()) || !rest.contains("<<") {
        return Vec::new();
    }
    let Ok((_, arguments)) = words::flags(rest) else { return Vec::new() };
    if words::json_array(arguments).is_some() {
        return Vec::new();
    }
    words::raw(arguments, escape).iter().filter_map(|word| heredoc(word, escape)).collect()
}

/// `<<NAME`, `<<-NAME`, `3<<"NAME"`.
pub(super) fn heredoc(word: &str, escape: char) -> Option<Heredoc> {
    let (strip_tabs, delimiter) =
        match word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")? {
            rest if rest.starts_with('-') => (true, &rest[1..]),
            rest => (false, rest),
        };
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    let name = words::unquote(delimiter, escape)?;
    let expand = name == delimiter;
    (!name.is_empty()).then_some(Heredoc { name, content: String::new(), strip_tabs, expand })
}
