//! Cache keys: a hash over labelled fields, each with its length, so that no two lists of fields read alike.

use stack_runtime::image::Digest;
use stack_runtime::image::digest::Hasher;

/// Changes when the meaning of a key changes; old records are then never found again.
const VERSION: &str = "stack-build-1";

pub(super) struct Key(Hasher);

impl Key {
    /// `kind` keeps keys of different things apart.
    pub(super) fn new(kind: &str) -> Self {
        Self(Hasher::default()).text("version", VERSION).text("kind", kind)
    }

    pub(super) fn bytes(mut self, label: &str, value: &[u8]) -> Self {
        self.0.update(&(label.len() as u64).to_le_bytes());
        self.0.update(label.as_bytes());
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
        self
    }

    pub(super) fn text(self, label: &str, value: &str) -> Self {
        self.bytes(label, value.as_bytes())
    }

    pub(super) fn number(self, label: &str, value: u64) -> Self {
        self.bytes(label, &value.to_le_bytes())
    }

    /// Absent and empty differ.
    pub(super) fn optional(self, label: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(label, value),
            None => self.bytes(&format!("no {label}"), b""),
        }
    }

    pub(super) fn list<'a>(mut self, label: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut count = 0;
        for value in values {
            self = self.text(label, value);
            count += 1;
        }
        self.number(label, count)
    }

    pub(super) fn finish(self) -> Digest {
        self.0.finish()
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
