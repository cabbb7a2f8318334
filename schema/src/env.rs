//! Variables: where each came from, and the grammar of `.env` and `env_file`.
//!
//! One statement per line: `KEY=value`, `KEY: value`, `export KEY=value`, or a bare `KEY` that takes its value from outside
//! (dropped when there is none). `'…'` is literal (only `\'` is an escape), `"…"` knows escapes and variables, both may span
//! lines; an unquoted value ends at ` #` or the end of the line, is trimmed, and knows variables. Keys are letters, digits and
//! `_ . - [ ]`. The rules are docker compose's; a bare key on a last line without a newline is treated like any other.

use crate::diagnostic::{Diagnostic, Severity};
use crate::interpolate::{self, Lookup, Usage};
use crate::keypath::Trail;
use crate::source::{Place, Source};
use indexmap::IndexMap;
use std::sync::Arc;

/// Who set a variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The environment of the process.
    Process,
    /// A line of an env file.
    File(Place),
    /// A command-line flag or a rule of Compose, by name: `-p`, `COMPOSE_PROJECT_NAME`.
    Given(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    pub value: String,
    pub origin: Origin,
}

/// Variables in the order in which they were set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Env {
    variables: IndexMap<String, Variable>,
}

impl Env {
    /// The environment of a process, as pairs.
    pub fn process(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let variable = |(name, value)| (name, Variable { value, origin: Origin::Process });
        Self { variables: pairs.into_iter().map(variable).collect() }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|variable| variable.value.as_str())
    }

    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name)
    }

    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>, origin: Origin) {
        self.variables.insert(name.into(), Variable { value: value.into(), origin });
    }

    /// Adds what is not set yet: `self` wins.
    pub fn fill(&mut self, other: &Env) {
        for (name, variable) in &other.variables {
            if !self.variables.contains_key(name) {
                self.variables.insert(name.clone(), variable.clone());
            }
        }
    }

    /// Adds everything: `other` wins.
    pub fn overlay(&mut self, other: Env) {
        self.variables.extend(other.variables);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Variable)> {
        self.variables.iter().map(|(name, variable)| (name.as_str(), variable))
    }

    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }
}

/// What an env file says, and what is wrong in it.
#[derive(Debug, Default)]
pub struct Dotenv {
    pub variables: Env,
    pub diagnostics: Vec<Diagnostic>,
    /// Of variables, in values.
    pub usages: Vec<Usage>,
}

/// Reads the text of a `.env` or `env_file`. `lookup` gives the variables from outside; they win over earlier lines.
pub fn parse_dotenv(source: &Arc<Source>, lookup: &Lookup<'_>) -> Dotenv {
    parse_dotenv_after(source, &Env::default(), lookup)
}

/// The same for a file that follows others: what these say counts where neither `lookup` nor an earlier line says more.
pub fn parse_dotenv_after(source: &Arc<Source>, earlier: &Env, lookup: &Lookup<'_>) -> Dotenv {
    let mut reader = Reader { source, at: 0, lookup, earlier, out: Dotenv::default() };
    if source.text.starts_with('\u{feff}') {
        reader.at = '\u{feff}'.len_utf8();
    }
    while reader.skip_blank() {
        if let Err(diagnostic) = reader.statement() {
            reader.out.diagnostics.push(*diagnostic);
            break;
        }
    }
    reader.out
}

/// Reads an env file of `format: raw`: `KEY=value` with the value as it stands; a bare key takes its value from outside.
pub fn parse_raw(source: &Arc<Source>, lookup: &Lookup<'_>) -> Dotenv {
    let mut out = Dotenv::default();
    let mut at = 0;
    for line in source.text.split_inclusive('\n') {
        let start = at + (line.len() - line.trim_start().len());
        at += line.len();
        let text = line.trim_start().trim_end_matches(['\n', '\r']);
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let place = Place { source: source.clone(), start, end: start + text.len() };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, lookup(text.trim())),
        };
        if key.contains(char::is_whitespace) || key.is_empty() {
            let message = format!("the variable name `{key}` is empty or holds white space");
            out.diagnostics.push(Diagnostic::error(message).at(place));
        } else if let Some(value) = value {
            out.variables.set(key, value, Origin::File(place));
        }
    }
    out
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    at: usize,
    lookup: &'a Lookup<'a>,
    earlier: &'a Env,
    out: Dotenv,
}

type Fallible<T> = Result<T, Box<Diagnostic>>;

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.source.text[self.at..]
    }

    fn place(&self, start: usize, end: usize) -> Place {
        Place { source: self.source.clone(), start, end }
    }

    /// To the next statement; false at the end.
    fn skip_blank(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            let skipped = rest.len() - trimmed.len();
            let comment =
                if trimmed.starts_with('#') { trimmed.find('\n').unwrap_or(trimmed.len()) } else { 0 };
            self.at += skipped + comment;
            if comment == 0 {
                return !self.rest().is_empty();
            }
        }
    }

    fn statement(&mut self) -> Fallible<()> {
        if let Some(tail) = self.rest().strip_prefix("export") {
            let skipped = tail.len() - tail.trim_start_matches([' ', '\t']).len();
            if skipped > 0 {
                self.at += "export".len() + skipped;
            }
        }
        let start = self.at;
        let (key, has_value) = self.key()?;
        let place = self.place(start, start + key.len());
        if has_value {
            let value = self.value()?;
            self.out.variables.set(key, value, Origin::File(place));
        } else if let Some(value) = (self.lookup)(&key) {
            self.out.variables.set(key, value, Origin::File(place));
        }
        Ok(())
    }

    /// The key and whether a value follows; stands behind the separator then.
    fn key(&mut self) -> Fallible<(String, bool)> {
        let start = self.at;
        let rest = self.rest();
        let end = rest.find(['=', ':', '\n']).unwrap_or(rest.len());
        let key = rest[..end].trim_end().to_owned();
        let separator = rest[end..].chars().next();
        if let Some(bad) = key.find(|c: char| !is_key_char(c)) {
            let shown = key[bad..].chars().next().unwrap_or(' ');
            let place = self.place(start + bad, start + bad + shown.len_utf8());
            let message = match shown {
                ' ' | '\t' => format!("the variable name `{key}` holds white space"),
                _ => format!("unexpected character `{shown}` in the variable name `{key}`"),
            };
            return Err(Box::new(Diagnostic::error(message).at(place)));
        }
        if key.is_empty() {
            return Err(Box::new(
                Diagnostic::error("a variable name is missing").at(self.place(start, start + end)),
            ));
        }
        self.at = start + end + separator.map_or(0, char::len_utf8);
        Ok((key, matches!(separator, Some('=' | ':'))))
    }

    fn value(&mut self) -> Fallible<String> {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t', '\u{b}', '\u{c}', '\r', '\u{85}', '\u{a0}']);
        self.at += rest.len() - trimmed.len();
        match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => Ok(self.unquoted()),
        }
    }

    fn unquoted(&mut self) -> String {
        let start = self.at;
        let line = self.rest().split('\n').next().unwrap_or_default().to_owned();
        self.at += line.len();
        let value = line.split(" #").next().unwrap_or_default().trim_end().to_owned();
        self.expand(&value, start, start + value.len())
    }

    fn quoted(&mut self, quote: char) -> Fallible<String> {
        let start = self.at;
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            if c == quote && !escaped {
                let end = start + at + 1;
                self.at = end;
                return Ok(if quote == '"' { self.expand(&unescape(&value), start, end) } else { value });
            }
            if escaped && c != quote {
                value.push('\\');
            }
            if c == '\\' && !escaped {
                escaped = true;
                continue;
            }
            escaped = false;
            value.push(c);
        }
        let end = start + self.rest().lines().next().map_or(0, str::len);
        Err(Box::new(
            Diagnostic::error(format!("the quote {quote} is never closed")).at(self.place(start, end)),
        ))
    }

    fn expand(&mut self, value: &str, start: usize, end: usize) -> String {
        let mut findings = Vec::new();
        let variables = &self.out.variables;
        let lookup = |name: &str| {
            let read = || variables.get(name).or_else(|| self.earlier.get(name)).map(str::to_owned);
            (self.lookup)(name).or_else(read)
        };
        let value = interpolate::text(value, &lookup, &mut findings);
        let place = self.place(start, end);
        let (mut from, mut used) = (start, start);
        for finding in &findings {
            let usage = finding.usage(&place, &mut used);
            let diagnostic = finding.diagnose(&place, &mut from, &Trail::Root);
            let found = diagnostic.or_else(|| usage.as_ref().and_then(taken));
            self.out.diagnostics.extend(found.map(meant_literally));
            self.out.usages.extend(usage.filter(|_| self.out.usages.len() < interpolate::MOST_NOTED));
        }
        value
    }
}

/// `pa$word`: surely a dollar sign was meant, though there is a variable of that name.
fn taken(usage: &Usage) -> Option<Diagnostic> {
    let before = &usage.value.source.text[usage.value.start..usage.reference.start];
    let is_bare = usage.reference.is_text(&format!("${}", usage.name));
    let head = before.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_');
    let is_attached = head.len() < before.len() && !head.ends_with('$');
    let message = format!("`${0}` is taken as the variable `{0}`", usage.name);
    (is_bare && is_attached).then(|| Diagnostic::warning(message).at(usage.reference.clone()))
}

/// In an env file a `$` is often part of a password.
fn meant_literally(diagnostic: Diagnostic) -> Diagnostic {
    if diagnostic.hint.is_some() || diagnostic.severity == Severity::Error {
        return diagnostic;
    }
    diagnostic.hint("If a dollar sign is meant, write `$$`, or put the value in single quotes.")
}

fn is_key_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')
}

/// Escapes of a double-quoted value. `\$` becomes `$$`, which the expansion that follows turns into one dollar sign.
fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let (text, length) = escape(tail);
        out.push_str(&text);
        rest = &tail[length..];
    }
    out.push_str(rest);
    out
}

/// What stands for the escape after a backslash, and how many bytes it took.
fn escape(tail: &str) -> (String, usize) {
    let simple = match tail.chars().next() {
        Some('n') => "\n",
        Some('r') => "\r",
        Some('t') => "\t",
        Some('a') => "\u{7}",
        Some('b') => "\u{8}",
        Some('f') => "\u{c}",
        Some('v') => "\u{b}",
        Some('\\') => "\\",
        Some('"') => "\"",
        Some('$') => "$$",
        Some('0') => {
            let digits = tail.get(1..4).filter(|digits| digits.chars().all(|c| c.is_digit(8)));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
            return byte.map_or(("\\".into(), 0), |byte| (char::from(byte).to_string(), 4));
        }
        _ => return ("\\".into(), 0),
    };
    (simple.into(), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { name: ".env".into(), path: None, text: text.into() })
    }

    fn read(text: &str) -> Vec<(String, String)> {
        let lookup = |name: &str| (name == "OUT").then(|| "out".to_owned());
        let dotenv = parse_dotenv(&source(text), &lookup);
        assert!(dotenv.diagnostics.is_empty(), "{text:?}: {:?}", dotenv.diagnostics);
        dotenv.variables.iter().map(|(name, v)| (name.to_owned(), v.value.clone())).collect()
    }

    #[test]
    fn reads_the_grammar() {
        for (text, key, value) in [
            ("A=b", "A", "b"),
            ("A: b", "A", "b"),
            ("export A=b", "A", "b"),
            ("\u{feff}A=b", "A", "b"),
            ("# c\n\nA = b # c\n", "A", "b"),
            ("A=b#c", "A", "b#c"),
            ("A=", "A", ""),
            ("A='$X \\n \\' # '", "A", "$X \\n ' # "),
            ("A=\"x\\ty\\$Z \\\"q\\\" \\101 \\0101\"", "A", "x\ty$Z \"q\" \\101 A"),
            ("A=\"one\ntwo\"", "A", "one\ntwo"),
            ("OUT", "OUT", "out"),
            ("A=${OUT}-$$x", "A", "out-$x"),
            ("1.a-[b]=x\r\n", "1.a-[b]", "x"),
        ] {
            assert_eq!(read(text), [(key.to_owned(), value.to_owned())], "{text:?}");
        }
        assert_eq!(read("NOT_SET\n"), []);
        assert_eq!(read("A=1\nB=$A$OUT\n")[1].1, "1out");
    }

    #[test]
    fn refuses_bad_keys_with_their_place() {
        for (text, message) in [
            ("A=1\nB C=2", "the variable name `B C` holds white space"),
            ("A!=2", "unexpected character `!` in the variable name `A!`"),
            ("A=\"x", "the quote \" is never closed"),
        ] {
            let dotenv = parse_dotenv(&source(text), &|_| None);
            assert_eq!(dotenv.diagnostics[0].message, message);
        }
        let dotenv = parse_dotenv(&source("A=1\nB C=2"), &|_| None);
        assert_eq!(dotenv.diagnostics[0].place.as_ref().map(Place::line_column), Some((2, 2)));
    }

    #[test]
    fn raw_keeps_everything() {
        let dotenv =
            parse_raw(&source("A='x' # y \n#no\n  B=$C\nOUT\nGONE\n"), &|n| (n == "OUT").then(|| "o".into()));
        let read: Vec<_> = dotenv.variables.iter().map(|(n, v)| (n, v.value.as_str())).collect();
        assert_eq!(read, [("A", "'x' # y "), ("B", "$C"), ("OUT", "o")]);
        assert_eq!(parse_raw(&source("export A=1"), &|_| None).diagnostics.len(), 1);
    }
}
