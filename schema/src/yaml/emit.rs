//! A tree to YAML text: two spaces, block style, quotes wherever any YAML reader would take a string for something else.

use super::{Node, Value, scalar};

/// The text of a mapping or list at the top level. Ends with a newline.
pub fn emit(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        Value::Map(map) if !map.is_empty() => block(&mut out, node, 0),
        Value::Seq(items) if !items.is_empty() => block(&mut out, node, 0),
        _ => {
            inline(&mut out, node, 0);
            out.push('\n');
        }
    }
    out
}

fn block(out: &mut String, node: &Node, indent: usize) {
    match &node.value {
        Value::Map(map) => {
            for (position, (key, entry)) in map.iter().enumerate() {
                if position > 0 || indent == 0 || out.ends_with('\n') {
                    pad(out, indent);
                }
                out.push_str(&text(key));
                out.push(':');
                member(out, &entry.node, indent + 2);
            }
        }
        Value::Seq(items) => {
            for (position, item) in items.iter().enumerate() {
                if position > 0 || indent == 0 || out.ends_with('\n') {
                    pad(out, indent);
                }
                out.push('-');
                out.push(' ');
                if is_block(item) {
                    block(out, item, indent + 2);
                } else {
                    inline(out, item, indent + 2);
                    out.push('\n');
                }
            }
        }
        _ => inline(out, node, indent),
    }
}

fn is_block(node: &Node) -> bool {
    match &node.value {
        Value::Map(map) => !map.is_empty(),
        Value::Seq(items) => !items.is_empty(),
        _ => false,
    }
}

fn member(out: &mut String, node: &Node, indent: usize) {
    if is_block(node) {
        out.push('\n');
        block(out, node, indent);
    } else {
        out.push(' ');
        inline(out, node, indent);
        out.push('\n');
    }
}

fn inline(out: &mut String, node: &Node, indent: usize) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Str(value) if is_literal(value) => literal(out, value, indent),
        Value::Str(value) => out.push_str(&text(value)),
        Value::Seq(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
    }
}

fn float(number: f64) -> String {
    if number.is_nan() {
        ".nan".into()
    } else if number.is_infinite() {
        if number > 0.0 { ".inf".into() } else { "-.inf".into() }
    } else {
        format!("{number}")
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Text with line breaks that a literal block can hold as it is.
fn is_literal(value: &str) -> bool {
    value.contains('\n')
        && !value.starts_with([' ', '\n', '\t'])
        && value.trim_end_matches('\n').len() + 1 >= value.len()
        && value.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
        && !value.lines().any(|line| line.ends_with([' ', '\t']))
}

fn literal(out: &mut String, value: &str, indent: usize) {
    out.push_str(if value.ends_with('\n') { "|" } else { "|-" });
    for line in value.lines() {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{85}')
}

/// A string as a scalar on one line: plain, in single or in double quotes.
pub fn text(value: &str) -> String {
    if !value.chars().all(is_printable) {
        return double(value);
    }
    if is_taken(value) {
        return format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    }
    if needs_quotes(value) { format!("'{}'", value.replace('\'', "''")) } else { value.to_owned() }
}

/// Some reader (YAML 1.1, 1.2 or Go's) would not read it as this string.
fn is_taken(value: &str) -> bool {
    if !matches!(scalar::resolve(value), Value::Str(_)) {
        return true;
    }
    let lower = value.to_ascii_lowercase();
    if matches!(
        lower.as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "~" | "=" | "<<"
    ) {
        return true;
    }
    // Numbers with colons, dates and whatever else begins like a number and has nothing but a number's characters.
    value.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && value.chars().any(|c| c.is_ascii_digit())
        && value.chars().all(|c| {
            c.is_ascii_hexdigit() || matches!(c, '+' | '-' | '.' | ':' | '_' | 'x' | 'o' | 'T' | 'Z' | ' ')
        })
        && !value.contains("::")
        && value.chars().filter(|c| *c == '.').count() < 3
}

fn needs_quotes(value: &str) -> bool {
    value.is_empty()
        || value.starts_with([
            '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`',
            ' ',
        ]) && !is_safe_dash(value)
        || value.ends_with([' ', ':'])
        || value.contains(": ")
        || value.contains(" #")
        || value.starts_with("---")
        || value.starts_with("...")
}

/// `-x` and `:x` are plain scalars.
fn is_safe_dash(value: &str) -> bool {
    let mut chars = value.chars();
    matches!(chars.next(), Some('-' | '?' | ':')) && chars.next().is_some_and(|c| !c.is_whitespace())
}

fn double(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push_str(&format!("\\u{:04x}", c as u32)),
        }
    }
    out.push('"');
    out
}
