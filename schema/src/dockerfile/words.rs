//! Splitting a logical line: its keyword, leading flags, words that keep their quotes, JSON arrays.

/// What separates words; other blanks of Unicode do not.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// The first word, and what follows the blanks behind it.
pub(super) fn first(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(is_blank)?;
    Some((word, rest.trim_start_matches(is_blank)))
}

/// The words between blanks.
pub(super) fn blank_separated(text: &str) -> Vec<&str> {
    text.split(is_blank).filter(|word| !word.is_empty()).collect()
}

/// The leading `--name[=value]` words, unquoted, and what follows them. Quotes and escapes may be open at the end.
pub(super) fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag_word(rest, escape);
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        found.push(word);
    }
    (found, rest.trim_end())
}

fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, next)| next)),
            _ => word.push(c),
        }
    }
    (word, "")
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

/// What looks like the JSON form.
#[derive(Debug, PartialEq)]
pub(super) enum Json {
    Strings(Vec<String>),
    /// An array with something else than strings in it.
    Mixed,
}

/// `None` when the text is no JSON array, which makes it the shell form.
pub(super) fn json_array(text: &str) -> Option<Json> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let strings = values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    Some(strings.map_or(Json::Mixed, Json::Strings))
}
