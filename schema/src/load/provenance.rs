//! Where what stands in the model came from: overrides, `extends`, `include`, aliases, variables. It lengthens the findings
//! by the way on which the text came to where it is wrong, and answers `stack explain`.

use crate::diagnostic::Diagnostic;
use crate::env::{Env, Origin};
use crate::interpolate::Usage;
use crate::keypath::KeyPath;
use crate::source::Place;
use crate::yaml::Node;

/// What stands within `span` is there because of `via`.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) span: Place,
    pub(crate) via: Place,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `via` is what it replaced.
    Over,
    Extends,
    Include,
    Alias,
}

impl Kind {
    fn remark(self) -> &'static str {
        match self {
            Kind::Over => "goes over this",
            Kind::Extends => "extended here",
            Kind::Include => "included from here",
            Kind::Alias => "repeated here",
        }
    }
}

/// A variable in a value.
#[derive(Debug, Clone)]
struct Variable {
    usage: Usage,
    value: String,
    origin: Origin,
}

/// One step back: a remark, and the place it is about, if it is one in a file.
pub type Step = (Option<Place>, String);

#[derive(Debug, Clone, Default)]
pub struct Provenance {
    links: Vec<Link>,
    variables: Vec<Variable>,
}

/// A trail is never longer.
const LONGEST: usize = 32;

impl Provenance {
    pub(crate) fn links(&mut self) -> &mut Vec<Link> {
        &mut self.links
    }

    pub(crate) fn link(&mut self, kind: Kind, span: Place, via: Place) {
        self.links.push(Link { span, via, kind });
    }

    pub(crate) fn used(&mut self, usages: Vec<Usage>, environment: &Env) {
        for usage in usages {
            if let Some(variable) = environment.variable(&usage.name) {
                let (value, origin) = (variable.value.clone(), variable.origin.clone());
                self.variables.push(Variable { usage, value, origin });
            }
        }
    }

    /// How the value at `place` came to `path`, nearest first.
    pub fn trail(&self, place: &Place, path: &KeyPath, tree: Option<&Node>) -> Vec<Step> {
        let owner = tree.and_then(|tree| owner(tree, path));
        let mut trail = Vec::new();
        self.follow(place, owner.as_ref(), &mut trail);
        trail
    }

    fn follow(&self, place: &Place, owner: Option<&Place>, trail: &mut Vec<Step>) {
        self.follow_variables(place, trail);
        for link in self.links_of(place, owner) {
            let step = (Some(link.via.clone()), link.kind.remark().to_owned());
            if trail.len() < LONGEST && !trail.contains(&step) {
                trail.push(step);
                self.follow(&link.via, owner, trail);
            }
        }
    }

    fn follow_variables(&self, place: &Place, trail: &mut Vec<Step>) {
        for variable in self.variables.iter().filter(|variable| variable.usage.value == *place) {
            let step = variable.step();
            if trail.len() < LONGEST && !trail.contains(&step) {
                let at = step.0.clone();
                trail.push(step);
                // What the line of an env file was made of.
                if let Some(key) = at {
                    let same_line = |other: &&Variable| is_same_line(&key, &other.usage.value);
                    let values = self.variables.iter().filter(same_line).map(|other| &other.usage.value);
                    values.for_each(|value| self.follow_variables(value, trail));
                }
            }
        }
    }

    /// Of several aliases of the same text, those of the same owner; of several ways none other than the first.
    fn links_of(&self, place: &Place, owner: Option<&Place>) -> Vec<&Link> {
        let mut found: Vec<&Link> = Vec::new();
        for kind in [Kind::Over, Kind::Alias, Kind::Extends, Kind::Include] {
            let fits = |link: &&Link| {
                link.kind == kind
                    && if kind == Kind::Over { link.span == *place } else { holds(&link.span, place) }
            };
            let all: Vec<&Link> = self.links.iter().filter(fits).collect();
            let own = all.iter().find(|link| owner.is_some_and(|owner| holds(owner, &link.via)));
            found.extend(match (kind, own, &all[..]) {
                (Kind::Over, ..) => all.last(),
                (_, Some(own), _) => Some(own),
                (_, None, [only]) => Some(only),
                _ => None,
            });
        }
        found
    }

    /// Adds to a finding how its text came where it is. A value that was interpolated is shown at its `${…}`.
    pub(crate) fn lengthen(&self, diagnostic: &mut Diagnostic, tree: Option<&Node>) {
        let Some(place) = diagnostic.place.clone() else { return };
        let path = KeyPath::parse(&diagnostic.key_path).unwrap_or_default();
        for (at, remark) in self.trail(&place, &path, tree) {
            let at = at.unwrap_or_else(|| place.clone());
            let is_told = diagnostic.related.iter().any(|(told, _)| *told == at);
            if !is_told {
                diagnostic.related.push((at, remark));
            }
        }
        if let Some(first) = self.variables.iter().find(|variable| variable.usage.value == place) {
            diagnostic.place = Some(first.usage.reference.clone());
        }
    }
}

impl Variable {
    fn step(&self) -> Step {
        let shown: String = self.value.chars().take(100).collect();
        let name = &self.usage.name;
        match &self.origin {
            Origin::File(place) => (Some(place.clone()), format!("`{name}` is set to `{shown}` here")),
            Origin::Process => (None, format!("`{name}` is `{shown}` in the environment")),
            Origin::Given(who) => (None, format!("`{name}` is `{shown}`, {who}")),
        }
    }
}

fn holds(span: &Place, place: &Place) -> bool {
    std::sync::Arc::ptr_eq(&span.source, &place.source)
        && span.start <= place.start
        && place.end <= span.end
        && span != place
}

fn is_same_line(key: &Place, value: &Place) -> bool {
    std::sync::Arc::ptr_eq(&key.source, &value.source)
        && key.end <= value.start
        && !key.source.text[key.end..value.start].contains('\n')
}

/// The text of the resource a path is about, from its key on: `services.web` of `services.web.ports[0]`.
fn owner(tree: &Node, path: &KeyPath) -> Option<Place> {
    let entry = tree.get(path.key_at(0)?)?.as_map()?.entry(path.key_at(1)?)?;
    let key = &entry.key;
    let is_below =
        std::sync::Arc::ptr_eq(&key.source, &entry.node.place.source) && entry.node.place.start >= key.end;
    let line = key.source.text[key.end..].find('\n').map_or(key.source.text.len(), |at| key.end + at);
    let end = if is_below { entry.node.place.end.max(line) } else { line };
    Some(Place { source: key.source.clone(), start: key.start, end })
}
