//! The project's name: what was asked for, else `name:` of the last file that has one, else the directory's.

use super::Session;
use crate::diagnostic::Diagnostic;
use crate::interpolate;
use crate::source::Source;
use crate::yaml::Node;
use std::sync::Arc;

/// `[a-z0-9][a-z0-9_-]*`
pub fn is_project_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
}

/// Lower case, without what a project name cannot hold.
pub fn normalise_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

impl Session<'_> {
    pub(super) fn project_name(&mut self, inputs: &[Arc<Source>]) -> Option<String> {
        let written = self.written_name(inputs);
        if let Some(name) = self.request.project_name.clone() {
            if is_project_name(&name) {
                return Some(name);
            }
            let diagnostic = Diagnostic::error(format!("`{name}` cannot be a project name"));
            self.report(
                diagnostic
                    .hint("It begins with a lower-case letter or digit and goes on with these, `-` and `_`."),
            );
            return None;
        }
        let base = self.request.project_directory.file_name().map(|name| name.to_string_lossy().into_owned());
        let place = written.as_ref().map(|node| node.place.clone());
        let raw = written.and_then(|node| node.scalar_text()).or(base).unwrap_or_default();
        let name = normalise_name(&raw);
        if name.is_empty() {
            let diagnostic = Diagnostic::error(format!("nothing of `{raw}` is left as a project name"));
            let diagnostic = diagnostic.hint("Give the project a name with `name:` or `-p`.");
            self.report(match place {
                Some(place) => diagnostic.at(place).key("name"),
                None => diagnostic,
            });
            return None;
        }
        Some(name)
    }

    /// The last `name:`, interpolated. Parses the sources, and keeps what it parsed for the model.
    fn written_name(&mut self, inputs: &[Arc<Source>]) -> Option<Node> {
        let mut found = None;
        for source in inputs {
            let documents = self.parse(source);
            for document in &documents {
                if let Some(name) = document
                    .get("name")
                    .filter(|name| name.scalar_text().is_some_and(|text| !text.is_empty()))
                {
                    found = Some(name.clone());
                }
            }
            self.parsed.insert(Arc::as_ptr(source), documents);
        }
        let mut name = found?;
        if let Some(text) = name.as_str() {
            let lookup = |name: &str| self.environment.get(name).map(str::to_owned);
            let text = interpolate::text(text, &lookup, &mut Vec::new());
            name = Node::str(text, name.place);
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_judged() {
        assert_eq!(normalise_name("_Foo.Bar-1"), "foobar-1");
        assert_eq!(normalise_name("..."), "");
        assert!(is_project_name("a_b-1") && is_project_name("1"));
        assert!(
            !is_project_name("Foo")
                && !is_project_name("-a")
                && !is_project_name("")
                && !is_project_name("a.b")
        );
    }
}
