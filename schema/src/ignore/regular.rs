//! How a pattern is matched against a whole path.
//!
//! Docker's matcher reads a pattern as text if it can, and else makes a regular expression of it, in Go's syntax and
//! without regard to classes: `[a*]` becomes `[a[^/]*]`, `\d` a digit, `a|b*` one of two, `a^b` nothing at all where
//! there is a star. [`expression`] does the same, and [`translated`] says it in the syntax of the `regex` crate.

use regex::Regex;
use std::iter::Peekable;
use std::str::Chars;

#[derive(Debug, Clone)]
pub(super) enum Matcher {
    Exact,
    /// Up to the `**` at the end.
    Prefix,
    /// From the `**` at the beginning.
    Suffix,
    Regular(Regex),
    /// The expression is none.
    Wrong,
}

impl Matcher {
    pub(super) fn new(pattern: &str) -> Self {
        let (kind, expression) = expression(pattern);
        match kind {
            Kind::Exact => Self::Exact,
            Kind::Prefix => Self::Prefix,
            Kind::Suffix => Self::Suffix,
            Kind::Regular => {
                let regex = translated(&expression).and_then(|text| Regex::new(&text).ok());
                regex.map_or(Self::Wrong, Self::Regular)
            }
        }
    }

    pub(super) fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }

    pub(super) fn matches(&self, pattern: &str, path: &str) -> bool {
        match self {
            Self::Exact => path == pattern,
            Self::Prefix => path.starts_with(pattern.strip_suffix("**").unwrap_or(pattern)),
            Self::Suffix => {
                let suffix = pattern.strip_prefix("**").unwrap_or(pattern);
                // `**/name` is also the name alone.
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Self::Regular(regex) => regex.is_match(path),
            Self::Wrong => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Regular,
}

/// The pattern as an expression in Go's syntax.
fn expression(pattern: &str) -> (Kind, String) {
    let (mut kind, mut out) = (Kind::Exact, String::from("^"));
    let mut chars = pattern.chars().peekable();
    let mut is_first = true;
    while let Some(c) = chars.next() {
        kind = match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                let kind = many(kind, chars.peek().is_none(), &mut out);
                if is_first { Kind::Suffix } else { kind }
            }
            '*' => {
                out.push_str("[^/]*");
                Kind::Regular
            }
            '?' => {
                out.push_str("[^/]");
                Kind::Regular
            }
            // The other signs of expressions are meant to be here, too, and are not in Docker's.
            '.' | '+' | '(' | ')' | '$' => {
                out.extend(['\\', c]);
                kind
            }
            '\\' => {
                out.push('\\');
                let escaped = chars.next();
                out.extend(escaped);
                if escaped.is_some() { Kind::Regular } else { kind }
            }
            c => {
                out.push(c);
                if matches!(c, '[' | ']') { Kind::Regular } else { kind }
            }
        };
        is_first = false;
    }
    out.push('$');
    (kind, out)
}

/// `**`: at the end everything, else any number of directories.
fn many(kind: Kind, is_last: bool, out: &mut String) -> Kind {
    match (is_last, kind) {
        (true, Kind::Exact) => Kind::Prefix,
        (true, _) => {
            out.push_str(".*");
            Kind::Regular
        }
        (false, _) => {
            out.push_str("(.*/)?");
            Kind::Regular
        }
    }
}

/// What one thing of an expression stands for.
enum Piece {
    Char(char),
    /// In the syntax of the crate; may stand in a class.
    Set(String),
    /// May not.
    Place(&'static str),
}

/// Go's syntax to the crate's; `None`: it is no expression.
fn translated(expression: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = expression.chars().peekable();
    let mut before = None;
    while let Some(c) = chars.next() {
        let last = before.replace(c);
        match c {
            '\\' if chars.next_if_eq(&'Q').is_some() => literally(&mut chars, &mut out),
            '\\' => match escape(&mut chars)? {
                Piece::Char(c) => literal(c, &mut out),
                Piece::Set(set) => out.push_str(&format!("[{set}]")),
                Piece::Place(place) => out.push_str(place),
            },
            '[' => class(&mut chars, &mut out)?,
            '{' => match repetition(&mut chars) {
                None => literal(c, &mut out),
                // Nothing is there to be repeated, or it is already.
                Some(_) if matches!(last, None | Some('|' | '*' | '?' | '}')) => return None,
                Some(text) => {
                    out.push_str(&text?);
                    before = Some('}');
                }
            },
            '^' | '$' | '*' | '?' | '.' | '(' | ')' | '|' => out.push(c),
            c => literal(c, &mut out),
        }
        if matches!(c, '\\' | '[' | '}') && before == Some(c) {
            // The end of a piece, which may be repeated.
            before = Some('a');
        }
    }
    Some(out)
}

/// `{2}`, `{2,}`, `{2,3}` from behind the brace; anything else is text. `None` inside: Go repeats nothing so.
fn repetition(chars: &mut Peekable<Chars<'_>>) -> Option<Option<String>> {
    let rest: String = chars.clone().take_while(|c| *c != '}').collect();
    let (low, high) = rest.split_once(',').unwrap_or((&rest, &rest));
    let is_number = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
    };
    let is_closed = chars.clone().nth(rest.chars().count()) == Some('}');
    if !is_closed || !is_number(low) || !(high.is_empty() || is_number(high)) {
        return None;
    }
    (0..=rest.chars().count()).for_each(|_| _ = chars.next());
    let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
    let is_right =
        number(low) <= 1000 && (high.is_empty() || (number(high) <= 1000 && number(low) <= number(high)));
    Some(is_right.then(|| format!("{{{rest}}}")))
}

fn literal(c: char, out: &mut String) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
    }
}

/// Up to `\E`, or the end.
fn literally(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            return;
        }
        literal(c, out);
    }
}

/// What follows a `\`.
fn escape(chars: &mut Peekable<Chars<'_>>) -> Option<Piece> {
    let set = |text: &str| Some(Piece::Set(text.to_owned()));
    match chars.next()? {
        'd' => set("0-9"),
        'D' => set("[^0-9]"),
        's' => set("\\t\\n\\x0c\\r\\x20"),
        'S' => set("[^\\t\\n\\x0c\\r\\x20]"),
        'w' => set("0-9A-Za-z_"),
        'W' => set("[^0-9A-Za-z_]"),
        'A' => Some(Piece::Place("\\A")),
        'z' => Some(Piece::Place("\\z")),
        'b' => Some(Piece::Place("(?-u:\\b)")),
        'B' => Some(Piece::Place("\\B")),
        letter @ ('p' | 'P') => property(letter, chars),
        'a' => Some(Piece::Char('\x07')),
        'f' => Some(Piece::Char('\x0c')),
        'n' => Some(Piece::Char('\n')),
        'r' => Some(Piece::Char('\r')),
        't' => Some(Piece::Char('\t')),
        'v' => Some(Piece::Char('\x0b')),
        'x' => hexadecimal(chars).map(Piece::Char),
        c @ '0'..='7' => octal(c, chars).map(Piece::Char),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(Piece::Char(c)),
        _ => None,
    }
}

/// `\pL`, `\p{Greek}`.
fn property(letter: char, chars: &mut Peekable<Chars<'_>>) -> Option<Piece> {
    let mut name = chars.next()?.to_string();
    if name == "{" {
        name = chars.by_ref().take_while(|c| *c != '}').collect();
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '^');
    (!name.is_empty() && name.chars().all(is_name)).then(|| Piece::Set(format!("\\{letter}{{{name}}}")))
}

/// Two digits, or any number in braces.
fn hexadecimal(chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    let digits: String = if chars.next_if_eq(&'{').is_some() {
        chars.by_ref().take_while(|c| *c != '}').collect()
    } else {
        chars.by_ref().take(2).collect::<String>().chars().collect()
    };
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(&digits, 16).ok()).flatten().and_then(char::from_u32)
}

/// At most three digits; one alone other than 0 would be a group, which there is not.
fn octal(first: char, chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    let mut value = first.to_digit(8)?;
    let mut count = 1;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)).filter(|_| count < 3) {
        value = value * 8 + digit;
        count += 1;
        chars.next();
    }
    if first != '0' && count == 1 { None } else { char::from_u32(value) }
}

/// From behind the `[`.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    while is_first || chars.next_if_eq(&']').is_none() {
        is_first = false;
        if let Some(name) = named(chars) {
            out.push_str(&name);
            continue;
        }
        match member(chars)? {
            Piece::Char(low) => range(low, chars, out)?,
            Piece::Set(set) => out.push_str(&set),
            Piece::Place(_) => return None,
        }
    }
    out.push(']');
    Some(())
}

fn member(chars: &mut Peekable<Chars<'_>>) -> Option<Piece> {
    match chars.next()? {
        '\\' => escape(chars),
        c => Some(Piece::Char(c)),
    }
}

/// One character, or a range that begins with it.
fn range(low: char, chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    literal(low, out);
    let mut ahead = chars.clone();
    if ahead.next() != Some('-') || matches!(ahead.peek(), None | Some(']')) {
        return Some(());
    }
    *chars = ahead;
    let Piece::Char(high) = member(chars)? else { return None };
    out.push('-');
    literal(high, out);
    (low <= high).then_some(())
}

/// `[:alpha:]`; anything else that begins so is a bracket.
fn named(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let rest: String = chars.clone().collect();
    let end = rest.strip_prefix("[:")?.find(":]")? + 4;
    (0..rest[..end].chars().count()).for_each(|_| _ = chars.next());
    Some(rest[..end].to_owned())
}
