//! Splitting a logical line: leading flags, words that keep their quotes, JSON arrays.

/// The leading `--name[=value]` words, unquoted, and what follows them.
///
/// # Errors
/// A quote that is not closed.
pub(super) fn flags(text: &str) -> Result<(Vec<String>, &str), &'static str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag_word(rest)?;
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        found.push(word);
    }
    Ok((found, rest))
}

fn flag_word(text: &str) -> Result<(String, &str), &'static str> {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return Ok((word, &text[at..])),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == '\\' => word.extend(chars.next().map(|(_, next)| next)),
            _ => word.push(c),
        }
    }
    if quote.is_some() { Err("a flag with a quote that is not closed") } else { Ok((word, "")) }
}

/// Words with their quotes and escapes, as a later expansion wants them.
pub(super) fn raw(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end stands for nothing.
            let Some(next) = chars.next() else { break };
            word.push(c);
            word.push(next);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Removes quotes and escapes; `None` when a quote is not closed.
pub(super) fn unquote(word: &str, escape: char) -> Option<String> {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape && quote != Some('\'') => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    quote.is_none().then_some(out)
}

/// What looks like the JSON form.
#[derive(Debug, PartialEq)]
pub(super) enum Json {
    Strings(Vec<String>),
    /// An array with something else than strings in it.
    Mixed,
}

/// `None` when the text is no JSON array, which makes it the shell form.
pub(super) fn json_array(text: &str) -> Option<Json> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let strings = values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    Some(strings.map_or(Json::Mixed, Json::Strings))
}
