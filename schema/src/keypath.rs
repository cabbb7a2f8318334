//! A key path names a place in the tree: `services.web.ports[1]`.

use std::fmt;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// Steps from the root. Displayed with dots and brackets; a key that holds a dot or bracket is displayed in quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyPath {
    steps: Vec<Step>,
}

impl KeyPath {
    pub fn root() -> Self {
        Self::default()
    }

    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    pub fn then(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.steps.len() + 1);
        steps.extend_from_slice(&self.steps);
        steps.push(step);
        Self { steps }
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The path without its last step; the root's parent is the root.
    pub fn parent(&self) -> Self {
        Self { steps: self.steps[..self.steps.len().saturating_sub(1)].to_vec() }
    }

    /// The key at a depth, e.g. the service's at depth 1.
    pub fn key_at(&self, depth: usize) -> Option<&str> {
        match self.steps.get(depth)? {
            Step::Key(key) => Some(key),
            Step::Index(_) => None,
        }
    }

    /// Reads what [`fmt::Display`] writes; `None` for unbalanced brackets or quotes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix('[') {
                let (number, tail) = tail.split_once(']')?;
                steps.push(Step::Index(number.parse().ok()?));
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix('"') {
                let (key, tail) = tail.split_once('"')?;
                steps.push(Step::Key(key.to_owned()));
                rest = tail;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                steps.push(Step::Key(rest[..end].to_owned()));
                rest = &rest[end..];
            }
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        Some(Self { steps })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.steps.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if position == 0 { "" } else { "." };
                    let quote = if key.is_empty() || key.contains(['.', '[', ']']) { "\"" } else { "" };
                    write!(f, "{dot}{quote}{key}{quote}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_and_reads_back() {
        let path = KeyPath::root().key("services").key("a.b").key("ports").index(1).key("target");
        assert_eq!(path.to_string(), "services.\"a.b\".ports[1].target");
        assert_eq!(KeyPath::parse(&path.to_string()), Some(path));
        assert_eq!(KeyPath::parse("a[x]"), None);
    }
}
