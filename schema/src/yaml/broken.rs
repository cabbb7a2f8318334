//! What breaks the structure of a text, in words that help: where, and what is usually meant.

use super::parse::place_at;
use crate::diagnostic::Diagnostic;
use crate::load::nearest;
use crate::source::Source;
use granit_parser::{ErrorKind, ScanError};
use std::sync::Arc;

/// The finding for an error of the parser. `anchors` are those that were read so far.
pub(super) fn diagnostic(error: &ScanError, source: &Arc<Source>, anchors: &[String]) -> Diagnostic {
    let at = error.marker().byte_offset().unwrap_or(0);
    if *error.kind() == ErrorKind::UnknownAnchor {
        return unknown_anchor(source, at, anchors);
    }
    let message = format!("not valid YAML: {}", error.info());
    let diagnostic = Diagnostic::error(message).at(place_at(source, at, at));
    match hint(error.kind()) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

fn unknown_anchor(source: &Arc<Source>, at: usize, anchors: &[String]) -> Diagnostic {
    let rest = source.text.get(at + 1..).unwrap_or_default();
    let end = rest.find(|c: char| c.is_whitespace() || ",]}".contains(c)).unwrap_or(rest.len());
    let name = &rest[..end];
    let diagnostic = Diagnostic::error(format!("no anchor `&{name}` stands above this alias"));
    let diagnostic = diagnostic.at(place_at(source, at, at + 1 + end));
    match nearest(name, anchors.iter().map(String::as_str)) {
        Some(near) => diagnostic.hint(format!("Did you mean `*{near}`?")),
        None => diagnostic.hint("An alias repeats what was anchored before it in the same document."),
    }
}

/// What is mostly the cause; it may stand a line above.
fn hint(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::ExpectedDocumentStart
        | ErrorKind::InvalidIndentation
        | ErrorKind::BlockSequenceEntryNotAllowed => {
            "Indent this line like those it belongs to; a `:` or a quote may be missing above."
        }
        ErrorKind::MappingValueNotAllowed => {
            "The line above may lack its `:`, or this one is indented too far; a text with `: ` in it needs quotes."
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator => {
            "A `,` is missing, or a text with a bracket in it needs quotes: \"${NAME}\"."
        }
        ErrorKind::SimpleKeyExpected => "A key ends with `: `.",
        ErrorKind::UnexpectedCharacter { .. } => "Write the value in quotes.",
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            "Nothing can follow the closing quote; put the whole value in quotes."
        }
        ErrorKind::InvalidQuotedScalarIndent => "A quote that was opened above may not be closed.",
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => {
            "Write spaces."
        }
        ErrorKind::UnknownQuotedScalarEscape => {
            "Write `\\\\` for a backslash, or use single quotes, in which it stands for itself."
        }
        _ => return None,
    })
}
