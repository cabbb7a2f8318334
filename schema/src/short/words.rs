//! A command in one string, split into words without a shell.

use super::{ShortError, error};

/// The words of a command string, and what stands behind an unquoted `;`, `&`, `|`, `<` or `>`: Compose drops it silently.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    pub words: Vec<String>,
    pub dropped: Option<String>,
}

/// Only the words.
pub fn split_words(text: &str) -> Result<Vec<String>, ShortError> {
    words(text).map(|words| words.words)
}

/// Splits at white space; quotes group, a backslash takes the next character as it is (not within single quotes), nothing is
/// expanded. `$(…)` and backticks keep their inside together and stay in the word.
pub fn words(text: &str) -> Result<Words, ShortError> {
    let mut splitter = Splitter::default();
    for (at, c) in text.char_indices() {
        if splitter.is_end(c) {
            let dropped = Some(text[at..].to_owned());
            return splitter.finish().map(|words| Words { words, dropped });
        }
        splitter.push(c)?;
    }
    splitter.finish().map(|words| Words { words, dropped: None })
}

#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    word: String,
    /// Something of the current word was seen, be it an empty pair of quotes.
    begun: bool,
    escaped: bool,
    single: bool,
    double: bool,
    backtick: bool,
    dollar: bool,
}

impl Splitter {
    fn is_plain(&self) -> bool {
        !(self.escaped || self.single || self.double || self.backtick || self.dollar)
    }

    /// A shell operator ends the command. A file descriptor number before `>` goes with it.
    fn is_end(&mut self, c: char) -> bool {
        if !self.is_plain() || !matches!(c, ';' | '&' | '|' | '<' | '>') {
            return false;
        }
        if c == '>' && self.word.starts_with(|d: char| d.is_ascii_digit()) {
            self.begun = false;
        }
        true
    }

    fn push(&mut self, c: char) -> Result<(), ShortError> {
        if self.escaped {
            self.escaped = false;
            self.take(c);
            return Ok(());
        }
        match c {
            '\\' if !self.single => self.escaped = true,
            ' ' | '\t' | '\r' | '\n' if self.is_plain() => self.end_word(),
            ' ' | '\t' | '\r' | '\n' => self.word.push(c),
            '"' if !self.single && !self.dollar => {
                self.double = !self.double;
                self.begun = true;
            }
            '\'' if !self.double && !self.dollar => {
                self.single = !self.single;
                self.begun = true;
            }
            '`' if !self.single && !self.double && !self.dollar => {
                self.backtick = !self.backtick;
                self.take(c);
            }
            '(' if !self.single && !self.double && !self.backtick => self.open(c)?,
            ')' if !self.single && !self.double && !self.backtick => {
                self.dollar = !self.dollar;
                self.take(c);
            }
            _ => self.take(c),
        }
        Ok(())
    }

    fn open(&mut self, c: char) -> Result<(), ShortError> {
        if self.dollar || !self.word.ends_with('$') {
            return error("an unquoted `(` has no meaning in a command that no shell runs");
        }
        self.dollar = true;
        self.take(c);
        Ok(())
    }

    fn take(&mut self, c: char) {
        self.word.push(c);
        self.begun = true;
    }

    fn end_word(&mut self) {
        if self.begun {
            self.words.push(std::mem::take(&mut self.word));
        }
        self.begun = false;
    }

    fn finish(mut self) -> Result<Vec<String>, ShortError> {
        if !self.is_plain() {
            return error("a quote, bracket or backslash is left open in the command");
        }
        self.end_word();
        Ok(self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_compose() {
        for (text, words) in [
            ("a b  c", vec!["a", "b", "c"]),
            ("nginx -g \"daemon off;\"", vec!["nginx", "-g", "daemon off;"]),
            ("a 'b \"c' \"d 'e\"", vec!["a", "b \"c", "d 'e"]),
            ("a\\ b \\\"c", vec!["a b", "\"c"]),
            ("x '' y", vec!["x", "", "y"]),
            ("sh -c 'echo $HOME && ls'", vec!["sh", "-c", "echo $HOME && ls"]),
            ("echo a | b", vec!["echo", "a"]),
            ("echo a 2>&1", vec!["echo", "a"]),
            ("echo $(date +%s) x", vec!["echo", "$(date +%s)", "x"]),
            ("", vec![]),
        ] {
            assert_eq!(split_words(text).expect(text), words, "{text}");
        }
        assert_eq!(words("a; b").expect("valid").dropped.as_deref(), Some("; b"));
        for text in ["a 'b", "a \"b", "a \\", "(a)"] {
            assert!(split_words(text).is_err(), "{text}");
        }
    }
}
