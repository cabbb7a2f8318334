//! Cache keys: a hash over labelled fields, each with its length, so that no two lists of fields read alike.

use serde::{Deserialize, Serialize};
use stack_runtime::image::Digest;
use stack_runtime::image::digest::Hasher;

/// Changes when the meaning of a key changes; old records are then never found again.
const VERSION: &str = "stack-build-1";

pub(super) struct Key {
    hasher: Hasher,
    parts: Option<Parts>,
}

/// One input of a step, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) label: String,
    pub(super) value: String,
}

#[derive(Default)]
struct Parts {
    all: Vec<Part>,
    /// Before the labels of what comes now.
    about: String,
}

impl Parts {
    fn add(&mut self, label: &str, value: String) {
        let space = if self.about.is_empty() { "" } else { " " };
        self.all.push(Part { label: format!("{}{space}{label}", self.about), value });
    }
}

impl Key {
    /// `kind` keeps keys of different things apart.
    pub(super) fn new(kind: &str) -> Self {
        Self::keeping(kind, None)
    }

    /// One that keeps its parts.
    pub(super) fn of_step(kind: &str) -> Self {
        Self::keeping(kind, Some(Parts::default()))
    }

    fn keeping(kind: &str, parts: Option<Parts>) -> Self {
        let mut key = Self { hasher: Hasher::default(), parts };
        key.hash("version", VERSION.as_bytes());
        key.hash("kind", kind.as_bytes());
        key
    }

    fn hash(&mut self, label: &str, value: &[u8]) {
        self.hasher.update(&(label.len() as u64).to_le_bytes());
        self.hasher.update(label.as_bytes());
        self.hasher.update(&(value.len() as u64).to_le_bytes());
        self.hasher.update(value);
    }

    pub(super) fn bytes(mut self, label: &str, value: &[u8]) -> Self {
        self.hash(label, value);
        if let Some(parts) = &mut self.parts {
            parts.add(label, String::from_utf8_lossy(value).into_owned());
        }
        self
    }

    /// Parts from now on are shown as of this; empty: as they are called. Changes no key.
    pub(super) fn about(mut self, about: &str) -> Self {
        if let Some(parts) = &mut self.parts {
            about.clone_into(&mut parts.about);
        }
        self
    }

    /// A named value of several, which people know by its name.
    pub(super) fn named(mut self, what: &str, name: &str, value: &str) -> Self {
        self.hash("name", name.as_bytes());
        self.hash("value", value.as_bytes());
        if let Some(parts) = &mut self.parts {
            parts.add(&format!("{what} {name}"), value.to_owned());
        }
        self
    }

    pub(super) fn text(self, label: &str, value: &str) -> Self {
        self.bytes(label, value.as_bytes())
    }

    pub(super) fn number(mut self, label: &str, value: u64) -> Self {
        self.hash(label, &value.to_le_bytes());
        if let Some(parts) = &mut self.parts {
            parts.add(label, value.cast_signed().to_string());
        }
        self
    }

    /// Absent and empty differ.
    pub(super) fn optional(self, label: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(label, value),
            None => {
                let mut key = self;
                key.hash(&format!("no {label}"), b"");
                key
            }
        }
    }

    pub(super) fn list<'a>(mut self, label: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut count = 0;
        for value in values {
            self = self.text(label, value);
            count += 1;
        }
        self.hash(label, &u64::to_le_bytes(count));
        self
    }

    pub(super) fn finish(self) -> Digest {
        self.hasher.finish()
    }

    /// The key of a step with what it was made of.
    pub(super) fn parts(self) -> (Digest, Vec<Part>) {
        (self.hasher.finish(), self.parts.unwrap_or_default().all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_fields_cannot_run_together() {
        let key = |a: &str, b: &str| Key::new("t").text("x", a).text("x", b).finish();
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(
            Key::new("t").list("x", ["a", "b"]).finish(),
            Key::new("t").list("x", ["a"]).text("x", "b").finish()
        );
        assert_ne!(
            Key::new("t").optional("x", None).finish(),
            Key::new("t").optional("x", Some("")).finish()
        );
        assert_ne!(Key::new("t").finish(), Key::new("u").finish());
        assert_eq!(key("a", "b"), key("a", "b"));
    }
}
