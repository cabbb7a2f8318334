//! Events to nodes: one document after the other, with bounds on everything.

use super::{Entry, Map, Node, Tag, Value, broken, scalar, tabs};
use crate::diagnostic::Diagnostic;
use crate::source::{Place, Source};
use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Bounds on one source. A document beyond them is refused with a placed error.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Values written in the text.
    pub nodes: usize,
    /// Values that aliases add by repetition.
    pub aliased_nodes: usize,
    /// Bytes of text.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: 1_000_000, aliased_nodes: 500_000, bytes: crate::source::MAX_BYTES as usize }
    }
}

/// All documents of a source. Duplicate keys are reported and the later one is dropped, so that one run shows all of them;
/// what breaks the structure ends the parse.
pub fn parse(source: &Arc<Source>, limits: Limits, diagnostics: &mut Vec<Diagnostic>) -> Vec<Node> {
    parse_noting(source, limits, diagnostics, &mut Vec::new())
}

/// The same, and notes each alias: the place of what it repeats, and its own.
pub fn parse_noting(
    source: &Arc<Source>,
    limits: Limits,
    diagnostics: &mut Vec<Diagnostic>,
    aliases: &mut Vec<(Place, Place)>,
) -> Vec<Node> {
    if source.text.len() > limits.bytes {
        let message = format!("the file is larger than {} MiB", limits.bytes >> 20);
        diagnostics.push(Diagnostic::error(message).at(place_at(source, 0, 0)));
        return Vec::new();
    }
    let eased = tabs::eased(&source.text);
    if let Some(diagnostic) = tabs::misplaced(source, &eased) {
        diagnostics.push(diagnostic);
        return Vec::new();
    }
    let text = without_joined_comments(&eased);
    let mut composer = Composer::new(source, &text, limits, diagnostics);
    match composer.stream() {
        Ok(documents) => {
            aliases.append(&mut composer.aliases);
            documents
        }
        Err(diagnostic) => {
            composer.diagnostics.push(*diagnostic);
            Vec::new()
        }
    }
}

/// The text without comments that follow a value at once (`"80"#web`), which docker compose's reader takes for comments, too.
/// They become spaces, so that all places stay.
fn without_joined_comments(text: &str) -> Cow<'_, str> {
    // Each costs a look through the whole text.
    const MOST: usize = 20;
    let mut text = Cow::Borrowed(text);
    for _ in 0..MOST {
        if !["\"#", "'#", "]#", "}#", ",#", "[#", "{#"].iter().any(|joined| text.contains(joined)) {
            break;
        }
        let error = Parser::new_from_str(&text).find_map(Result::err);
        let is_comment = |error: &ScanError| *error.kind() == ErrorKind::CommentNotSeparated;
        let Some(at) = error.filter(is_comment).and_then(|error| error.marker().byte_offset()) else { break };
        let Some(start) = text[at..].find('#').map(|offset| at + offset) else { break };
        let end = text[start..].find(['\r', '\n']).map_or(text.len(), |offset| start + offset);
        text.to_mut().replace_range(start..end, &" ".repeat(end - start));
    }
    text
}

type Fallible<T> = Result<T, Box<Diagnostic>>;
type Spanned<'t> = (Event<'t>, Span);

struct Composer<'t, 'd> {
    source: &'t Arc<Source>,
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    limits: Limits,
    nodes: usize,
    aliased: usize,
    depth: usize,
    /// By anchor id.
    anchors: HashMap<usize, Anchor>,
    /// Of all anchors so far.
    names: Vec<String>,
    /// What is repeated, and where.
    aliases: Vec<(Place, Place)>,
    diagnostics: &'d mut Vec<Diagnostic>,
}

struct Anchor {
    /// `None` while the anchored node is still being read: an alias to it would contain itself.
    node: Option<Anchored>,
    place: Place,
}

struct Anchored {
    node: Node,
    /// Values that one alias adds.
    size: usize,
    /// Levels that one alias adds.
    height: usize,
}

/// Levels in the text: far more than anything has, and few enough for the smallest stack this runs on.
const MAX_WRITTEN: usize = 128;

/// Levels with those that aliases add.
const MAX_DEPTH: usize = 200;

fn height(node: &Node) -> usize {
    let below = match &node.value {
        Value::Seq(items) => items.iter().map(height).max(),
        Value::Map(map) => map.iter().map(|(_, entry)| height(&entry.node)).max(),
        _ => None,
    };
    1 + below.unwrap_or(0)
}

pub(super) fn place_at(source: &Arc<Source>, start: usize, end: usize) -> Place {
    let clamp = |at: usize| {
        let mut at = at.min(source.text.len());
        while !source.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (clamp(start), clamp(end));
    Place { source: source.clone(), start, end: end.max(start) }
}

impl<'t, 'd> Composer<'t, 'd> {
    fn new(
        source: &'t Arc<Source>,
        text: &'t str,
        limits: Limits,
        diagnostics: &'d mut Vec<Diagnostic>,
    ) -> Self {
        let mut options = Options::default();
        options.emit_anchor_events = true;
        let parser = Parser::new_from_str_with_options(text, options);
        Self {
            source,
            parser,
            limits,
            nodes: 0,
            aliased: 0,
            depth: 0,
            anchors: HashMap::new(),
            names: Vec::new(),
            aliases: Vec::new(),
            diagnostics,
        }
    }

    fn stream(&mut self) -> Fallible<Vec<Node>> {
        let mut documents = Vec::new();
        loop {
            match self.next()? {
                (Event::DocumentStart(..), _) => {
                    self.anchors.clear();
                    let event = self.next()?;
                    documents.push(self.node(event)?);
                }
                (Event::StreamEnd, _) => return Ok(documents),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Fallible<Spanned<'t>> {
        match self.parser.next_event() {
            Some(Ok((Event::Anchor(_, name), span))) => {
                self.anchor_name(&name, &span)?;
                self.names.push(name.into_owned());
                self.next()
            }
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(broken::diagnostic(&error, self.source, &self.names))),
            None => Ok((Event::StreamEnd, Span::empty(granit_parser::Marker::new(0, 1, 0)))),
        }
    }

    /// docker compose's reader takes fewer names than YAML allows.
    fn anchor_name(&self, name: &str, span: &Span) -> Fallible<()> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        match name.chars().find(|c| !is_plain(*c)) {
            Some(odd) if !"?:,]}%@`".contains(odd) => {
                let message = format!("the anchor `{name}` has `{odd}` in its name");
                let diagnostic = Diagnostic::error(message).at(self.place(span));
                Err(Box::new(diagnostic.hint("Names of anchors are made of letters, digits, `-` and `_`.")))
            }
            _ => Ok(()),
        }
    }

    fn place(&self, span: &Span) -> Place {
        let range = span.byte_range().unwrap_or(0..0);
        let mut place = place_at(self.source, range.start, range.end);
        let trimmed = place.source.text[place.start..place.end].trim_end().len();
        place.end = place.start + trimmed;
        place
    }

    fn count(&mut self, place: &Place) -> Fallible<()> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            let message = format!("the file holds more than {} values", self.limits.nodes);
            return Err(Box::new(Diagnostic::error(message).at(place.clone())));
        }
        Ok(())
    }

    fn node(&mut self, (event, span): Spanned<'t>) -> Fallible<Node> {
        let mut place = self.place(&span);
        self.count(&place)?;
        let before = self.nodes;
        let (value, anchor, tag) = match event {
            Event::Alias(id) => return self.alias(id, place),
            Event::Scalar(text, style, anchor, tag) => {
                let text = if span.is_empty() && style == ScalarStyle::Plain { "" } else { &text };
                let suffix = tag.as_ref().map(|tag| tag.original());
                let value = scalar_value(text, style, suffix.as_deref()).unwrap_or_else(|message| {
                    self.diagnostics.push(Diagnostic::error(message).at(place.clone()));
                    Value::Null
                });
                (value, anchor, suffix)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(anchor, &place);
                let items = self.sequence(&mut place)?;
                (Value::Seq(items), anchor, tag.map(|tag| tag.original()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(anchor, &place);
                let map = self.mapping(&mut place)?;
                (Value::Map(map), anchor, tag.map(|tag| tag.original()))
            }
            _ => return Err(Box::new(Diagnostic::error("not valid YAML: a value is missing").at(place))),
        };
        let node = Node { value, place: place.clone(), tag: merge_tag(tag.as_deref()) };
        if anchor != 0 {
            let anchored =
                Anchored { node: node.clone(), size: 1 + self.nodes - before, height: height(&node) };
            self.anchors.insert(anchor, Anchor { node: Some(anchored), place });
        }
        Ok(node)
    }

    fn open(&mut self, anchor: usize, place: &Place) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor { node: None, place: place.clone() });
        }
    }

    fn alias(&mut self, id: usize, place: Place) -> Fallible<Node> {
        let Some(anchor) = self.anchors.get(&id) else {
            return Err(Box::new(Diagnostic::error("this alias has no anchor").at(place)));
        };
        let Some(anchored) = &anchor.node else {
            let diagnostic = Diagnostic::error("this alias stands inside the value it repeats").at(place);
            return Err(Box::new(diagnostic.related(anchor.place.clone(), "the value begins here")));
        };
        self.aliased += anchored.size;
        self.nodes += anchored.size;
        if self.depth + anchored.height > MAX_DEPTH {
            return Err(Box::new(
                Diagnostic::error(format!("more than {MAX_DEPTH} levels of nesting")).at(place),
            ));
        }
        if self.aliased > self.limits.aliased_nodes {
            let message = format!("aliases repeat more than {} values", self.limits.aliased_nodes);
            return Err(Box::new(Diagnostic::error(message).at(place)));
        }
        self.aliases.push((anchored.node.place.clone(), place));
        Ok(anchored.node.clone())
    }

    /// Lengthens the place of a collection to its end, where this event stands.
    fn close(&self, place: &mut Place, span: &Span) {
        let end = self.place(span).end.max(place.start);
        let text = &self.source.text[place.start..end];
        place.end = place.start + text.trim_end().len();
    }

    /// One level further down.
    fn deepen(&mut self, place: &Place) -> Fallible<()> {
        self.depth += 1;
        if self.depth > MAX_WRITTEN {
            let message = format!("more than {MAX_WRITTEN} levels of nesting");
            let place = Place { end: place.start, ..place.clone() };
            return Err(Box::new(Diagnostic::error(message).at(place)));
        }
        Ok(())
    }

    fn sequence(&mut self, place: &mut Place) -> Fallible<Vec<Node>> {
        let mut items = Vec::new();
        self.deepen(place)?;
        loop {
            match self.next()? {
                (Event::SequenceEnd, span) => {
                    self.close(place, &span);
                    break;
                }
                event => items.push(self.node(event)?),
            }
        }
        self.depth -= 1;
        items.shrink_to_fit();
        Ok(items)
    }

    fn mapping(&mut self, place: &mut Place) -> Fallible<Map> {
        let mut map = Map::default();
        self.deepen(place)?;
        let mut merged: Option<(Place, Vec<Map>)> = None;
        loop {
            let event = match self.next()? {
                (Event::MappingEnd, span) => {
                    self.close(place, &span);
                    break;
                }
                event => event,
            };
            let is_plain = matches!(&event.0, Event::Scalar(_, ScalarStyle::Plain, _, None));
            let is_merge =
                matches!(&event.0, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event)?;
            let event = self.next()?;
            let node = self.node(event)?;
            if is_merge {
                self.merge_source(key.place, node, &mut merged);
            } else if is_plain && key.as_str().is_some_and(scalar::is_timestamp) {
                self.bad_key(&key);
            } else {
                self.insert(&mut map, key, node);
            }
        }
        self.depth -= 1;
        for (key, entry) in merged.into_iter().flat_map(|(_, maps)| maps).flatten() {
            if !map.contains_key(&key) {
                map.insert(key, entry);
            }
        }
        map.shrink();
        Ok(map)
    }

    fn insert(&mut self, map: &mut Map, key: Node, node: Node) {
        let Value::Str(name) = key.value else {
            self.bad_key(&key);
            return;
        };
        if let Some(first) = map.entry(&name) {
            let diagnostic = Diagnostic::error(format!("the key `{name}` is written twice"));
            self.diagnostics.push(diagnostic.at(key.place).related(first.key.clone(), "first written here"));
            return;
        }
        map.insert(name, Entry { key: key.place, node });
    }

    fn bad_key(&mut self, key: &Node) {
        let shown = key.scalar_text().unwrap_or_else(|| "null".into());
        let diagnostic = match &key.value {
            Value::Seq(_) | Value::Map(_) => Diagnostic::error("a key must be a string"),
            _ => Diagnostic::error(format!("the key `{shown}` is not a string"))
                .hint(format!("Write it in quotes: \"{shown}\".")),
        };
        self.diagnostics.push(diagnostic.at(key.place.clone()));
    }

    /// The value of `<<`: a mapping or a list of mappings.
    fn merge_source(&mut self, key: Place, node: Node, merged: &mut Option<(Place, Vec<Map>)>) {
        if let Some((first, _)) = merged {
            let diagnostic = Diagnostic::error("the key `<<` is written twice");
            self.diagnostics.push(
                diagnostic
                    .at(key)
                    .related(first.clone(), "first written here")
                    .hint("List both after one `<<`: `<<: [*a, *b]`."),
            );
            return;
        }
        let place = node.place.clone();
        let sources = match node.value {
            Value::Map(map) => vec![map],
            Value::Seq(items) => {
                let maps: Option<Vec<Map>> = items
                    .into_iter()
                    .map(|item| if let Value::Map(map) = item.value { Some(map) } else { None })
                    .collect();
                maps.unwrap_or_else(|| self.bad_merge(&place))
            }
            _ => self.bad_merge(&place),
        };
        *merged = Some((key, sources));
    }

    fn bad_merge(&mut self, place: &Place) -> Vec<Map> {
        self.diagnostics
            .push(Diagnostic::error("`<<` takes a mapping or a list of mappings").at(place.clone()));
        Vec::new()
    }
}

fn merge_tag(tag: Option<&str>) -> Tag {
    match tag {
        Some("!reset") => Tag::Reset,
        Some("!override") => Tag::Override,
        _ => Tag::None,
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&str>) -> Result<Value, String> {
    Ok(match tag {
        Some("!!str" | "!" | "!override") => Value::Str(text.to_owned()),
        Some(tag @ ("!!int" | "!!float" | "!!bool" | "!!null")) => tagged(text, tag)?,
        Some("!!binary") => Value::Str(binary(text)?),
        _ if style == ScalarStyle::Plain => scalar::resolve(text),
        _ => Value::Str(text.to_owned()),
    })
}

/// What the tag says, if the text can be that: `!!float 3` is, `!!bool yes` is not.
fn tagged(text: &str, tag: &str) -> Result<Value, String> {
    match (tag, scalar::resolve(text)) {
        ("!!int", value @ Value::Int(_))
        | ("!!float", value @ (Value::Float(_) | Value::Int(_)))
        | ("!!bool", value @ Value::Bool(_))
        | ("!!null", value @ Value::Null) => Ok(value),
        _ => Err(format!("`{text}` is no `{tag}`")),
    }
}

fn binary(text: &str) -> Result<String, String> {
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = base64(&plain).ok_or_else(|| format!("`{text}` is no `!!binary`: it is not base64"))?;
    String::from_utf8(bytes).map_err(|_| "what this `!!binary` holds is no text".to_owned())
}

/// Base64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for c in digits.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == c)?;
        bits = bits << 6 | u32::try_from(digit).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}
