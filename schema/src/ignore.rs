//! Ignore patterns: `.dockerignore` files, the builder's `--exclude`, and the watcher's `ignore` lists.
//!
//! Shape: one pattern per line, each anchored at the root of the tree. `*` and `?` stay inside one
//! name, `**` spans any number of directories, `[a-z]` is a class, `\` takes the next character
//! literally. A leading `!` takes a path back in. The last pattern that decides wins, and a pattern
//! that names a directory also decides for everything below it.
//!
//! Errors: [`PatternError`] for an unfinished class or escape and for a lone `!`.
//! Source of the rules: Docker's reference of `.dockerignore`, checked against its matcher's behaviour
//! (not gitignore: `foo` matches `/foo` only, `{a,b}` is literal, paths are cleaned first). That matcher
//! makes a regular expression of most patterns, which shows where they are odd; [`regular`] has that.

mod regular;

use regex::Regex;
use regular::Matcher;

/// Longest pattern accepted, in bytes; more is an error, so a hostile file cannot buy a huge automaton.
const PATTERN_BYTES_MAX: usize = 4096;
/// The longest line of an ignore file, as in Docker.
const LINE_BYTES_MAX: usize = 65_535;
/// Most patterns of one list.
const PATTERNS_MAX: usize = 10_000;

/// A pattern that cannot be understood; `line` is 1-based.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern `{pattern}`: {reason}")]
pub struct PatternError {
    pub line: usize,
    pub pattern: String,
    pub reason: &'static str,
}

/// An ordered list of patterns.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    rules: Vec<Rule>,
}

impl Patterns {
    /// Reads an ignore file: `#` in the first column is a comment, blanks around a pattern are dropped.
    ///
    /// # Errors
    /// [`PatternError`] of the first line that is no pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Self::collect(lines(text)?.iter().map(|(line, pattern)| (*line, pattern.as_str())))?.usable()
    }

    /// From separate patterns (no comments), as in a YAML list or a flag.
    ///
    /// # Errors
    /// [`PatternError`]; `line` counts the items.
    pub fn from_list<S: AsRef<str>>(items: &[S]) -> Result<Self, PatternError> {
        Self::read(items)?.usable()
    }

    /// As [`from_list`](Self::from_list), but what only turns out to be wrong in use may be there.
    ///
    /// # Errors
    /// [`PatternError`]; `line` counts the items.
    pub fn read<S: AsRef<str>>(items: &[S]) -> Result<Self, PatternError> {
        Self::collect(items.iter().enumerate().map(|(index, item)| (index + 1, item.as_ref())))
    }

    fn collect<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, PatternError> {
        let mut rules = Vec::new();
        for (line, pattern) in lines {
            let trimmed = pattern.trim();
            if trimmed.is_empty() {
                continue;
            }
            if rules.len() == PATTERNS_MAX {
                return Err(error(line, trimmed, "too many patterns"));
            }
            rules.push(Rule::parse(line, trimmed).map_err(|reason| error(line, trimmed, reason))?);
        }
        Ok(Self { rules })
    }

    fn usable(self) -> Result<Self, PatternError> {
        match self.rules.iter().find(|rule| rule.matcher.is_wrong()) {
            Some(rule) => Err(rule.wrong()),
            None => Ok(self),
        }
    }

    /// Whether any pattern takes a path back in.
    pub fn takes_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.takes_back)
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the path (relative to the root, `/` between names) is ignored.
    pub fn matches(&self, path: &str) -> bool {
        self.decide(path).unwrap_or(false)
    }

    /// The same, where a pattern may turn out to be wrong.
    ///
    /// # Errors
    /// The first pattern that had to be asked and cannot say.
    pub fn decide(&self, path: &str) -> Result<bool, PatternError> {
        let path = cleaned(path);
        let mut ignored = false;
        if path == "." {
            return Ok(false);
        }
        for rule in &self.rules {
            // A rule can only change the verdict of the ones before it.
            if rule.takes_back != ignored {
                continue;
            }
            if rule.matcher.is_wrong() {
                return Err(rule.wrong());
            }
            if rule.covers(&path) {
                ignored = !rule.takes_back;
            }
        }
        Ok(ignored)
    }

    /// Whether anything below an ignored directory could be taken back in, so a walk has to enter it.
    pub fn may_take_back_below(&self, directory: &str) -> bool {
        let directory = clean(directory);
        self.rules.iter().any(|rule| rule.takes_back && rule.reaches_below(&directory))
    }
}

/// The patterns of an ignore file with their lines: cleaned, and relative to the root.
///
/// # Errors
/// A line that is too long.
pub fn lines(text: &str) -> Result<Vec<(usize, String)>, PatternError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.len() > LINE_BYTES_MAX {
            return Err(error(index + 1, line, "longer than 65535 bytes"));
        }
        let trimmed = line.trim();
        if line.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let pattern = match trimmed.strip_prefix('!') {
            Some(rest) => format!("!{}", relative(rest.trim())),
            None => relative(trimmed),
        };
        found.push((index + 1, pattern));
    }
    Ok(found)
}

fn relative(pattern: &str) -> String {
    if pattern.is_empty() {
        return String::new();
    }
    let cleaned = cleaned(pattern);
    match cleaned.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => cleaned,
    }
}

fn error(line: usize, pattern: &str, reason: &'static str) -> PatternError {
    PatternError { line, pattern: shorten(pattern), reason }
}

#[derive(Debug, Clone)]
struct Rule {
    line: usize,
    takes_back: bool,
    /// Cleaned, without `!`.
    text: String,
    matcher: Matcher,
    /// Of a rule that takes back: its names one by one.
    names: Vec<Name>,
}

/// One name of a pattern.
#[derive(Debug, Clone)]
enum Name {
    /// It has `**`, so it may be any number of names.
    Many,
    One(Glob),
}

impl Rule {
    fn parse(line: usize, text: &str) -> Result<Self, &'static str> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err("longer than 4096 bytes");
        }
        let cleaned = cleaned(text);
        let (takes_back, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err("`!` needs a pattern after it"),
            Some(rest) => (true, rest),
            None => (false, cleaned.as_str()),
        };
        check(text)?;
        let names = if takes_back { text.split('/').map(Name::new).collect() } else { Vec::new() };
        Ok(Self { line, takes_back, text: text.to_owned(), matcher: Matcher::new(text), names })
    }

    fn wrong(&self) -> PatternError {
        error(self.line, &self.text, "not a valid pattern")
    }

    /// The path itself or one of the directories above it.
    fn covers(&self, path: &str) -> bool {
        let matches = |path: &str| self.matcher.matches(&self.text, path);
        matches(path) || path.match_indices('/').any(|(at, _)| matches(&path[..at]))
    }

    fn reaches_below(&self, directory: &str) -> bool {
        let mut names = self.names.iter();
        for wanted in directory.split('/') {
            match names.next() {
                // The rule names a directory above: it takes back all of this one.
                None | Some(Name::Many) => return true,
                Some(Name::One(glob)) if glob.matches(wanted) => {}
                Some(Name::One(_)) => return false,
            }
        }
        true
    }
}

impl Name {
    /// What is no pattern alone counts as many: a directory too much is entered then, and no one too few.
    fn new(text: &str) -> Self {
        if text.contains("**") { Self::Many } else { Glob::new(text).map_or(Self::Many, Self::One) }
    }
}

/// One compiled pattern over one name; two stars mean the same as one.
#[derive(Debug, Clone)]
pub struct Glob(Regex);

impl Glob {
    /// # Errors
    /// What is wrong with the pattern.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        compile(pattern)
    }

    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// Whether a path of a COPY has to be matched against the tree instead of being looked up.
pub fn has_wildcard(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => _ = chars.next(),
            _ => {}
        }
    }
    false
}

/// Cleans a path as text: no `.`, `..`, empty names, leading or trailing slash; the root is `.`.
pub fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => _ = names.pop(),
            name => names.push(name),
        }
    }
    if names.is_empty() { ".".into() } else { names.join("/") }
}

/// The same as Go cleans paths: what is rooted stays so, and `..` stays where it leads out.
pub(crate) fn cleaned(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => _ = names.pop(),
            ".." if rooted => {}
            name => names.push(name),
        }
    }
    match (rooted, names.join("/")) {
        (true, names) => format!("/{names}"),
        (false, names) if names.is_empty() => ".".into(),
        (false, names) => names,
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether classes and escapes are complete, as far as Docker looks: it matches the pattern against `.` and stops
/// where that cannot succeed any more.
fn check(pattern: &str) -> Result<(), &'static str> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut rest = chars.as_slice();
    // Whether the point is still to be matched.
    let mut is_left = true;
    while !rest.is_empty() {
        let stars = rest.iter().take_while(|c| **c == '*').count();
        let (chunk, after) = rest[stars..].split_at(chunk_end(&rest[stars..]));
        if stars > 0 && chunk.is_empty() {
            return Ok(());
        }
        let is_last = after.is_empty();
        let left = |matched: Option<bool>| matched.filter(|left| !left || !is_last);
        let mut found = left(chunk_matches(chunk, is_left)?);
        if found.is_none() && stars > 0 && is_left {
            found = left(chunk_matches(chunk, false)?);
        }
        let Some(left) = found else { return Ok(()) };
        (is_left, rest) = (left, after);
    }
    Ok(())
}

/// Up to the next star outside of a class.
fn chunk_end(chars: &[char]) -> usize {
    let (mut at, mut in_class) = (0, false);
    while at < chars.len() {
        match chars[at] {
            '\\' if at + 1 < chars.len() => at += 1,
            '[' => in_class = true,
            ']' => in_class = false,
            '*' if !in_class => return at,
            _ => {}
        }
        at += 1;
    }
    chars.len()
}

/// Matches a chunk at the point, if that is left; whether it then still is, or `None` when it does not match.
fn chunk_matches(chars: &[char], mut is_left: bool) -> Result<Option<bool>, &'static str> {
    let (mut at, mut failed) = (0, false);
    while at < chars.len() {
        failed |= !is_left;
        is_left = false;
        let is_point = match chars[at] {
            '[' => {
                let mut class = String::new();
                at = self::class(chars, at + 1, &mut class)?;
                !failed && Regex::new(&class).is_ok_and(|class| class.is_match("."))
            }
            '?' => {
                at += 1;
                true
            }
            '\\' => {
                let next = *chars.get(at + 1).ok_or("nothing after the last `\\`")?;
                at += 2;
                next == '.'
            }
            c => {
                at += 1;
                c == '.'
            }
        };
        failed |= !is_point;
    }
    Ok((!failed).then_some(is_left))
}

fn compile(pattern: &str) -> Result<Glob, &'static str> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err("longer than 4096 bytes");
    }
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::from("(?s)^");
    let mut at = 0;
    while at < chars.len() {
        at = translate(&chars, at, &mut out)?;
    }
    out.push('$');
    Regex::new(&out).map(Glob).map_err(|_| "not a valid pattern")
}

/// Translates what starts at `at` and returns where the next thing starts.
fn translate(chars: &[char], at: usize, out: &mut String) -> Result<usize, &'static str> {
    match chars[at] {
        '*' => {
            out.push_str("[^/]*");
            Ok(at + 1)
        }
        '?' => {
            out.push_str("[^/]");
            Ok(at + 1)
        }
        '[' => class(chars, at + 1, out),
        '\\' => {
            let next = chars.get(at + 1).ok_or("nothing after the last `\\`")?;
            literal(*next, out);
            Ok(at + 2)
        }
        c => {
            literal(c, out);
            Ok(at + 1)
        }
    }
}

fn class(chars: &[char], mut at: usize, out: &mut String) -> Result<usize, &'static str> {
    const OPEN: &str = "a `[` without its `]`, or a class that begins with one or with a `-`";
    out.push('[');
    if chars.get(at) == Some(&'^') {
        // A negated class never reaches over a slash.
        out.push_str("^/");
        at += 1;
    }
    let mut members = 0;
    while members == 0 || chars.get(at) != Some(&']') {
        let (low, next) = member(chars, at).ok_or(OPEN)?;
        at = next;
        let mut high = low;
        if chars.get(at) == Some(&'-') {
            (high, at) = member(chars, at + 1).ok_or(OPEN)?;
        }
        if low <= high {
            literal(low, out);
            out.push('-');
            literal(high, out);
        } else {
            // A range that runs backwards has nothing in it.
            out.push_str("[a&&b]");
        }
        members += 1;
    }
    out.push(']');
    Ok(at + 1)
}

fn member(chars: &[char], at: usize) -> Option<(char, usize)> {
    match chars.get(at)? {
        '-' | ']' => None,
        '\\' => Some((*chars.get(at + 1)?, at + 2)),
        c => Some((*c, at + 1)),
    }
}

fn literal(c: char, out: &mut String) {
    if c.is_ascii_punctuation() && c != '/' && c != '_' && c != '\'' && c != '"' && c != '`' && c != ',' {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(list: &[&str], path: &str) -> bool {
        Patterns::from_list(list).expect("valid patterns").matches(path)
    }

    #[test]
    fn patterns_are_anchored_at_the_root() {
        assert!(ignored(&["foo"], "foo"));
        assert!(!ignored(&["foo"], "a/foo"));
        assert!(!ignored(&["*.md"], "docs/a.md"));
        assert!(ignored(&["**/*.md"], "docs/x/a.md"));
        assert!(ignored(&["**/*.md"], "a.md"));
        assert!(ignored(&["*/*.md"], "docs/a.md"));
        assert!(!ignored(&["*/*.md"], "a.md"));
    }

    #[test]
    fn a_directory_covers_its_subtree() {
        assert!(ignored(&["node_modules"], "node_modules/a/b.js"));
        assert!(ignored(&["node_modules/"], "node_modules/a/b.js"));
        assert!(ignored(&["a/**"], "a/b/c"));
        assert!(!ignored(&["a/**"], "a"));
        assert!(ignored(&["**"], "anything/at/all"));
        assert!(!ignored(&["node"], "node_modules"));
    }

    #[test]
    fn the_last_rule_that_decides_wins() {
        let list = ["*", "!src", "src/secret"];
        assert!(ignored(&list, "README"));
        assert!(!ignored(&list, "src/main.rs"));
        assert!(ignored(&list, "src/secret/key"));
        assert!(!ignored(&["*.md", "!README.md"], "README.md"));
        assert!(ignored(&["!README.md", "*.md"], "README.md"));
    }

    #[test]
    fn taking_back_works_inside_an_ignored_directory() {
        assert!(!ignored(&["docs", "!docs/keep"], "docs/keep/a"));
        let patterns = Patterns::from_list(&["docs", "!docs/keep/*.txt"]).expect("valid");
        assert!(patterns.may_take_back_below("docs"));
        assert!(patterns.may_take_back_below("docs/keep"));
        assert!(!patterns.may_take_back_below("docs/other"));
        assert!(Patterns::from_list(&["*", "!**/a"]).expect("valid").may_take_back_below("x/y"));
    }

    #[test]
    fn text_is_cleaned_first() {
        assert!(Patterns::parse("/foo").expect("valid").matches("foo"));
        assert!(!ignored(&["/foo"], "foo"), "only in files");
        assert!(ignored(&["./foo/"], "foo"));
        assert!(ignored(&["a/../b"], "b/c"));
        assert!(ignored(&["b"], "./b/c"));
    }

    #[test]
    fn braces_and_dots_are_literal_and_classes_work() {
        assert!(ignored(&["{a,b}"], "{a,b}"));
        assert!(!ignored(&["{a,b}"], "a"));
        assert!(!ignored(&["a.c"], "abc"));
        assert!(ignored(&["[a-c]x"], "bx"));
        assert!(ignored(&["[^a-c]x"], "dx"));
        assert!(!ignored(&["[^a-c]x"], "ax"));
        assert!(ignored(&["[a&&b]"], "&"));
        assert!(ignored(&[r"\*"], "*"));
        assert!(!ignored(&[r"\*"], "x"));
        assert!(ignored(&["a?c"], "abc"));
        assert!(!ignored(&["a?c"], "a/c"));
    }

    #[test]
    fn comments_only_in_the_first_column() {
        let patterns = Patterns::parse("\u{feff}# note\r\n  foo  \r\n\r\n #bar\n! keep\n").expect("valid");
        assert_eq!(patterns.rules.len(), 3);
        assert!(patterns.matches("foo"));
        assert!(patterns.matches("#bar"));
    }

    #[test]
    fn oddities_of_dockers_matcher() {
        for (pattern, path, expected) in [
            (r"\d", "5", true),
            (r"\x41", "A", true),
            ("[[:alpha:]]", "a", true),
            ("[^a]", "/", true),
            ("x[^a]y", "x/y", true),
            ("a^b", "a^b", true),
            ("a^*", "a^b", false),
            ("**foo", "d/barfoo", true),
            ("**/foo", "d/barfoo", false),
            ("foo**", "foobar/x", true),
            ("a|b/*", "a/x/y", true),
            ("a|b", "a", false),
            ("b{2}*", "bbc", true),
            ("***", "a/b", true),
        ] {
            assert_eq!(ignored(&[pattern], path), expected, "{pattern} {path}");
        }
        // Wrong is only what is asked.
        let late =
            |list: &[&str], path: &str| Patterns::read(list).map(|patterns| patterns.decide(path).is_err());
        assert_eq!(late(&["a", "[b-a]"], "a"), Ok(false));
        assert_eq!(late(&["a", "[b-a]"], "b"), Ok(true));
        assert_eq!(late(&["![b-a]"], "b"), Ok(false));
        assert!(late(&["[-a]"], "b").is_err());
        assert!(late(&["b/[a-]"], "b").is_err());
        assert_eq!(late(&["b/*/[a-]"], "b"), Ok(false));
    }

    #[test]
    fn files_become_clean_patterns() {
        let text = "\u{feff}# c\r\n #x\n/a//b/\n! /c/\n../d\n/\n!\n";
        let found: Vec<String> =
            lines(text).expect("short").into_iter().map(|(_, pattern)| pattern).collect();
        assert_eq!(found, ["#x", "a/b", "!c", "../d", "/", "!"]);
        assert!(lines(&"x".repeat(65_536)).is_err());
    }

    #[test]
    fn bad_patterns_are_named_with_their_line() {
        let error = Patterns::parse("ok\na[").expect_err("unfinished class");
        assert_eq!((error.line, error.pattern.as_str()), (2, "a["));
        assert!(Patterns::parse("!").is_err());
        assert!(Patterns::parse("a\\").is_err());
        assert!(Patterns::parse("[b-a]").is_err());
        assert!(Patterns::parse("[]a]").is_err());
    }

    #[test]
    fn wildcards_are_recognised_unless_escaped() {
        assert!(has_wildcard("a*"));
        assert!(!has_wildcard(r"a\*"));
        assert!(has_wildcard("[ab]"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}", path in "[a-c/.*]{0,12}") {
            if let Ok(patterns) = Patterns::parse(&text) {
                patterns.matches(&path);
                patterns.may_take_back_below(&path);
            }
        }

        #[test]
        fn a_covered_directory_covers_all_below(name in "[a-c]{1,3}", below in "[a-c/]{1,8}") {
            let patterns = Patterns::from_list(&[&name]).expect("plain names are valid");
            let path = format!("{name}/{below}");
            proptest::prop_assert!(patterns.matches(&path));
        }
    }
}
