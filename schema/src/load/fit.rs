//! Does a document fit the table? Forms, unknown keys, allowed values; scalars are cast to what they mean.
//! A value that does not fit is reported and nulled, so that later phases see only what fits.

use crate::attributes::{self, Attribute, Cast, Shape, Short, Support, form};
use crate::diagnostic::Diagnostic;
use crate::keypath::Trail;
use crate::short;
use crate::yaml::{Entry, Map, Node, Tag, Value, scalar};
use std::collections::HashSet;

pub(super) struct Fit<'d> {
    /// Strings with `$` were not interpolated and are not judged; what is judged stays as written.
    pub(super) lenient: bool,
    /// What the earlier files say.
    pub(super) base: Option<&'d Node>,
    pub(super) diagnostics: &'d mut Vec<Diagnostic>,
}

/// More findings of one kind than this would never be shown, and take time to make.
const ENOUGH: usize = 1001;

impl Fit<'_> {
    pub(super) fn root(&mut self, document: &mut Node) {
        self.node(document, attributes::root(), &Trail::Root);
        if let Some(version) = document.as_map().and_then(|map| map.entry("version")) {
            let message = "the attribute `version` is obsolete and has no effect";
            self.diagnostics
                .push(Diagnostic::warning(message).at(version.key.clone()).key("version").hint("Remove it."));
        }
    }

    pub(super) fn node(&mut self, node: &mut Node, shape: &Shape, path: &Trail<'_>) {
        if node.tag == Tag::Reset || self.is_open(node) {
            return;
        }
        if let Some(attribute) = shape.attribute {
            if !attribute.accepts(bits(&node.value)) {
                if self.joins(node, attribute, path) {
                    return;
                }
                // A null may yet meet a value of an earlier file, which it keeps: `nulls` judges what is left of it.
                let is_open = node.is_null()
                    && matches!(path, Trail::Key(parent, key) if *key != "services" || !matches!(parent, Trail::Root));
                if !is_open {
                    let diagnostic = misfit(node, attribute, path);
                    self.drop_with(node, diagnostic);
                }
                return;
            }
            if attribute.support == Support::Refused {
                let diagnostic = Diagnostic::error(format!("`{}` is not supported", last(path)));
                self.drop_with(node, diagnostic.key(path.to_string()).at(node.place.clone()));
                return;
            }
        }
        match &mut node.value {
            Value::Map(_) => self.members(node, shape, path),
            Value::Seq(_) => self.items(node, shape, path),
            _ => self.scalar(node, shape.attribute, path),
        }
    }

    /// A string over a list or mapping of an earlier file counts as a list of one where these are joined as lists; any other
    /// single value says nothing there.
    fn joins(&mut self, node: &mut Node, attribute: &Attribute, path: &Trail<'_>) -> bool {
        let is_scalar = node.scalar_text().is_some();
        let meets = find(path, self.base).is_some_and(|earlier| !earlier.is_null());
        if !is_scalar || !meets || !attribute.short.meets_scalars() {
            return false;
        }
        let adds = node.as_str().is_some() && attribute.short.merges_as_list();
        let effect = if adds { "counts as a list of one" } else { "has no effect" };
        let message = format!("`{}` is {}, which {effect}", shown(path), node.kind_name());
        let warning = Diagnostic::warning(message).at(node.place.clone()).key(path.to_string());
        self.diagnostics.push(warning.hint("Write a list."));
        let item = Node { tag: Tag::None, ..node.clone() };
        node.value = if adds { Value::Seq(vec![item]) } else { Value::Null };
        true
    }

    fn is_open(&self, node: &Node) -> bool {
        self.lenient && node.as_str().is_some_and(|text| text.contains('$'))
    }

    fn drop_with(&mut self, node: &mut Node, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
        node.value = Value::Null;
    }

    fn members(&mut self, node: &mut Node, shape: &Shape, path: &Trail<'_>) {
        if shape.members.is_empty() && shape.any.is_none() {
            return;
        }
        let Value::Map(map) = &mut node.value else { return };
        let mut unknown = Vec::new();
        for (key, entry) in map.iter_mut() {
            let is_extension = key.starts_with("x-") && !shape.is_user_keyed();
            match shape.member(key) {
                _ if is_extension || entry.node.tag == Tag::Reset => {}
                Some(below) => {
                    self.key(key, entry, shape, path);
                    self.node(&mut entry.node, below, &path.key(key));
                }
                None => unknown.push(key.to_owned()),
            }
        }
        if unknown.is_empty() {
            return;
        }
        for (key, entry) in unknown.iter().filter_map(|key| Some((key, map.entry(key)?))).take(ENOUGH) {
            self.diagnostics.push(unknown_key(key, entry, shape, path));
        }
        let unknown: HashSet<&str> = unknown.iter().map(String::as_str).collect();
        map.retain(|key, _| !unknown.contains(key));
    }

    /// The key of a resource or service.
    fn key(&mut self, key: &str, entry: &Entry, shape: &Shape, path: &Trail<'_>) {
        let has_names = shape.attribute.is_some_and(|attribute| attribute.names);
        let fits =
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if has_names && !fits {
            let message = format!("`{key}` cannot be a key of `{}`", shown(path));
            let diagnostic = Diagnostic::error(message).at(entry.key.clone()).key(path.key(key).to_string());
            self.diagnostics.push(diagnostic.hint("Keys are made of letters, digits, `.`, `_` and `-`."));
        }
    }

    fn items(&mut self, node: &mut Node, shape: &Shape, path: &Trail<'_>) {
        let Value::Seq(items) = &mut node.value else { return };
        let text_only =
            shape.item.is_none() && shape.attribute.is_some_and(|attribute| attribute.short != Short::None);
        for (index, item) in items.iter_mut().enumerate() {
            let path = path.index(index);
            match &shape.item {
                Some(below) => self.node(item, below, &path),
                None if text_only && item.as_str().is_none() && item.tag != Tag::Reset => {
                    let message =
                        format!("`{}` must be a string, this is {}", shown(&path), item.kind_name());
                    let diagnostic = Diagnostic::error(message).at(item.place.clone()).key(path.to_string());
                    self.drop_with(item, diagnostic);
                }
                None => {}
            }
        }
        // Null items are what was just refused, or tagged `!reset`: they are not part of the list.
        items.retain(|item| item.tag != Tag::Reset && !item.is_null());
    }

    fn scalar(&mut self, node: &mut Node, attribute: Option<&Attribute>, path: &Trail<'_>) {
        let Some(attribute) = attribute else { return };
        if node.is_null() {
            return;
        }
        if let Some(text) =
            node.as_str().filter(|text| node.place.is_text(text) && scalar::is_timestamp(text))
        {
            let message = format!("`{}` is a date, which no attribute takes", shown(path));
            let hint = format!("Write it in quotes: \"{text}\".");
            self.drop_with(
                node,
                Diagnostic::error(message).at(node.place.clone()).key(path.to_string()).hint(hint),
            );
            return;
        }
        match cast(&node.value, attribute) {
            Ok(value) => {
                if let (Value::Int(whole), Value::Float(number)) = (&value, &node.value)
                    && number.fract() != 0.0
                {
                    let message = format!("`{}` is a whole number: {whole}, not {number}", shown(path));
                    let diagnostic =
                        Diagnostic::warning(message).at(node.place.clone()).key(path.to_string());
                    self.diagnostics.push(diagnostic.hint("The fraction is dropped."));
                }
                if let (Value::Bool(is), Some(text)) = (&value, node.as_str())
                    && !matches!(text, "true" | "false")
                {
                    let message = format!("`{text}` as a boolean is not YAML 1.2");
                    let diagnostic =
                        Diagnostic::warning(message).at(node.place.clone()).key(path.to_string());
                    self.diagnostics.push(diagnostic.hint(format!("Write `{is}`.")));
                }
                if !self.lenient {
                    node.value = value;
                }
            }
            Err(reason) => {
                let message = format!("`{}` is not valid: {reason}", shown(path));
                let diagnostic = Diagnostic::error(message).at(node.place.clone()).key(path.to_string());
                self.drop_with(node, diagnostic);
                return;
            }
        }
        self.allowed(node, attribute, path);
    }

    fn allowed(&mut self, node: &Node, attribute: &Attribute, path: &Trail<'_>) {
        let at = |diagnostic: Diagnostic| diagnostic.at(node.place.clone()).key(path.to_string());
        if let (Some(text), false) = (node.as_str(), attribute.one_of.is_empty())
            && !attribute.one_of.contains(&text)
        {
            let near = nearest(text, attribute.one_of.iter().copied());
            let allowed =
                attribute.one_of.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
            let hint = near
                .map_or_else(|| format!("It is one of {allowed}."), |near| format!("Did you mean `{near}`?"));
            self.diagnostics
                .push(at(Diagnostic::error(format!("`{text}` is no value of `{}`", shown(path)))).hint(hint));
        }
        let number = match node.value {
            Value::Int(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => None,
        };
        if let (Some(number), Some((low, high))) = (number, attribute.range)
            && !(low as f64..=high as f64).contains(&number)
        {
            let bounds = match (low, high) {
                (0, i64::MAX) => "must not be negative".to_owned(),
                _ => format!("must be from {low} to {high}"),
            };
            self.diagnostics.push(at(Diagnostic::error(format!("`{}` {bounds}", shown(path)))));
        }
    }
}

/// What a tree has at a path.
pub(super) fn find<'n>(path: &Trail<'_>, tree: Option<&'n Node>) -> Option<&'n Node> {
    match path {
        Trail::Root => tree,
        Trail::Key(parent, key) => find(parent, tree)?.get(key),
        Trail::Index(parent, index) => find(parent, tree)?.as_seq()?.get(*index),
    }
}

/// Reports the nulls that are left after a merge where there must be a value.
pub(super) fn nulls(node: &Node, shape: &Shape, path: &Trail<'_>, diagnostics: &mut Vec<Diagnostic>) {
    match &node.value {
        Value::Null => {
            let misplaced = shape.attribute.filter(|attribute| !attribute.accepts(form::NULL));
            let is_known = || diagnostics.iter().any(|known| known.place.as_ref() == Some(&node.place));
            let is_enough = || diagnostics.len() > ENOUGH;
            if let Some(attribute) =
                misplaced.filter(|_| node.tag != Tag::Reset && !is_enough() && !is_known())
            {
                diagnostics.push(misfit(node, attribute, path));
            }
        }
        Value::Map(map) => {
            for (key, entry) in map.iter() {
                let is_extension = key.starts_with("x-") && !shape.is_user_keyed();
                if let Some(below) = shape.member(key).filter(|_| !is_extension) {
                    nulls(&entry.node, below, &path.key(key), diagnostics);
                }
            }
        }
        Value::Seq(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Some(below) = &shape.item {
                    nulls(item, below, &path.index(index), diagnostics);
                }
            }
        }
        _ => {}
    }
}

fn misfit(node: &Node, attribute: &Attribute, path: &Trail<'_>) -> Diagnostic {
    let expected = expected(attribute.forms);
    let message = format!("`{}` must be {expected}, this is {}", shown(path), node.kind_name());
    let mut diagnostic = Diagnostic::error(message).at(node.place.clone()).key(path.to_string());
    let text = &node.place.source.text[node.place.start..node.place.end];
    if node.is_null() && !attribute.accepts(form::STR) {
        diagnostic = diagnostic.hint("Remove the key, or give it what belongs below it, further indented.");
    }
    let is_service_key =
        matches!(path, Trail::Key(Trail::Key(_, "services"), key) if service_has(key)) && path.depth() == 2;
    if is_service_key {
        let hint = format!("`{}` belongs to a service: indent it below one.", last(path));
        return diagnostic.hint(hint);
    }
    let is_scalar = matches!(node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
    if is_scalar && attribute.accepts(form::STR) && !text.contains('\n') {
        diagnostic = diagnostic.hint(format!("Write it in quotes: \"{text}\"."));
    }
    diagnostic
}

fn bits(value: &Value) -> u8 {
    match value {
        Value::Null => form::NULL,
        Value::Bool(_) => form::BOOL,
        Value::Int(_) => form::INT,
        Value::Float(number) if number.fract() == 0.0 => form::INT,
        Value::Float(_) => form::FLOAT & !form::INT,
        Value::Str(_) => form::STR,
        Value::Seq(_) => form::LIST,
        Value::Map(_) => form::MAP,
    }
}

fn expected(forms: u8) -> String {
    let has_float = forms & form::FLOAT == form::FLOAT;
    let names = [
        (form::MAP, "a mapping"),
        (form::LIST, "a list"),
        (form::STR, "a string"),
        (form::INT, if has_float { "a number" } else { "a whole number" }),
        (form::BOOL, "true or false"),
    ];
    let accepted: Vec<&str> =
        names.iter().filter(|(bit, _)| forms & bit != 0).map(|(_, name)| *name).collect();
    match accepted.split_last() {
        None => "null".into(),
        Some((only, [])) => (*only).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// Casts a scalar that has one of the accepted forms.
pub(super) fn cast(value: &Value, attribute: &Attribute) -> Result<Value, String> {
    match (attribute.cast, value) {
        (Cast::None, _) => Ok(value.clone()),
        (Cast::Text, Value::Float(_)) if !attribute.accepts(form::FLOAT & !form::INT) => {
            Err("a number has no fraction here".into())
        }
        (Cast::Text, _) if matches!(value, Value::Seq(_) | Value::Map(_)) => Ok(value.clone()),
        (Cast::Text, _) => Ok(Value::Str(Node::scalar_of(value).unwrap_or_default())),
        (_, Value::Float(number)) if !number.is_finite() => Err("it is not finite".into()),
        (Cast::Bool, Value::Str(text)) => boolean(text),
        (Cast::Int, Value::Str(text)) => {
            text.parse().map(Value::Int).map_err(|_| format!("`{text}` is no whole number"))
        }
        (Cast::Int, Value::Float(number)) if number.fract() == 0.0 => Ok(Value::Int(*number as i64)),
        (Cast::Int, Value::Float(number)) if attribute.accepts(form::FLOAT & !form::INT) => {
            Ok(Value::Int(*number as i64))
        }
        (Cast::Int, Value::Float(number)) => Err(format!("{number} is no whole number")),
        (Cast::Float, Value::Str(text)) => {
            let number: f32 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
            if !number.is_finite() {
                return Err(format!("`{text}` is not finite"));
            }
            if number.fract() != 0.0 && !attribute.accepts(form::FLOAT & !form::INT) {
                return Err(format!("{number} is no whole number"));
            }
            Ok(single(f64::from(number)))
        }
        (Cast::Float, Value::Int(number)) => Ok(single(*number as f64)),
        (Cast::Float, Value::Float(number)) => Ok(single(*number)),
        (Cast::Bytes, Value::Str(text)) => short::parse_bytes(text)
            .map(|bytes| Value::Str(bytes.0.to_string()))
            .map_err(|error| error.to_string()),
        (Cast::Bytes, Value::Int(number)) => Ok(Value::Str(number.to_string())),
        (Cast::Bytes, Value::Float(number)) => Ok(Value::Str((*number as i64).to_string())),
        (Cast::Duration, Value::Str(text)) => {
            short::canonical_duration(text).map(Value::Str).map_err(|error| error.to_string())
        }
        (Cast::Octal, Value::Str(text)) => {
            short::parse_mode(text).map(octal).map_err(|error| error.to_string())
        }
        (Cast::Octal, Value::Int(number)) if (0..=0o7777).contains(number) => Ok(octal(*number as u32)),
        (Cast::Octal, _) => Err("it is no file mode".into()),
        (Cast::Count, Value::Str(text)) if text == "all" => Ok(Value::Int(-1)),
        (Cast::Count, Value::Str(text)) => {
            text.parse().map(Value::Int).map_err(|_| format!("`{text}` is neither a number nor `all`"))
        }
        _ => Ok(value.clone()),
    }
}

fn octal(mode: u32) -> Value {
    Value::Str(format!("0{mode:o}"))
}

/// A number in single precision, as docker compose holds it.
fn single(number: f64) -> Value {
    let shortest: f64 = (number as f32).to_string().parse().unwrap_or(number);
    if shortest.fract() == 0.0 && shortest.abs() < 1e15 {
        Value::Int(shortest as i64)
    } else {
        Value::Float(shortest)
    }
}

fn boolean(text: &str) -> Result<Value, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "on" => Ok(Value::Bool(true)),
        "false" | "no" | "n" | "off" => Ok(Value::Bool(false)),
        _ => Err(format!("`{text}` is no boolean")),
    }
}

fn unknown_key(key: &str, entry: &Entry, shape: &Shape, path: &Trail<'_>) -> Diagnostic {
    let owner = match (path.depth(), path.key_at(0), path.key_at(1)) {
        (0, ..) => "at the top level".to_owned(),
        (2, Some("services"), Some(service)) => format!("in service `{service}`"),
        _ => format!("in `{}`", shown(path)),
    };
    let message = format!("unknown attribute `{key}` {owner}");
    let diagnostic = match shape.attribute {
        Some(Attribute { open: true, .. }) => Diagnostic::warning(message),
        _ => Diagnostic::error(message),
    };
    let diagnostic = diagnostic.at(entry.key.clone()).key(path.key(key).to_string());
    if let Some(near) = nearest(key, shape.members.keys().copied()) {
        return diagnostic.hint(format!("Did you mean `{near}`?"));
    }
    if !matches!(path, Trail::Root) {
        return diagnostic;
    }
    if service_has(key) {
        return diagnostic.hint(format!("`{key}` belongs to a service: indent it below one."));
    }
    match entry.node.as_map().is_some_and(|members| members.keys().any(service_has)) {
        true => diagnostic.hint(format!("If `{key}` is a service, indent it below `services:`.")),
        false => diagnostic,
    }
}

/// Whether services have an attribute of this name.
fn service_has(key: &str) -> bool {
    attributes::root().find("services.*").is_some_and(|service| service.members.contains_key(key))
}

/// The candidate within a third of its length in edits, if one is nearest.
pub(crate) fn nearest<'c>(text: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let text = plain(text);
    candidates
        .map(|candidate| (distance(&text, &plain(candidate)), candidate))
        .filter(|(edits, candidate)| *edits <= candidate.len().max(3) / 3)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance where swapping two neighbours counts as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The path in a sentence: `services.web.ports`.
fn shown(path: &Trail<'_>) -> String {
    if matches!(path, Trail::Root) { "the file".into() } else { path.to_string() }
}

fn last(path: &Trail<'_>) -> String {
    match path {
        Trail::Root => String::new(),
        Trail::Key(_, key) => (*key).to_owned(),
        Trail::Index(_, index) => format!("[{index}]"),
    }
}

/// Members that a mapping must have, on the merged tree.
pub(super) fn needed(node: &Node, shape: &Shape, path: &Trail<'_>, diagnostics: &mut Vec<Diagnostic>) {
    match &node.value {
        Value::Map(map) => {
            let needs = shape.attribute.map_or(&[][..], |attribute| attribute.needs);
            for member in needs.iter().filter(|member| !map.contains_key(member)) {
                let message = format!("`{}` needs the attribute `{member}`", shown(path));
                diagnostics.push(Diagnostic::error(message).at(node.place.clone()).key(path.to_string()));
            }
            needed_below(map, shape, path, diagnostics);
        }
        Value::Seq(items) => {
            let Some(below) = &shape.item else { return };
            for (index, item) in items.iter().enumerate() {
                needed(item, below, &path.index(index), diagnostics);
            }
        }
        _ => {}
    }
}

fn needed_below(map: &Map, shape: &Shape, path: &Trail<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for (key, entry) in map.iter() {
        let is_extension = key.starts_with("x-") && !shape.is_user_keyed();
        if let Some(below) = shape.member(key).filter(|_| !is_extension) {
            needed(&entry.node, below, &path.key(key), diagnostics);
        }
    }
}
