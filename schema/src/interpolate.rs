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
//! Operands are interpolated themselves, to any depth, and only when they are used. A `$` before anything but a name, `{` or
//! `$` stays. Keys are never interpolated. The rules are docker compose's.

use crate::diagnostic::Diagnostic;
use crate::keypath::KeyPath;
use crate::source::Place;
use crate::yaml::{Node, Value};

/// How a name becomes a value.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What happened while a text was interpolated, for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
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
            let (value, length) = braced(rest, lookup, findings, depth);
            out.push_str(&value);
            rest = &rest[length..];
        } else {
            let name = name_prefix(after);
            let reference = &rest[..=name.len()];
            match (name.is_empty(), lookup(name)) {
                (true, _) => out.push('$'),
                (false, Some(value)) => out.push_str(&value),
                (false, None) => {
                    findings.push(Finding::Unset { name: name.into(), reference: reference.into() })
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

/// The value of the reference at the start of `text` (`${…}`) and its length.
fn braced(text: &str, lookup: &Lookup<'_>, findings: &mut Vec<Finding>, depth: usize) -> (String, usize) {
    let Some(length) = braced_length(text).filter(|_| depth < MAX_DEPTH) else {
        findings.push(Finding::Invalid { reference: text.into() });
        return (String::new(), text.len());
    };
    let reference = &text[..length];
    let Some((name, operator, operand)) = split(&reference[2..length - 1]) else {
        findings.push(Finding::Invalid { reference: reference.into() });
        return (String::new(), length);
    };
    let value = lookup(name);
    let usable = value.clone().filter(|value| !operator.starts_with(':') || !value.is_empty());
    let result = match (operator.trim_start_matches(':'), usable) {
        ("-", None) => substitute(operand, lookup, findings, depth + 1),
        ("+", Some(_)) => substitute(operand, lookup, findings, depth + 1),
        ("+", None) => String::new(),
        ("?", None) => {
            let message = substitute(operand, lookup, findings, depth + 1);
            findings.push(Finding::Required { name: name.into(), message, reference: reference.into() });
            String::new()
        }
        ("", None) => {
            findings.push(Finding::Unset { name: name.into(), reference: reference.into() });
            String::new()
        }
        (_, Some(value)) => value,
        (_, None) => String::new(),
    };
    (result, length)
}

/// The length of `${…}` with balanced braces.
fn braced_length(text: &str) -> Option<usize> {
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 1 => return Some(at + 1),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// `NAME`, `NAME:-x`, … into name, operator and operand.
fn split(inside: &str) -> Option<(&str, &str, &str)> {
    let name = name_prefix(inside);
    let rest = &inside[name.len()..];
    if name.is_empty() {
        return None;
    }
    if rest.is_empty() {
        return Some((name, "", ""));
    }
    [":-", ":?", ":+", "-", "?", "+"]
        .into_iter()
        .find(|operator| rest.starts_with(operator))
        .map(|operator| (name, &rest[..operator.len()], &rest[operator.len()..]))
}

/// All references of a text, also inside operands, in order.
pub fn references(text: &str, found: &mut Vec<Reference>) {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at..];
        if rest[1..].starts_with('$') {
            rest = &rest[2..];
            continue;
        }
        let length = braced_length(rest).filter(|_| rest[1..].starts_with('{'));
        if let Some((length, (name, operator, operand))) =
            length.and_then(|l| split(&rest[2..l - 1]).map(|s| (l, s)))
        {
            let mut reference = Reference { name: name.into(), ..Reference::default() };
            match operator.trim_start_matches(':') {
                "-" => reference.default = operand.into(),
                "+" => reference.alternate = operand.into(),
                "?" => reference.required = true,
                _ => {}
            }
            found.push(reference);
            references(operand, found);
            rest = &rest[length..];
            continue;
        }
        let name = name_prefix(&rest[1..]);
        if !name.is_empty() {
            found.push(Reference { name: name.into(), ..Reference::default() });
        }
        rest = &rest[1 + name.len()..];
    }
}

/// Interpolates every string value below `node`.
pub fn tree(node: &mut Node, path: &KeyPath, lookup: &Lookup<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let place = node.place.clone();
    match &mut node.value {
        Value::Str(value) if value.contains('$') => {
            let mut findings = Vec::new();
            *value = text(value, lookup, &mut findings);
            let mut from = place.start;
            diagnostics.extend(findings.iter().map(|finding| finding.diagnose(&place, &mut from, path)));
        }
        Value::Seq(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                tree(item, &path.index(index), lookup, diagnostics);
            }
        }
        Value::Map(map) => {
            for (key, entry) in map.iter_mut() {
                tree(&mut entry.node, &path.key(key), lookup, diagnostics);
            }
        }
        _ => {}
    }
}

impl Finding {
    fn reference(&self) -> &str {
        match self {
            Finding::Unset { reference, .. }
            | Finding::Required { reference, .. }
            | Finding::Invalid { reference } => reference,
        }
    }

    /// A sentence at the reference itself, as far as it can be found in the text of the value.
    pub fn diagnose(&self, value: &Place, from: &mut usize, path: &KeyPath) -> Diagnostic {
        let place = narrow(value, self.reference(), from);
        let diagnostic = match self {
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
        diagnostic.at(place).key(path.to_string())
    }
}

fn narrow(value: &Place, reference: &str, from: &mut usize) -> Place {
    let text = &value.source.text;
    let first_line = reference.lines().next().unwrap_or(reference);
    let found = text.get(*from..value.end).and_then(|part| part.find(first_line));
    let Some(at) = found else { return value.clone() };
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
        (text(input, &lookup, &mut findings), findings)
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
