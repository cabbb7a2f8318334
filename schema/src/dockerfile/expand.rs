//! Expansion of a word: variables with their modifiers, quotes and escapes.
//!
//! Two readings of the same text: [`Expander::word`] gives one string, [`Expander::words`] splits at
//! the blanks that were not quoted (also at those that came out of a variable). [`Expander::body`] is for
//! heredocs of COPY and ADD, where quotes are text. A variable nobody set is empty and is reported back.
//!
//! Errors: [`ExpandError`] says what cannot be understood; the caller knows the place.

use regex::Regex;

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

/// A result and the names that were used without being set.
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
        let (whole, _, unset) = self.run(text, Quotes::Meant)?;
        Ok(Expanded { value: whole, unset })
    }

    /// Words, split at unquoted blanks after expansion.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn words(&self, text: &str) -> Result<Expanded<Vec<String>>> {
        let (_, words, unset) = self.run(text, Quotes::Meant)?;
        Ok(Expanded { value: words, unset })
    }

    /// The body of a heredoc: quotes stay, variables and escapes are read.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn body(&self, text: &str) -> Result<Expanded<String>> {
        let (whole, _, unset) = self.run(text, Quotes::Text)?;
        Ok(Expanded { value: whole, unset })
    }

    fn run(&self, text: &str, quotes: Quotes) -> Result<(String, Vec<String>, Vec<String>)> {
        let mut scan = Scan {
            chars: text.chars().collect(),
            at: 0,
            depth: 0,
            unset: Vec::new(),
            expander: *self,
            quotes,
        };
        let mut out = Out::default();
        scan.until(None, false, &mut out)?;
        let (whole, words) = out.finish();
        Ok((whole, words, scan.unset))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Quotes {
    Meant,
    Text,
}

/// The result in both readings.
#[derive(Default)]
struct Out {
    whole: String,
    words: Vec<String>,
    word: String,
}

impl Out {
    /// A character that a blank may be.
    fn plain(&mut self, c: char) {
        self.whole.push(c);
        if c.is_whitespace() {
            self.end_word();
        } else {
            self.word.push(c);
        }
    }

    /// Text whose blanks are part of the word.
    fn quoted(&mut self, text: &str) {
        self.whole.push_str(text);
        self.word.push_str(text);
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> (String, Vec<String>) {
        self.end_word();
        (self.whole, self.words)
    }
}

struct Scan<'a> {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    unset: Vec<String>,
    expander: Expander<'a>,
    quotes: Quotes,
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

    /// Reads up to `stop` (which is eaten) or the end. `keep_escapes` leaves them for a pattern.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool, out: &mut Out) -> Result<()> {
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok(());
            }
            if out.whole.len() > RESULT_BYTES_MAX {
                return Err(ExpandError::TooLarge);
            }
            self.piece(c, keep_escapes, out)?;
        }
        match stop {
            None => Ok(()),
            Some('/') => Err(ExpandError::Unclosed("/")),
            Some(_) => Err(ExpandError::Unclosed("}")),
        }
    }

    fn piece(&mut self, c: char, keep_escapes: bool, out: &mut Out) -> Result<()> {
        match c {
            '$' => self.dollar()?.chars().for_each(|c| out.plain(c)),
            '\'' if self.quotes == Quotes::Meant => out.quoted(&self.single()?),
            '"' if self.quotes == Quotes::Meant => out.quoted(&self.double(keep_escapes)?),
            c if c == self.expander.escape => {
                self.at += 1;
                if keep_escapes {
                    out.quoted(c.encode_utf8(&mut [0; 4]));
                }
                if let Some(next) = self.next() {
                    out.quoted(next.encode_utf8(&mut [0; 4]));
                }
            }
            c => {
                self.at += 1;
                out.plain(c);
            }
        }
        Ok(())
    }

    fn single(&mut self) -> Result<String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next().ok_or(ExpandError::Unclosed("single quote"))? {
                '\'' => return Ok(text),
                c => text.push(c),
            }
        }
    }

    fn double(&mut self, keep_escapes: bool) -> Result<String> {
        self.at += 1;
        let escape = self.expander.escape;
        let mut text = String::new();
        loop {
            match self.peek().ok_or(ExpandError::Unclosed("double quote"))? {
                '"' => {
                    self.at += 1;
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                c => {
                    self.at += 1;
                    self.in_double(c, escape, keep_escapes, &mut text);
                }
            }
        }
    }

    /// Inside double quotes only `"`, `$` and the escape itself can be escaped.
    fn in_double(&mut self, c: char, escape: char, keep_escapes: bool, text: &mut String) {
        let escaped = self.peek().filter(|next| c == escape && ['"', '$', escape].contains(next));
        if escaped.is_none() || keep_escapes {
            text.push(c);
        }
        if let Some(next) = escaped {
            self.at += 1;
            text.push(next);
        }
    }

    /// `$name` or `${…}`, from the dollar on.
    fn dollar(&mut self) -> Result<String> {
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braced();
        }
        let name = self.name();
        Ok(if name.is_empty() { "$".into() } else { self.value_or_empty(&name) })
    }

    /// Letters, digits and `_`; a leading digit takes digits only; else one special parameter.
    fn name(&mut self) -> String {
        let begin = self.at;
        let first = self.peek();
        match first {
            Some(c) if c.is_ascii_digit() => self.skip(|c| c.is_ascii_digit()),
            Some(c) if "@*#?-$!".contains(c) => self.at += 1,
            _ => self.skip(|c| c.is_alphanumeric() || c == '_'),
        }
        self.chars[begin..self.at].iter().collect()
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn value(&mut self, name: &str) -> Option<String> {
        self.expander.variables.get(name)
    }

    fn value_or_empty(&mut self, name: &str) -> String {
        self.value(name).unwrap_or_else(|| {
            self.unset.push(name.to_owned());
            String::new()
        })
    }

    fn braced(&mut self) -> Result<String> {
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            return Err(ExpandError::BadSubstitution);
        }
        let name = self.name();
        match self.next().ok_or(ExpandError::Unclosed("}"))? {
            '}' => Ok(self.value_or_empty(&name)),
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
    fn nested(&mut self, stop: char, keep_escapes: bool) -> Result<String> {
        if self.depth == DEPTH_MAX {
            return Err(ExpandError::TooLarge);
        }
        self.depth += 1;
        let mut out = Out::default();
        let result = self.until(Some(stop), keep_escapes, &mut out);
        self.depth -= 1;
        result.map(|()| out.finish().0)
    }

    fn alternative(&mut self, name: &str, sign: char, empty_is_unset: bool) -> Result<String> {
        let word = self.nested('}', false)?;
        let value = self.value(name);
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
        let longest = self.peek() == Some(sign);
        if longest {
            self.at += 1;
        }
        let pattern = self.nested('}', true)?;
        let value = self.value_or_empty(name);
        Ok(if sign == '#' {
            trim_prefix(&value, &pattern, longest)
        } else {
            trim_suffix(&value, &pattern, longest)
        })
    }

    fn replace(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.nested('/', true)?;
        let replacement = self.nested('}', false)?;
        let value = self.value_or_empty(name);
        let limit = if all { 0 } else { 1 };
        let regex = pattern_regex(&pattern, true);
        let replaced = regex.replacen(&value, limit, regex::NoExpand(&replacement)).into_owned();
        if replaced.len() > RESULT_BYTES_MAX { Err(ExpandError::TooLarge) } else { Ok(replaced) }
    }
}

/// A shell pattern that knows `*`, `?` and `\`.
fn pattern_regex(pattern: &str, greedy: bool) -> Regex {
    let mut out = String::from("(?s)");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            '\\' => out.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    // Only a pattern beyond the automaton's size limit can fail; such a one matches nothing.
    Regex::new(&out).unwrap_or_else(|_| Regex::new("[^\\s\\S]").expect("a constant that compiles"))
}

fn anchored(pattern: &str) -> Regex {
    let inner = pattern_regex(pattern, true);
    let whole = format!("^(?:{})$", inner.as_str());
    Regex::new(&whole).unwrap_or(inner)
}

fn boundaries(value: &str) -> Vec<usize> {
    value.char_indices().map(|(at, _)| at).chain([value.len()]).collect()
}

fn trim_prefix(value: &str, pattern: &str, longest: bool) -> String {
    let whole = anchored(pattern);
    let mut ends = boundaries(value);
    if longest {
        ends.reverse();
    }
    let end = ends.into_iter().find(|end| whole.is_match(&value[..*end]));
    value[end.unwrap_or(0)..].to_owned()
}

fn trim_suffix(value: &str, pattern: &str, longest: bool) -> String {
    let whole = anchored(pattern);
    let mut starts = boundaries(value);
    if !longest {
        starts.reverse();
    }
    let start = starts.into_iter().find(|start| whole.is_match(&value[*start..]));
    value[..start.unwrap_or(value.len())].to_owned()
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
    fn what_cannot_be_understood_is_an_error() {
        for text in [
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
        assert_eq!(expander.word("$a$set${b}${c:-d}").expect("valid").unset, ["a", "b"]);
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
