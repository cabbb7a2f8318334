//! `$NAME`, `${NAME}` and the forms with an operator, in one text and in a whole tree.
//!
//! | form | gives |
//! |---|---|
//! | `$N`, `${N}` | the value; empty with a warning when unset |
//! | `${N:-d}`, `${N-d}` | `d` when unset or empty; when unset |
//! | `${N:?m}`, `${N?m}` | an error saying `m` when unset or empty; when unset |
//! | `${N:+a}`, `${N+a}` | `a` when set and not empty; when set; else empty |
//! | `$$` | a dollar sign |
//!
//! Operands are interpolated themselves, to any depth; one that is not used must be right, but its unset names do not matter.
//! A `$` before anything but a name, `{` or `$` stays. Keys are never interpolated. The rules are docker compose's.

use crate::diagnostic::Diagnostic;
use crate::keypath::Trail;
use crate::source::Place;
use crate::yaml::{Node, Value};

/// How a name becomes a value.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What happened while a text was interpolated, for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A name whose value is in the result.
    Used { name: String, reference: String },
    /// A name without a value and without an operator. The text is the reference as written.
    Unset { name: String, reference: String },
    /// `${NAME:?message}` without a value.
    Required { name: String, message: String, reference: String },
    /// `${` without `}`, or something in between that is no name and operator.
    Invalid { reference: String },
}

/// One `${…}` as written, for `config --variables`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reference {
    pub name: String,
    pub default: String,
    pub alternate: String,
    pub required: bool,
}

/// Operands may nest this deep.
const MAX_DEPTH: usize = 100;

/// Of what a value, or a file, refers to, no more is noted than this: nobody reads it, and each note takes memory.
/// Beyond it references are still replaced, and errors still found.
pub(crate) const MOST_NOTED: usize = 50_000;

fn note(findings: &mut Vec<Finding>, finding: Finding) {
    let is_error = matches!(finding, Finding::Required { .. } | Finding::Invalid { .. });
    let limit = if is_error { MOST_NOTED + 100 } else { MOST_NOTED };
    if findings.len() < limit {
        findings.push(finding);
    }
}

/// The text with every reference replaced. A text with a finding other than [`Finding::Unset`] has no useful value.
pub fn text(text: &str, lookup: &Lookup<'_>, findings: &mut Vec<Finding>) -> String {
    substitute(text, lookup, findings, 0)
}

fn substitute(text: &str, lookup: &Lookup<'_>, findings: &mut Vec<Finding>, depth: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let after = &rest[1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if after.starts_with('{') {
            let length = match Braced::read(rest).filter(|_| depth < MAX_DEPTH) {
                Some(braced) => {
                    out.push_str(&braced.value(lookup, findings, depth));
                    braced.text.len()
                }
                None => invalid(rest, findings),
            };
            rest = &rest[length..];
        } else {
            let name = name_prefix(after);
            let reference = &rest[..=name.len()];
            match (name.is_empty(), lookup(name)) {
                (true, _) => out.push('$'),
                (false, Some(value)) => {
                    out.push_str(&value);
                    note(findings, Finding::Used { name: name.into(), reference: reference.into() });
                }
                (false, None) => {
                    note(findings, Finding::Unset { name: name.into(), reference: reference.into() })
                }
            }
            rest = &rest[reference.len()..];
        }
    }
    out.push_str(rest);
    out
}

fn name_prefix(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    &text[..end]
}

/// Notes that `${` begins no reference, and gives the length of what was meant as one.
fn invalid(text: &str, findings: &mut Vec<Finding>) -> usize {
    let line = || text.find('\n').unwrap_or(text.len());
    let length = closing_brace(text).map_or_else(line, |at| at + 1);
    note(findings, Finding::Invalid { reference: text[..length].into() });
    length
}

/// `${NAME}` or `${NAME` operator operand `}`, at the start of a text.
struct Braced<'t> {
    text: &'t str,
    name: &'t str,
    operator: &'t str,
    operand: &'t str,
}

impl<'t> Braced<'t> {
    /// A reference with an operand ends on its own line, at the brace that closes it; where none does, at the last one.
    fn read(text: &'t str) -> Option<Self> {
        let name = name_prefix(text.get(2..)?);
        let rest = &text[2 + name.len()..];
        if name.is_empty() {
            return None;
        }
        if rest.starts_with('}') {
            return Some(Self { text: &text[..3 + name.len()], name, operator: "", operand: "" });
        }
        let operator = [":-", ":?", ":+", "-", "?", "+"].into_iter().find(|one| rest.starts_with(one))?;
        let start = 2 + name.len() + operator.len();
        let end = match closing_brace(text) {
            Some(end) => end,
            None => text[start..].split('\n').next()?.rfind('}')? + start,
        };
        Some(Self { text: &text[..=end], name, operator, operand: &text[start..end] })
    }

    fn value(&self, lookup: &Lookup<'_>, findings: &mut Vec<Finding>, depth: usize) -> String {
        let value = lookup(self.name);
        let usable = value.filter(|value| !self.operator.starts_with(':') || !value.is_empty());
        let mut inner = Vec::new();
        let operand = substitute(self.operand, lookup, &mut inner, depth + 1);
        let (result, is_used) = match (self.operator.trim_start_matches(':'), usable) {
            ("-", None) | ("+", Some(_)) => (operand, true),
            ("?", None) => {
                inner.push(Finding::Required {
                    name: self.name.into(),
                    message: operand,
                    reference: self.text.into(),
                });
                (String::new(), true)
            }
            ("", None) => {
                note(findings, Finding::Unset { name: self.name.into(), reference: self.text.into() });
                (String::new(), true)
            }
            (_, value) => {
                (value.filter(|_| self.operator != "+" && self.operator != ":+").unwrap_or_default(), false)
            }
        };
        if !is_used || self.operator.ends_with('+') {
            let (name, reference) = (self.name.into(), self.text.into());
            note(findings, Finding::Used { name, reference });
        }
        // An operand must be right even where it is not needed; only what it lacks does not count then.
        let counts =
            |found: &Finding| is_used || matches!(found, Finding::Required { .. } | Finding::Invalid { .. });
        inner.into_iter().filter(counts).for_each(|found| note(findings, found));
        result
    }
}

/// Where the brace stands, on the same line, that closes the first one. As in docker compose, the character after an opening
/// brace is passed over. (It looks no further than it must, so that a line of many references takes no time squared.)
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut open, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => return None,
            b'}' if open == 1 => return Some(at),
            b'}' => open -= 1,
            b'{' => {
                open += 1;
                at += usize::from(bytes.get(at + 1) != Some(&b'\n'));
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// All references of a text, also inside operands, in order.
pub fn references(text: &str, found: &mut Vec<Reference>) {
    references_at(text, found, 0);
}

fn references_at(text: &str, found: &mut Vec<Reference>, depth: usize) {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at..];
        if rest[1..].starts_with('$') {
            rest = &rest[2..];
            continue;
        }
        if let Some(braced) = Braced::read(rest).filter(|_| rest[1..].starts_with('{')) {
            let mut reference = Reference { name: braced.name.into(), ..Reference::default() };
            match braced.operator.trim_start_matches(':') {
                "-" => reference.default = braced.operand.into(),
                "+" => reference.alternate = braced.operand.into(),
                "?" => reference.required = true,
                _ => {}
            }
            found.push(reference);
            if depth < MAX_DEPTH {
                references_at(braced.operand, found, depth + 1);
            }
            rest = &rest[braced.text.len()..];
            continue;
        }
        let name = name_prefix(&rest[1..]);
        if !name.is_empty() {
            found.push(Reference { name: name.into(), ..Reference::default() });
        }
        rest = &rest[1 + name.len()..];
    }
}

/// A variable that a value was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    pub name: String,
    /// The whole value.
    pub value: Place,
    /// The `${…}` in it, as far as it can be told.
    pub reference: Place,
}

/// Interpolates every string value below `node`, and notes which variables were used where.
pub fn tree(
    node: &mut Node,
    path: &Trail<'_>,
    lookup: &Lookup<'_>,
    diagnostics: &mut Vec<Diagnostic>,
    usages: &mut Vec<Usage>,
) {
    let place = node.place.clone();
    match &mut node.value {
        Value::Str(value) if value.contains('$') => {
            let mut findings = Vec::new();
            *value = text(value, lookup, &mut findings);
            let mut from = place.start;
            diagnostics
                .extend(findings.iter().filter_map(|finding| finding.diagnose(&place, &mut from, path)));
            let mut used = place.start;
            let room = MOST_NOTED.saturating_sub(usages.len());
            usages.extend(findings.iter().filter_map(|finding| finding.usage(&place, &mut used)).take(room));
        }
        Value::Seq(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                tree(item, &path.index(index), lookup, diagnostics, usages);
            }
        }
        Value::Map(map) => {
            for (key, entry) in map.iter_mut() {
                tree(&mut entry.node, &path.key(key), lookup, diagnostics, usages);
            }
        }
        _ => {}
    }
}

impl Finding {
    fn reference(&self) -> &str {
        match self {
            Finding::Used { reference, .. }
            | Finding::Unset { reference, .. }
            | Finding::Required { reference, .. }
            | Finding::Invalid { reference } => reference,
        }
    }

    /// A sentence at the reference itself, as far as it can be found in the text of the value.
    pub fn diagnose(&self, value: &Place, from: &mut usize, path: &Trail<'_>) -> Option<Diagnostic> {
        if matches!(self, Finding::Used { .. }) {
            return None;
        }
        let place = narrow(value, self.reference(), from);
        let diagnostic = match self {
            Finding::Used { .. } => return None,
            Finding::Unset { name, .. } => Diagnostic::warning(format!(
                "the variable `{name}` is not set, an empty string stands in for it"
            )),
            Finding::Required { name, message, .. } => {
                let reason = if message.is_empty() { String::new() } else { format!(": {message}") };
                Diagnostic::error(format!("the variable `{name}` must have a value{reason}"))
            }
            Finding::Invalid { .. } => Diagnostic::error("this is no valid `${…}` reference")
                .hint("Write `${NAME}` or `${NAME:-default}`; a literal dollar sign is written `$$`."),
        };
        Some(diagnostic.at(place).key(path.to_string()))
    }

    /// The variable whose value was taken, in the value at `value`; `from` is where the one before was found.
    pub fn usage(&self, value: &Place, from: &mut usize) -> Option<Usage> {
        let Finding::Used { name, reference } = self else { return None };
        let reference = narrow(value, reference, from);
        Some(Usage { name: name.clone(), value: value.clone(), reference })
    }
}

fn narrow(value: &Place, reference: &str, from: &mut usize) -> Place {
    let text = &value.source.text;
    let first_line = reference.lines().next().unwrap_or(reference);
    let found = text.get(*from..value.end).and_then(|part| part.find(first_line));
    let Some(at) = found else {
        // Its text is written in another way (escapes, folded lines); so will be what follows.
        *from = value.end;
        return value.clone();
    };
    let start = *from + at;
    *from = start + 1;
    while !text.is_char_boundary(*from) {
        *from += 1;
    }
    Place { source: value.source.clone(), start, end: start + first_line.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &str) -> (String, Vec<Finding>) {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        };
        let mut findings = Vec::new();
        let value = text(input, &lookup, &mut findings);
        findings.retain(|found| !matches!(found, Finding::Used { .. }));
        (value, findings)
    }

    #[test]
    fn every_form_gives_what_compose_gives() {
        for (input, output) in [
            ("$A-${A}", "a-a"),
            ("$$A $1 $ ${A}$", "$A $1 $ a$"),
            ("${U:-d}${E:-d}${A:-d}", "dda"),
            ("${U-d}${E-d}${A-d}", "da"),
            ("${U:+x}${E:+x}${A:+x}", "x"),
            ("${U+x}${E+x}${A+x}", "xx"),
            ("${U:-${V:-${A}}}", "a"),
            ("${A:?m}${E?m}", "a"),
            ("${U:-x?y:-z}", "x?y:-z"),
            ("${U:-{\"k\":\"${A}\"}}", "{\"k\":\"a\"}"),
            ("é$A", "éa"),
        ] {
            let (value, findings) = run(input);
            assert_eq!(value, output, "{input}");
            assert!(findings.is_empty(), "{input}: {findings:?}");
        }
    }

    #[test]
    fn findings_name_the_reference() {
        assert_eq!(run("x${U}").1, [Finding::Unset { name: "U".into(), reference: "${U}".into() }]);
        assert_eq!(run("$U$U").1.len(), 2);
        let required = Finding::Required {
            name: "E".into(),
            message: "need a".into(),
            reference: "${E:?need $A}".into(),
        };
        assert_eq!(run("${E:?need $A}").1, [required]);
        for bad in ["${", "${}", "${1}", "${A.B}", "${A!}", "a ${A"] {
            assert!(matches!(run(bad).1[..], [Finding::Invalid { .. }]), "{bad}");
        }
    }

    #[test]
    fn lists_references_with_their_operands() {
        let mut found = Vec::new();
        references("$A ${B:-${C?m}} $$D ${E+x}", &mut found);
        let names: Vec<_> = found
            .iter()
            .map(|r| (r.name.as_str(), r.default.as_str(), r.alternate.as_str(), r.required))
            .collect();
        assert_eq!(
            names,
            [("A", "", "", false), ("B", "${C?m}", "", false), ("C", "", "", true), ("E", "", "x", false)]
        );
    }
}
