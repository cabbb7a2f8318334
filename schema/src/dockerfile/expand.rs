//! Expansion of a word: variables with their modifiers, quotes and escapes.
//!
//! Two readings of the same text: [`Expander::word`] gives one string, [`Expander::words`] splits at
//! the blanks that were not quoted (also at those that came out of a variable). [`Expander::body`] is for
//! heredocs of COPY and ADD, where quotes are text. A variable nobody set is empty and is reported back, also
//! when a modifier has a value for that case.
//!
//! Errors: [`ExpandError`] says what cannot be understood; the caller knows the place.

use regex::{NoExpand, Regex};
use std::sync::LazyLock;

/// How deep `${a:-${b:-…}}` may nest.
const DEPTH_MAX: usize = 64;
/// The longest result, so that nested replacements cannot explode.
const RESULT_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("unexpected end of statement while looking for matching {0}")]
    Unclosed(&'static str),
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("invalid pattern ({0}) in substitution: only *, ?, \\, / and }} can be escaped")]
    Pattern(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("the expansion is nested too deeply or grows too long")]
    TooLarge,
}

type Result<T> = std::result::Result<T, ExpandError>;

/// The values that are visible at one instruction.
pub trait Variables {
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Expands words of one Dockerfile.
#[derive(Clone, Copy)]
pub struct Expander<'a> {
    pub escape: char,
    pub variables: &'a dyn Variables,
}

/// A result and the names that were used without being set, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded<T> {
    pub value: T,
    pub unset: Vec<String>,
}

impl Expander<'_> {
    /// One string, whatever blanks are in it.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn word(&self, text: &str) -> Result<Expanded<String>> {
        let (whole, _, unset) = self.run(text, Reading::default())?;
        Ok(Expanded { value: whole, unset })
    }

    /// Words, split at unquoted blanks after expansion.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn words(&self, text: &str) -> Result<Expanded<Vec<String>>> {
        let (_, words, unset) = self.run(text, Reading::default())?;
        Ok(Expanded { value: words, unset })
    }

    /// The body of a heredoc: quotes stay, variables and escapes are read.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn body(&self, text: &str) -> Result<Expanded<String>> {
        let reading = Reading { quotes_are_text: true, ..Reading::default() };
        let (whole, _, unset) = self.run(text, reading)?;
        Ok(Expanded { value: whole, unset })
    }

    fn run(&self, text: &str, reading: Reading) -> Result<(String, Vec<String>, Vec<String>)> {
        let mut scan = Scan {
            chars: text.strip_prefix('\u{feff}').unwrap_or(text).chars().collect(),
            at: 0,
            depth: 0,
            unset: Vec::new(),
            word: String::new(),
            keeps_escapes: reading.keeps_escapes,
            expander: *self,
            reading,
        };
        let (whole, words) = scan.until(None, reading.keeps_escapes)?;
        Ok((whole, words, scan.unset))
    }
}

/// Words of an instruction as they stand there, split where quotes and substitutions allow it; none if that cannot
/// be said.
pub(super) fn split_as_written(text: &str) -> Vec<String> {
    let reading =
        Reading { keeps_quotes: true, keeps_escapes: true, keeps_unset: true, ..Reading::default() };
    nothing_set().run(text, reading).map_or_else(|_| Vec::new(), |(_, words, _)| words)
}

/// The one word that a text is without its quotes, and whether it had some.
pub(super) fn unquoted(text: &str) -> Option<(String, bool)> {
    let read = |keeps_quotes: bool| {
        let reading = Reading { keeps_quotes, keeps_unset: true, ..Reading::default() };
        let (_, words, _) = nothing_set().run(text, reading).ok()?;
        <[String; 1]>::try_from(words).ok().map(|[word]| word)
    };
    let (word, with_quotes) = (read(false)?, read(true)?);
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let had_quotes = quotes(&word) != quotes(&with_quotes);
    Some((word, had_quotes))
}

fn nothing_set() -> Expander<'static> {
    Expander { escape: '\\', variables: &|_: &str| None }
}

/// What stays as it is written.
#[derive(Clone, Copy, Default)]
struct Reading {
    /// Quotes mean nothing.
    quotes_are_text: bool,
    keeps_quotes: bool,
    keeps_escapes: bool,
    /// A variable nobody set stays as it is written.
    keeps_unset: bool,
}

/// The words of one stretch of text. The unfinished one is the scan's: what is nested starts it anew, as in BuildKit,
/// so `a${x:-b}` is the word `b` where text is split.
#[derive(Default)]
struct Split {
    words: Vec<String>,
    in_word: bool,
}

struct Scan<'a> {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    unset: Vec<String>,
    word: String,
    keeps_escapes: bool,
    expander: Expander<'a>,
    reading: Reading,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// A character that a blank may be.
    fn plain(&mut self, c: char, split: &mut Split) {
        if !c.is_whitespace() {
            self.word.push(c);
            split.in_word = true;
        } else if split.in_word && !self.word.is_empty() {
            split.words.push(std::mem::take(&mut self.word));
            split.in_word = false;
        }
    }

    /// Text whose blanks are part of the word.
    fn quoted(&mut self, text: &str, split: &mut Split) {
        self.word.push_str(text);
        split.in_word = true;
    }

    fn finish(&mut self, mut split: Split) -> Vec<String> {
        if !self.word.is_empty() {
            split.words.push(std::mem::take(&mut self.word));
        }
        split.words
    }

    /// Reads up to `stop` (which is eaten) or the end. `keeps_escapes` leaves them for a pattern.
    fn until(&mut self, stop: Option<char>, keeps_escapes: bool) -> Result<(String, Vec<String>)> {
        let outer = std::mem::replace(&mut self.keeps_escapes, keeps_escapes);
        let read = self.read_until(stop);
        self.keeps_escapes = outer;
        read
    }

    fn read_until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>)> {
        self.word.clear();
        let (mut whole, mut split) = (String::new(), Split::default());
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok((whole, self.finish(split)));
            }
            if whole.len() > RESULT_BYTES_MAX {
                return Err(ExpandError::TooLarge);
            }
            self.piece(c, &mut whole, &mut split)?;
        }
        match stop {
            None => Ok((whole, self.finish(split))),
            Some('/') => Err(ExpandError::Unclosed("/")),
            Some(_) => Err(ExpandError::Unclosed("}")),
        }
    }

    fn piece(&mut self, c: char, whole: &mut String, split: &mut Split) -> Result<()> {
        let quotes_count = !self.reading.quotes_are_text;
        let quoted = match c {
            '$' => {
                let value = self.dollar()?;
                value.chars().for_each(|c| self.plain(c, split));
                whole.push_str(&value);
                return Ok(());
            }
            '<' => self.less(),
            '\'' if quotes_count => self.single()?,
            '"' if quotes_count => self.double()?,
            c if c == self.expander.escape => self.escaped(c),
            c => {
                self.at += 1;
                self.plain(c, split);
                whole.push(c);
                return Ok(());
            }
        };
        if !quoted.is_empty() || c != self.expander.escape {
            self.quoted(&quoted, split);
        }
        whole.push_str(&quoted);
        Ok(())
    }

    /// An escape stands for what follows it, and for nothing at the end.
    fn escaped(&mut self, escape: char) -> String {
        self.at += 1;
        let kept = self.keeps_escapes.then_some(escape);
        kept.into_iter().chain(self.next()).collect()
    }

    /// `<<` keeps the blanks before a heredoc's name.
    fn less(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".into();
        }
        self.at += 1;
        let begin = self.at;
        self.skip(|c| matches!(c, '\t' | '\r' | ' '));
        let blanks: String = self.chars[begin..self.at].iter().collect();
        format!("<<{blanks}")
    }

    fn quote(&self, quote: char) -> String {
        if self.reading.keeps_quotes { quote.into() } else { String::new() }
    }

    fn single(&mut self) -> Result<String> {
        self.at += 1;
        let mut text = self.quote('\'');
        loop {
            match self.next().ok_or(ExpandError::Unclosed("single quote"))? {
                '\'' => return Ok(text + &self.quote('\'')),
                c => text.push(c),
            }
        }
    }

    fn double(&mut self) -> Result<String> {
        self.at += 1;
        let mut text = self.quote('"');
        loop {
            match self.peek().ok_or(ExpandError::Unclosed("double quote"))? {
                '"' => {
                    self.at += 1;
                    return Ok(text + &self.quote('"'));
                }
                '$' => text.push_str(&self.dollar()?),
                c => {
                    self.at += 1;
                    self.in_double(c, &mut text);
                }
            }
        }
    }

    /// Inside double quotes only `"`, `$` and the escape itself can be escaped.
    fn in_double(&mut self, c: char, text: &mut String) {
        let escape = self.expander.escape;
        if c != escape {
            text.push(c);
            return;
        }
        let escaped = self.peek().filter(|next| ['"', '$', escape].contains(next));
        if self.keeps_escapes {
            text.push(c);
        }
        // Before anything else it stands for itself.
        text.push(escaped.unwrap_or(c));
        self.at += usize::from(escaped.is_some());
    }

    /// `$name` or `${…}`, from the dollar on.
    fn dollar(&mut self) -> Result<String> {
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        Ok(self.value(&name).unwrap_or_else(|| self.kept(|| format!("${name}"))))
    }

    /// Of a variable nobody set: what is written, if that is wanted.
    fn kept(&self, written: impl Fn() -> String) -> String {
        if self.reading.keeps_unset { written() } else { String::new() }
    }

    /// Letters, digits and `_`; a leading digit takes digits only; else one special parameter.
    fn name(&mut self) -> String {
        let begin = self.at;
        match self.peek() {
            Some(c) if is_digit(c) => self.skip(is_digit),
            Some(c) if "@*#?-$!".contains(c) => self.at += 1,
            _ => self.skip(|c| is_letter(c) || is_digit(c) || c == '_'),
        }
        self.chars[begin..self.at].iter().collect()
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.expander.variables.get(name);
        if value.is_none() && !self.unset.iter().any(|unset| unset == name) {
            self.unset.push(name.to_owned());
        }
        value
    }

    fn braced(&mut self) -> Result<String> {
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            return Err(ExpandError::BadSubstitution);
        }
        let name = self.name();
        match self.next().ok_or(ExpandError::Unclosed("}"))? {
            '}' => Ok(self.value(&name).unwrap_or_else(|| self.kept(|| format!("${{{name}}}")))),
            ':' => {
                let sign = self.next().ok_or(ExpandError::Unclosed("}"))?;
                if !"-+?".contains(sign) {
                    return Err(ExpandError::Modifier(format!(":{sign}")));
                }
                self.alternative(&name, sign, true)
            }
            sign @ ('-' | '+' | '?') => self.alternative(&name, sign, false),
            sign @ ('#' | '%') => self.trim(&name, sign),
            '/' => self.replace(&name),
            other => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    /// The text up to `stop`, itself expanded.
    fn nested(&mut self, stop: char, keeps_escapes: bool) -> Result<String> {
        if self.depth == DEPTH_MAX {
            return Err(ExpandError::TooLarge);
        }
        self.depth += 1;
        let result = self.until(Some(stop), keeps_escapes);
        self.depth -= 1;
        result.map(|(whole, _)| whole)
    }

    fn alternative(&mut self, name: &str, sign: char, empty_is_unset: bool) -> Result<String> {
        let word = self.nested('}', false)?;
        let value = self.value(name);
        if value.is_none() && self.reading.keeps_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{sign}{word}}}"));
        }
        let is_set = value.as_ref().is_some_and(|value| !empty_is_unset || !value.is_empty());
        match (sign, is_set) {
            ('-', true) | ('?', true) => Ok(value.unwrap_or_default()),
            ('-', false) | ('+', true) => Ok(word),
            ('+', false) => Ok(String::new()),
            _ => {
                let why =
                    if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { why.to_owned() } else { word };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
        }
    }

    fn trim(&mut self, name: &str, sign: char) -> Result<String> {
        let word = self.nested('}', true)?;
        let value = self.value(name);
        if value.is_none() && self.reading.keeps_unset {
            return Ok(format!("${{{name}{sign}{word}}}"));
        }
        let value = value.unwrap_or_default();
        // The second sign may come out of a variable.
        let (pattern, longest) = word.strip_prefix(sign).map_or((word.as_str(), false), |rest| (rest, true));
        if sign == '#' {
            return trim_prefix(&value, pattern, longest);
        }
        // The shortest end is found as the shortest beginning of everything turned round.
        Ok(reversed(&trim_prefix(&reversed(&value), &reversed_pattern(pattern), longest)?))
    }

    fn replace(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.nested('/', true)?;
        let replacement = self.nested('}', true)?;
        let value = self.value(name);
        if value.is_none() && self.reading.keeps_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let regex = pattern_regex(&pattern, true)?;
        let replaced = if all {
            let template = template(&replacement);
            regex.replace_all(&value, template.as_str())
        } else {
            regex.replacen(&value, 1, NoExpand(&replacement))
        };
        if replaced.len() > RESULT_BYTES_MAX { Err(ExpandError::TooLarge) } else { Ok(replaced.into_owned()) }
    }
}

static LETTER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{L}$").expect("a constant that compiles"));
static DIGIT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{Nd}$").expect("a constant that compiles"));

fn is_of(class: &Regex, c: char) -> bool {
    class.is_match(c.encode_utf8(&mut [0; 4]))
}

fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { is_of(&LETTER, c) }
}

fn is_digit(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { is_of(&DIGIT, c) }
}

/// A shell pattern that knows `*`, `?` and `\`. Neither sign stands for a line end.
fn pattern_regex(pattern: &str, greedy: bool) -> Result<Regex> {
    let wrong = || ExpandError::Pattern(pattern.to_owned());
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            // What ends a part of `${…}` is escaped for that alone.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\')) => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
                _ => return Err(wrong()),
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&out).map_err(|_| wrong())
}

/// Where all is replaced, `$0` and `${0}` are what was found, other names nothing, and `$$` a dollar. What is no name is
/// text, also in braces.
fn template(replacement: &str) -> String {
    let mut out = String::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let is_part = |c: char| is_letter(c) || is_digit(c) || c == '_';
        let braced =
            after.strip_prefix('{').and_then(|inner| inner.split_once(|c| !is_part(c)).map(|(n, _)| n));
        let braced = braced.filter(|name| !name.is_empty() && after[name.len() + 1..].starts_with('}'));
        let plain = &after[..after.find(|c| !is_part(c)).unwrap_or(after.len())];
        rest = match (braced, after.strip_prefix('$')) {
            (_, Some(after)) => {
                out.push_str("$$");
                after
            }
            (Some(name), _) => {
                out.push_str(if name == "0" { "${0}" } else { "" });
                &after[name.len() + 2..]
            }
            (None, _) if !plain.is_empty() => {
                out.push_str(if plain == "0" { "${0}" } else { "" });
                &after[plain.len()..]
            }
            _ => {
                out.push_str("$$");
                after
            }
        };
    }
    out + rest
}

fn trim_prefix(value: &str, pattern: &str, longest: bool) -> Result<String> {
    let regex = pattern_regex(pattern, longest)?;
    let anchored =
        Regex::new(&format!("^(?:{regex})")).map_err(|_| ExpandError::Pattern(pattern.to_owned()))?;
    let end = anchored.find(value).map_or(0, |found| found.end());
    Ok(value[end..].to_owned())
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

/// An escape stays before what it escapes.
fn reversed_pattern(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        pieces.push([Some(c), escaped]);
    }
    pieces.into_iter().rev().flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "set" => "value",
            "empty" => "",
            "list" => "a b  c",
            "path" => "/usr/local/lib/x.tar.gz",
            "n1" => "one",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn word(text: &str) -> std::result::Result<String, String> {
        let expander = Expander { escape: '\\', variables: &variables };
        expander.word(text).map(|e| e.value).map_err(|e| e.to_string())
    }

    fn ok(text: &str) -> String {
        word(text).expect(text)
    }

    #[test]
    fn plain_and_braced() {
        assert_eq!(ok("$set-${set}x"), "value-valuex");
        assert_eq!(ok("$set.$n1"), "value.one");
        assert_eq!(ok("a$"), "a$");
        assert_eq!(ok("$ x"), "$ x");
        assert_eq!(ok("<$missing>"), "<>");
    }

    #[test]
    fn alternatives() {
        for (text, expected) in [
            ("${missing:-w}", "w"),
            ("${empty:-w}", "w"),
            ("${empty-w}", ""),
            ("${set:-w}", "value"),
            ("${set:+w}", "w"),
            ("${empty:+w}", ""),
            ("${empty+w}", "w"),
            ("${missing+w}", ""),
            ("${missing:-$set}", "value"),
            ("${missing:-${other:-deep}}", "deep"),
            ("${missing:-a b}", "a b"),
            ("${set:?no}", "value"),
        ] {
            assert_eq!(ok(text), expected, "{text}");
        }
        assert_eq!(word("${missing:?say it}"), Err("missing: say it".into()));
        assert_eq!(word("${empty:?}"), Err("empty: is not allowed to be empty".into()));
        assert_eq!(ok("${empty?}"), "");
    }

    #[test]
    fn patterns() {
        for (text, expected) in [
            ("${path#*/}", "usr/local/lib/x.tar.gz"),
            ("${path##*/}", "x.tar.gz"),
            ("${path%.*}", "/usr/local/lib/x.tar"),
            ("${path%%.*}", "/usr/local/lib/x"),
            ("${path#nope}", "/usr/local/lib/x.tar.gz"),
            ("${path/l/L}", "/usr/Local/lib/x.tar.gz"),
            ("${path//l/L}", "/usr/LocaL/Lib/x.tar.gz"),
            (r"${path//\//_}", "_usr_local_lib_x.tar.gz"),
            ("${path/lib*/}", "/usr/local/"),
            ("${set/a?/-}", "v-ue"),
        ] {
            assert_eq!(ok(text), expected, "{text}");
        }
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(ok(r"\$set"), "$set");
        assert_eq!(ok("'$set'"), "$set");
        assert_eq!(ok("\"$set's\""), "value's");
        assert_eq!(ok(r#""\$set \"x\" \n""#), r#"$set "x" \n"#);
        assert_eq!(ok(r"a\ b\n"), "a bn");
        assert_eq!(ok(r"C:\\dir"), r"C:\dir");
    }

    #[test]
    fn oddities_of_buildkit() {
        for (text, expected) in [
            // Escapes stay in a replacement, and where all is replaced names are nothing.
            (r"${set/a/\}}", r"v\}lue"),
            ("${set//a/'$0$1${x}$-'}", "va$-lue"),
            // The second sign may be a value, and neither sign is a line end.
            ("${path#'#*/'}", "x.tar.gz"),
            ("\u{feff}x", "x"),
            ("<< \t x", "<< \t x"),
        ] {
            assert_eq!(ok(text), expected, "{text}");
        }
        let expander = Expander { escape: '\\', variables: &variables };
        let words = |text: &str| expander.words(text).expect(text).value;
        assert_eq!(words("a${missing:-b}c d"), ["bc", "d"]);
        assert_eq!(words("<< x y"), ["<< x", "y"]);
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for text in [
            r"${set#\a}",
            r"${set/\x/y}",
            "'open",
            "\"open",
            "${set",
            "${}",
            "${:-x}",
            "${{set}}",
            "${set:=x}",
            "${set!x}",
            "${set:-x",
            "${set/x",
        ] {
            assert!(word(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_split_only_at_unquoted_blanks() {
        let expander = Expander { escape: '\\', variables: &variables };
        let words = |text: &str| expander.words(text).expect(text).value;
        assert_eq!(words("$list"), ["a", "b", "c"]);
        assert_eq!(words("\"$list\""), ["a b  c"]);
        assert_eq!(words("80 443/tcp"), ["80", "443/tcp"]);
        assert_eq!(words("a\\ b 'c d'"), ["a b", "c d"]);
        assert!(words("$empty").is_empty());
    }

    #[test]
    fn heredoc_bodies_keep_quotes_and_read_escapes() {
        let expander = Expander { escape: '\\', variables: &variables };
        let body = expander.body("'$set' \"$set\" \\$set \\n \\\\").expect("valid");
        assert_eq!(body.value, "'value' \"value\" $set n \\");
    }

    #[test]
    fn unset_names_are_reported() {
        let expander = Expander { escape: '\\', variables: &variables };
        assert_eq!(expander.word("$a$set${b}${c:-d}$a").expect("valid").unset, ["a", "b", "c"]);
    }

    #[test]
    fn the_other_escape_character() {
        let expander = Expander { escape: '`', variables: &variables };
        assert_eq!(expander.word(r"C:\$set`$set").expect("valid").value, r"C:\value$set");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[$a-c{}:?%#/*'\"\\\\ éß+-]{0,30}") {
            let expander = Expander { escape: '\\', variables: &variables };
            let _ = (expander.word(&text), expander.words(&text), expander.body(&text));
        }

        #[test]
        fn text_without_signs_is_itself(text in "[a-zA-Z0-9 ,./=@é-]{0,30}") {
            let expander = Expander { escape: '\\', variables: &variables };
            proptest::prop_assert_eq!(expander.word(&text).map(|e| e.value), Ok(text));
        }
    }
}
