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
                Step::Key(key) => write_key(f, key, position == 0)?,
            }
        }
        Ok(())
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, key: &str, is_first: bool) -> fmt::Result {
    let dot = if is_first { "" } else { "." };
    let quote = if key.is_empty() || key.contains(['.', '[', ']']) { "\"" } else { "" };
    write!(f, "{dot}{quote}{key}{quote}")
}

/// A key path that borrows each step from the walk it belongs to: it costs nothing until somebody asks for its text.
#[derive(Debug, Clone, Copy)]
pub enum Trail<'a> {
    Root,
    Key(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    pub fn key<'b>(&'b self, key: &'b str) -> Trail<'b> {
        Trail::Key(self, key)
    }

    pub fn index(&self, index: usize) -> Trail<'_> {
        Trail::Index(self, index)
    }

    fn parent(&self) -> Option<&Trail<'_>> {
        match self {
            Trail::Root => None,
            Trail::Key(parent, _) | Trail::Index(parent, _) => Some(parent),
        }
    }

    fn upwards(&self) -> impl Iterator<Item = &Trail<'_>> {
        std::iter::successors(Some(self), |trail| trail.parent())
    }

    pub fn depth(&self) -> usize {
        self.upwards().count() - 1
    }

    /// The key at a depth, e.g. the service's at depth 1.
    pub fn key_at(&self, depth: usize) -> Option<&str> {
        let above = self.depth().checked_sub(depth + 1)?;
        match self.upwards().nth(above)? {
            Trail::Key(_, key) => Some(key),
            Trail::Root | Trail::Index(..) => None,
        }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Key(parent, key) => {
                write!(f, "{parent}")?;
                write_key(f, key, matches!(parent, Trail::Root))
            }
            Trail::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
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

    #[test]
    fn a_trail_reads_like_the_path() {
        let (services, list) = (Trail::Root.key("services"), Trail::Root.index(3));
        let service = services.key("a.b");
        let ports = service.key("ports");
        let (port, bare) = (ports.index(1), list.key("k"));
        assert_eq!(port.key("target").to_string(), "services.\"a.b\".ports[1].target");
        assert_eq!((bare.to_string().as_str(), Trail::Root.to_string().as_str()), ("[3].k", ""));
        assert_eq!(
            (port.depth(), port.key_at(1), port.key_at(3), port.key_at(4)),
            (4, Some("a.b"), None, None)
        );
    }
}
