//! Tabs where YAML wants spaces. The parser lets some pass; docker compose's refuses all of them, and so do we, because what is
//! meant by one is anybody's guess.

use crate::diagnostic::Diagnostic;
use crate::source::{Place, Source};
use granit_parser::{Event, Parser, ScalarStyle};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// The first tab that indents something, outside of scalars and of what stands in brackets. `None`, too, for a text that is
/// not YAML: the parse that follows says why.
pub(super) fn misplaced(source: &Arc<Source>, text: &str) -> Option<Diagnostic> {
    let indenting = indenting(text);
    if indenting.is_empty() {
        return None;
    }
    let tolerated = tolerated(text)?;
    let at = indenting.into_iter().find(|at| !tolerated.iter().any(|range| range.contains(at)))?;
    let place = Place { source: source.clone(), start: at, end: at + 1 };
    Some(Diagnostic::error("not valid YAML: a tab cannot indent").at(place).hint("Write spaces."))
}

/// The text with spaces for the tabs that begin a line in brackets or quotes that were opened above: there they only separate,
/// but the parser takes them for indentation. All places stay.
pub(super) fn eased(text: &str) -> Cow<'_, str> {
    let leading = leading(text);
    if leading.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut eased = text.to_owned();
    leading.iter().for_each(|range| space(&mut eased, range));
    let is_open = |style: ScalarStyle| matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let Some(open) = ranges(&eased, is_open) else { return Cow::Borrowed(text) };
    for range in leading {
        if !open.iter().any(|open| open.contains(&range.start)) {
            eased.replace_range(range.clone(), &text[range]);
        }
    }
    Cow::Owned(eased)
}

fn space(text: &mut String, range: &Range<usize>) {
    text.replace_range(range.clone(), &" ".repeat(range.len()));
}

/// The white space with tabs that begins a line.
fn leading(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = line.len() - line.trim_start_matches([' ', '\t']).len();
        if line[..end].contains('\t') {
            found.push(start..start + end);
        }
        start += line.len();
    }
    found
}

/// The first tab of each line that has one before its text, or behind a `-` or `?`.
fn indenting(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.trim_start_matches(' ');
        let rest = rest.trim_start_matches(['-', '?', ' ']);
        let at = line.len() - rest.len();
        let is_behind_word = line[..at].ends_with(['-', '?']) && line[..at].trim_start().len() > 1;
        if rest.starts_with('\t') && !is_behind_word {
            found.push(start + at);
        }
        start += line.len();
    }
    found
}

/// Where tabs are text or only separate: scalars, and collections in brackets.
fn tolerated(text: &str) -> Option<Vec<Range<usize>>> {
    ranges(text, |_| true)
}

/// Collections in brackets, and scalars of the styles asked for. `None` for a text that is not YAML.
fn ranges(text: &str, counts: impl Fn(ScalarStyle) -> bool) -> Option<Vec<Range<usize>>> {
    let mut ranges = Vec::new();
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.ok()?;
        let range = span.byte_range().unwrap_or(0..0);
        match event {
            Event::Scalar(_, style, ..) if !counts(style) => {}
            Event::Scalar(_, style, ..) => ranges.push(with_blank_lines(text, range, style)),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let is_flow = text.get(range.start..).is_some_and(|rest| rest.starts_with(['[', '{']));
                open.push(is_flow.then_some(range.start));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                ranges.extend(open.pop().flatten().map(|start| start..range.end));
            }
            _ => {}
        }
    }
    Some(ranges)
}

/// White space below a plain scalar still belongs to it where it is deeper than its line.
fn with_blank_lines(text: &str, range: Range<usize>, style: ScalarStyle) -> Range<usize> {
    let Some(below) = text.get(range.end..).filter(|_| style == ScalarStyle::Plain && !range.is_empty())
    else {
        return range;
    };
    let line = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
    let indent = text[line..].len() - text[line..].trim_start_matches([' ', '-']).len();
    let mut end = range.end;
    for (number, line) in below.split_inclusive('\n').enumerate() {
        let depth = line.len() - line.trim_start_matches(' ').len();
        if !line.trim().is_empty() || (number > 0 && depth <= indent) {
            break;
        }
        end += line.len();
    }
    range.start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(text: &str) -> Option<(usize, usize)> {
        let source = Arc::new(Source { name: "t".into(), path: None, text: text.into() });
        misplaced(&source, &eased(text)).and_then(|diagnostic| Some(diagnostic.place?.line_column()))
    }

    #[test]
    fn finds_tabs_that_indent() {
        for (text, at) in [
            ("a:\n  b: c\n\t\nd: e\n", (3, 1)),
            ("a:\n  b: c\n\t# note\n  d: e\n", (3, 1)),
            ("a:\n  -\tb\n", (2, 4)),
            ("\t\na: b\n", (1, 1)),
            ("a: \"b\"\n      \t\nc: d\n", (2, 7)),
        ] {
            assert_eq!(column(text), Some(at), "{text:?}");
        }
    }

    #[test]
    fn leaves_tabs_that_are_text_or_separate() {
        for text in [
            "a:\tb\t# c\n",
            "a: |\n  x\n  \ty\n  \t\nb: c\n",
            "a:\n  b: [\n\t\tc,\n \t\"d\n\te\"\n  ]\n",
            "{\n\t\"a\": [\n\t\t1\n\t]\n}\n",
            "a: --\tb\n",
            "a:\n  b: c\n      \t\nd: e\n",
            "a:\n  - --\tb\n",
        ] {
            assert_eq!(column(text), None, "{text:?}");
        }
    }
}
