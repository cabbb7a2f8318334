//! The table: one row per Compose attribute. Checking, casting, short forms, merging, paths, the order of the rendered file,
//! the warnings about what is not honoured and the table in the crate's README all come from it.
//!
//! A row's path uses `*` for "any key" and `[]` for "any item". The order of the rows is the order in which docker compose
//! writes the attributes.

mod build;
mod deploy;
pub mod json_schema;
mod service;
mod top;

use indexmap::IndexMap;
use std::sync::LazyLock;

/// Forms a value may have in the text, as bits of [`Attribute::forms`].
pub mod form {
    pub const NULL: u8 = 1;
    pub const BOOL: u8 = 2;
    /// A whole number.
    pub const INT: u8 = 4;
    /// A number with a fraction; includes [`INT`] wherever it is used.
    pub const FLOAT: u8 = 8 | INT;
    pub const STR: u8 = 16;
    pub const LIST: u8 = 32;
    pub const MAP: u8 = 64;
    /// Anything but a collection or null.
    pub const SCALAR: u8 = BOOL | FLOAT | STR;
    pub const ANY: u8 = 127;
}

/// What a scalar means; strings are read accordingly, and the canonical tree holds the canonical spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    None,
    /// Canonical: a boolean.
    Bool,
    /// Canonical: an integer.
    Int,
    /// Canonical: a number in single precision.
    Float,
    /// `64m`; canonical: the number of bytes as a string.
    Bytes,
    /// `1m30s`; canonical: the same as a string in Go's spelling.
    Duration,
    /// An octal mode: a string is octal, a number is its value; canonical: `"0440"`.
    Octal,
    /// A number or string; canonical: a string.
    Text,
    /// `all` or a number of devices; canonical: an integer, -1 for all.
    Count,
}

/// How a later file's value meets an earlier one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Mappings merge, lists append, scalars replace; null keeps what is there.
    Default,
    /// The later value replaces the earlier one, null too.
    Replace,
    /// Merges only when both name the same driver, or one names none.
    SameDriver,
    /// Pools of the same subnet merge; pools the later file does not name are dropped.
    Pools,
}

/// The short form of an attribute, made long by `load::canonical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    None,
    /// A string is the build context.
    Build,
    /// A list of names becomes a mapping of conditions.
    DependsOn,
    /// A list of names becomes a mapping to null.
    Names,
    /// A list of `K=V` becomes a mapping; values become strings, null stays.
    KeyValue,
    /// Like [`Short::KeyValue`], null becomes empty.
    Labels,
    /// A mapping whose values become strings.
    Strings,
    /// A string becomes a list of one.
    OneOrMore,
    /// A string is split into words.
    Words,
    /// A string becomes `[CMD-SHELL, string]`.
    HealthTest,
    /// Strings become `{path, required: true}`.
    EnvFile,
    Port,
    Volume,
    Device,
    /// A string becomes `{source}`.
    Grant,
    /// `all` becomes one request for every GPU.
    Gpus,
    /// Mapping or list becomes a list of `host=address`.
    Hosts,
    /// Mapping or list becomes a list of `id` or `id=path`.
    Ssh,
    /// `{name}` becomes true and the resource's `name`.
    External,
    /// A string or list of scalars becomes a list of strings.
    Texts,
}

impl Short {
    /// Forms that merge as a list of texts when none was made long.
    pub fn merges_as_list(self) -> bool {
        matches!(self, Self::KeyValue | Self::Labels | Self::OneOrMore | Self::Hosts)
    }

    /// Forms whose lists or mappings docker compose lets a single value of a later file meet.
    pub fn meets_scalars(self) -> bool {
        self.merges_as_list() || matches!(self, Self::DependsOn | Self::Names | Self::EnvFile)
    }
}

/// Whether a value is a path, and against what it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    None,
    /// Against the project directory, `~` too.
    Local,
    /// The same; a path of Windows stays.
    Foreign,
    /// A directory or a remote reference (`https://…`, `git@…`, `docker-image://…`).
    Context,
}

/// When two items of a list are the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unique {
    /// They never are: identical items both stay.
    No,
    /// Equal items: the later one is dropped silently.
    Value,
    /// Equal items are an error.
    Strict,
    /// Items with the same text before `=`.
    Key,
    /// Mappings whose member of this name is equal.
    Member(&'static str),
    /// host_ip, published, target and protocol.
    Port,
    /// The target, or this prefix and the source.
    Target(&'static str),
}

/// Whether `stack` does what the attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Honoured,
    /// Accepted, carried, and one warning says that it has no effect.
    NotYet,
    /// Accepted and without effect in docker compose on one machine, too: no warning.
    Inert,
    /// An error.
    Refused,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    pub path: &'static str,
    pub forms: u8,
    pub cast: Cast,
    pub merge: Merge,
    pub short: Short,
    pub kind: PathKind,
    pub unique: Unique,
    /// The allowed strings; empty: any.
    pub one_of: &'static [&'static str],
    /// Members that a mapping must have.
    pub needs: &'static [&'static str],
    /// The range of a number.
    pub range: Option<(i64, i64)>,
    /// A zero, false or empty value is kept in the canonical form.
    pub keep_zero: bool,
    /// The keys of a user-keyed mapping are `[a-zA-Z0-9._-]+`.
    pub names: bool,
    /// An unknown member is only warned about.
    pub open: bool,
    /// Another row whose members these are; its own come behind them.
    pub like: Option<&'static str>,
    pub support: Support,
    pub doc: &'static str,
}

/// A row that accepts `forms`; everything else is said by the methods that follow it.
const fn row(path: &'static str, forms: u8, doc: &'static str) -> Attribute {
    Attribute {
        path,
        forms,
        cast: Cast::None,
        merge: Merge::Default,
        short: Short::None,
        kind: PathKind::None,
        unique: Unique::No,
        one_of: &[],
        needs: &[],
        range: None,
        keep_zero: false,
        names: false,
        open: false,
        like: None,
        support: Support::Honoured,
        doc,
    }
}

/// A boolean, also as a string.
const fn boolean(path: &'static str, doc: &'static str) -> Attribute {
    row(path, form::BOOL | form::STR, doc).cast(Cast::Bool)
}

/// A whole number, also as a string.
const fn integer(path: &'static str, doc: &'static str) -> Attribute {
    row(path, form::INT | form::STR, doc).cast(Cast::Int)
}

/// A string that is a duration.
const fn duration(path: &'static str, doc: &'static str) -> Attribute {
    row(path, form::STR, doc).cast(Cast::Duration)
}

/// A size in bytes, as number or string.
const fn bytes(path: &'static str, doc: &'static str) -> Attribute {
    row(path, form::FLOAT | form::STR, doc).cast(Cast::Bytes)
}

/// A list of strings in which equal items count once.
const fn strings(path: &'static str, doc: &'static str) -> Attribute {
    row(path, form::LIST, doc).unique(Unique::Value)
}

/// A mapping or a list of `K=V`, whose values become strings.
const fn labels(path: &'static str, doc: &'static str) -> Attribute {
    row(path, form::MAP | form::LIST, doc).short(Short::Labels)
}

/// A mapping or a list of `K=V`, in which null has a meaning of its own.
const fn key_values(path: &'static str, doc: &'static str) -> Attribute {
    row(path, form::MAP | form::LIST, doc).short(Short::KeyValue)
}

impl Attribute {
    const fn cast(mut self, cast: Cast) -> Self {
        self.cast = cast;
        self
    }
    const fn merge(mut self, merge: Merge) -> Self {
        self.merge = merge;
        self
    }
    const fn short(mut self, short: Short) -> Self {
        self.short = short;
        self
    }
    const fn kind(mut self, kind: PathKind) -> Self {
        self.kind = kind;
        self
    }
    const fn unique(mut self, unique: Unique) -> Self {
        self.unique = unique;
        self
    }
    const fn one_of(mut self, allowed: &'static [&'static str]) -> Self {
        self.one_of = allowed;
        self
    }
    const fn needs(mut self, members: &'static [&'static str]) -> Self {
        self.needs = members;
        self
    }
    const fn range(mut self, low: i64, high: i64) -> Self {
        self.range = Some((low, high));
        self
    }
    const fn keep_zero(mut self) -> Self {
        self.keep_zero = true;
        self
    }
    const fn names(mut self) -> Self {
        self.names = true;
        self
    }
    const fn open(mut self) -> Self {
        self.open = true;
        self
    }
    const fn like(mut self, path: &'static str) -> Self {
        self.like = Some(path);
        self
    }
    const fn not_yet(mut self) -> Self {
        self.support = Support::NotYet;
        self
    }
    const fn inert(mut self) -> Self {
        self.support = Support::Inert;
        self
    }

    pub fn accepts(&self, bits: u8) -> bool {
        self.forms & bits != 0
    }

    /// docker compose makes its short form long only where values get their types: it is kept as written when nothing is
    /// interpolated.
    pub fn is_late(&self) -> bool {
        match self.short {
            Short::KeyValue => self.path != "services.*.build.additional_contexts",
            Short::OneOrMore => matches!(self.path, "services.*.dns_search" | "services.*.tmpfs"),
            Short::Labels | Short::Strings | Short::Texts => true,
            Short::Words | Short::HealthTest | Short::Hosts => true,
            _ => false,
        }
    }
}

/// Every row, in the order of the rendered file.
pub fn all() -> impl Iterator<Item = &'static Attribute> {
    let parts = [
        top::PROJECT,
        service::BEFORE_BUILD,
        build::BUILD,
        service::BEFORE_DEPLOY,
        deploy::DEPLOY,
        service::AFTER_DEPLOY,
        top::RESOURCES,
    ];
    parts.into_iter().flatten()
}

/// The table as a tree: what is known below a place in the file.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    pub attribute: Option<&'static Attribute>,
    /// Named members, in the order of the table.
    pub members: IndexMap<&'static str, Shape>,
    /// Members with keys of the user's choice.
    pub any: Option<Box<Shape>>,
    pub item: Option<Box<Shape>>,
}

static ROOT: LazyLock<Shape> = LazyLock::new(Shape::build);

/// The shape of a whole Compose file.
pub fn root() -> &'static Shape {
    &ROOT
}

impl Shape {
    fn build() -> Self {
        let mut root = Shape::default();
        for attribute in all() {
            root.place(attribute.path).attribute = Some(attribute);
        }
        for attribute in all() {
            let Some(like) = attribute.like else { continue };
            let model = root.find(like).cloned().unwrap_or_default();
            let shape = root.place(attribute.path);
            let own = std::mem::replace(&mut shape.members, model.members);
            shape.members.extend(own);
            shape.any = model.any;
            shape.item = model.item;
        }
        root
    }

    fn place(&mut self, path: &'static str) -> &mut Shape {
        let mut shape = self;
        for part in path.split('.') {
            let (name, items) = match part.strip_suffix("[]") {
                Some(name) => (name, true),
                None => (part, false),
            };
            shape = match name {
                "*" => shape.any.get_or_insert_default(),
                _ => shape.members.entry(name).or_default(),
            };
            if items {
                shape = shape.item.get_or_insert_default();
            }
        }
        shape
    }

    /// The shape at a row's path.
    pub fn find(&self, path: &str) -> Option<&Shape> {
        let mut shape = self;
        for part in path.split('.') {
            let (name, items) = match part.strip_suffix("[]") {
                Some(name) => (name, true),
                None => (part, false),
            };
            shape = shape.member(name)?;
            if items {
                shape = shape.item.as_deref()?;
            }
        }
        Some(shape)
    }

    /// What is known about the member `key`.
    pub fn member(&self, key: &str) -> Option<&Shape> {
        self.members.get(key).or(self.any.as_deref())
    }

    /// True for a mapping whose keys the user chooses: `x-…` is a key like any other there.
    pub fn is_user_keyed(&self) -> bool {
        self.any.is_some() && self.members.is_empty()
    }
}

/// The table as Markdown, for the crate's README.
pub fn markdown() -> String {
    let mut out = String::from("| attribute | support | meaning |\n|---|---|---|\n");
    for attribute in all() {
        let support = match attribute.support {
            Support::Honoured => "yes",
            Support::NotYet => "not yet (warning)",
            Support::Inert => "no effect, as in docker compose",
            Support::Refused => "refused",
        };
        out.push_str(&format!("| `{}` | {support} | {} |\n", attribute.path, attribute.doc));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_at_its_path_and_paths_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for attribute in all() {
            assert!(seen.insert(attribute.path), "{} has two rows", attribute.path);
            let shape = root().find(attribute.path).expect("placed by build");
            assert_eq!(shape.attribute.map(|a| a.path), Some(attribute.path));
            assert!(attribute.like.is_none_or(|like| root().find(like).is_some()), "{}", attribute.path);
            assert!(attribute.doc.ends_with('.'), "{}", attribute.path);
        }
    }

    #[test]
    fn the_readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let text = std::fs::read_to_string(path).expect("the README");
        let (head, rest) = text.split_once("<!-- attributes -->\n").expect("the opening mark");
        let (_, tail) = rest.split_once("<!-- /attributes -->").expect("the closing mark");
        let wanted = format!("{head}<!-- attributes -->\n{}<!-- /attributes -->{tail}", markdown());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, wanted).expect("a writable README");
        } else {
            assert!(
                text == wanted,
                "the table in README.md is stale: UPDATE=1 cargo test -p stack-schema --lib readme"
            );
        }
    }

    #[test]
    fn needed_members_have_rows() {
        for attribute in all() {
            for member in attribute.needs {
                assert!(
                    root().find(attribute.path).is_some_and(|shape| shape.member(member).is_some()),
                    "{member}"
                );
            }
        }
    }
}
