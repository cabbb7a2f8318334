//! Why a step was not in the cache: which of its inputs changed first since the last build of the same Dockerfile.
//!
//! `explain/BUILD.json` holds the inputs of each step's key, as labelled texts in the order of the key;
//! `explain/CONTENT` a line for each file of a content digest that one of them names. Builds are told apart by
//! context, Dockerfile, target and platform. A step is compared with the one of the same words in its stage, else
//! with the one in its place.

use super::cache::Cache;
use super::key::{Key, Part};
use super::pick::{self, Content, Picked};
use super::request::{BuildRequest, DockerfileSource};
use serde::{Deserialize, Serialize};
use stack_runtime::image::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Mutex;

/// A value that is longer is cut where it is shown.
const SHOWN_MAX: usize = 120;
/// More files than this are told by their digest only.
const LISTED_MAX: usize = 200_000;

/// The label of what a step stands on.
const PARENT: &str = "parent";
/// Labels of keys, and what people call them.
const WORDS: [(&str, &str); 7] = [
    ("args", "command"),
    ("directory", "working directory"),
    ("path", "working directory"),
    ("chmod", "--chmod"),
    ("uid", "user of --chown"),
    ("gid", "group of --chown"),
    ("epoch", "SOURCE_DATE_EPOCH"),
];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    stage: String,
    /// Which of the stage's steps that make a layer.
    place: usize,
    words: String,
    key: Digest,
    parts: Vec<Part>,
}

/// The steps of the last builds of one Dockerfile, and of this one.
pub(super) struct Ledger {
    id: Digest,
    before: Vec<Known>,
    now: Mutex<Vec<Known>>,
}

/// A step of this build, as the ledger tells it from the others.
pub(super) struct Site<'a> {
    pub(super) stage: String,
    pub(super) place: usize,
    pub(super) words: &'a str,
}

impl Ledger {
    pub(super) fn load(request: &BuildRequest, cache: &Cache) -> Self {
        let dockerfile = match &request.dockerfile {
            DockerfileSource::Path(path) => path.to_string_lossy().into_owned(),
            DockerfileSource::Inline(_) => request.tags.first().map(ToString::to_string).unwrap_or_default(),
        };
        let id = Key::new("ledger")
            .text("context", &request.context.to_string_lossy())
            .text("dockerfile", &dockerfile)
            .optional("target", request.target.as_deref())
            .optional("platform", request.platform.as_deref())
            .finish();
        let before = cache.explained(&id).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { id, before: before.unwrap_or_default(), now: Mutex::default() }
    }

    pub(super) fn note(&self, site: &Site<'_>, key: &Digest, parts: &[Part]) {
        let known = Known {
            stage: site.stage.clone(),
            place: site.place,
            words: site.words.to_owned(),
            key: key.clone(),
            parts: parts.to_vec(),
        };
        self.now.lock().expect("never poisoned: nothing panics while it is held").push(known);
    }

    /// Steps that this build did not come to stay as they were.
    pub(super) fn save(&self, cache: &Cache) {
        let now = self.now.lock().expect("never poisoned: nothing panics while it is held");
        let is_now =
            |known: &Known| now.iter().any(|step| (&step.stage, step.place) == (&known.stage, known.place));
        let mut all: Vec<Known> =
            self.before.iter().filter(|known| !is_now(known)).chain(now.iter()).cloned().collect();
        all.sort_by(|a, b| (&a.stage, a.place).cmp(&(&b.stage, b.place)));
        if all != self.before
            && let Ok(bytes) = serde_json::to_vec(&all)
        {
            cache.explain(&self.id, &bytes);
        }
    }

    fn find(&self, site: &Site<'_>) -> Option<&Known> {
        let of_stage = || self.before.iter().filter(|known| known.stage == site.stage);
        let same = of_stage().find(|known| known.words == site.words);
        same.or_else(|| of_stage().find(|known| known.place == site.place))
    }

    /// A sentence without its end: why this step has to be executed. `below`: the first step of its stage that was.
    pub(super) fn why(
        &self,
        site: &Site<'_>,
        (key, parts): (&Digest, &[Part]),
        below: Option<&str>,
        cache: &Cache,
    ) -> String {
        let Some(known) = self.find(site) else { return "no earlier build of it is known".to_owned() };
        if known.key == *key {
            return "its inputs are as before, but its layer is no longer in the store".to_owned();
        }
        match (first_difference(&known.parts, parts), below) {
            (Some(Difference { label: PARENT, .. }), Some(below)) => format!("it stands on {below}"),
            (Some(difference), _) => difference.text(cache),
            (None, _) => "it was made by another version of the builder".to_owned(),
        }
    }
}

/// A label whose values are others now; what it stands on counts only when nothing of its own differs.
struct Difference<'a> {
    label: &'a str,
    before: Vec<&'a str>,
    now: Vec<&'a str>,
}

fn first_difference<'a>(before: &'a [Part], now: &'a [Part]) -> Option<Difference<'a>> {
    fn values<'a>(parts: &'a [Part], label: &str) -> Vec<&'a str> {
        parts.iter().filter(|part| part.label == label).map(|part| part.value.as_str()).collect()
    }
    let mut seen = BTreeSet::new();
    let labels = now.iter().chain(before).map(|part| part.label.as_str()).filter(|label| seen.insert(*label));
    let mut labels: Vec<&str> = labels.collect();
    labels.sort_by_key(|label| *label == PARENT);
    let difference = |label| Difference { label, before: values(before, label), now: values(now, label) };
    labels.into_iter().map(difference).find(|found| found.before != found.now)
}

impl Difference<'_> {
    fn text(&self, cache: &Cache) -> String {
        let label = WORDS.iter().find(|(label, _)| *label == self.label).map_or(self.label, |(_, word)| word);
        match (self.before.as_slice(), self.now.as_slice()) {
            _ if self.label == PARENT => "what it stands on changed".to_owned(),
            ([before], [now]) if label == "content" || label.ends_with(" source") => {
                let file = changed_file(cache, before, now);
                file.unwrap_or_else(|| format!("{label}: the files are others"))
            }
            ([], now) => format!("{label}: new, {}", shown(now)),
            (before, []) => format!("{label}: gone, was {}", shown(before)),
            (before, now) => format!("{label}: was {}, is {}", shown(before), shown(now)),
        }
    }
}

fn shown(values: &[&str]) -> String {
    let joined = values.join(" ");
    let cut = joined.char_indices().nth(SHOWN_MAX).map_or(joined.as_str(), |(end, _)| &joined[..end]);
    let more = if cut.len() < joined.len() { "…" } else { "" };
    format!("`{cut}{more}`")
}

/// Keeps what a content digest is made of, for the build after the next change.
pub(super) fn list(cache: &Cache, content: &Digest, picked: &[Picked], own_owners: bool) {
    let count: usize = picked.iter().map(|item| item.entries.len()).sum();
    if count > LISTED_MAX || cache.has_explained(content) {
        return;
    }
    let mut lines = String::new();
    for item in picked {
        let name = item.name.to_string_lossy();
        for entry in &item.entries {
            let path = item.parents.join(&*name).join(&entry.to);
            let path = path.to_string_lossy().trim_end_matches('/').replace(['\t', '\n'], "?");
            let stat = entry.stat.as_ref();
            let mode = stat.map_or(0, |stat| stat.st_mode);
            let owner = stat.filter(|_| own_owners).map_or((0, 0), |stat| (stat.st_uid, stat.st_gid));
            let content = match &entry.content {
                Content::File(digest) => digest.hex().get(..16).unwrap_or_default().to_owned(),
                Content::Link(target) => target.to_string_lossy().replace(['\t', '\n'], "?"),
                Content::Inline(bytes) => Digest::of(bytes).hex().get(..16).unwrap_or_default().to_owned(),
                Content::Directory | Content::Special => String::new(),
            };
            let _ = writeln!(lines, "{path}\t{mode:o}\t{}:{}\t{content}", owner.0, owner.1);
        }
    }
    cache.explain(content, lines.as_bytes());
}

/// The first path, in the order of names, that is not as it was.
fn changed_file(cache: &Cache, before: &str, now: &str) -> Option<String> {
    let read = |digest: &str| {
        let bytes = cache.explained(&Digest::parse(digest).ok()?)?;
        String::from_utf8(bytes).ok()
    };
    let (before, now) = (read(before)?, read(now)?);
    let (before, now) = (rows(&before), rows(&now));
    let paths: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
    paths.into_iter().find_map(|path| difference(path, before.get(path), now.get(path)))
}

/// By path: mode, owner, content.
fn rows(lines: &str) -> BTreeMap<&str, [&str; 3]> {
    fn row(line: &str) -> Option<(&str, [&str; 3])> {
        let mut fields = line.split('\t');
        Some((fields.next()?, [fields.next()?, fields.next()?, fields.next()?]))
    }
    lines.lines().filter_map(row).collect()
}

fn difference(path: &str, before: Option<&[&str; 3]>, now: Option<&[&str; 3]>) -> Option<String> {
    let path = if path.is_empty() { "its file" } else { path };
    let (before, now) = match (before, now) {
        (None, _) => return Some(format!("{path}: new")),
        (_, None) => return Some(format!("{path}: gone")),
        (Some(before), Some(now)) => (before, now),
    };
    let number = |text: &str| u32::from_str_radix(text, 8).unwrap_or(0);
    let (was, is) = (number(before[0]), number(now[0]));
    if was & !0o7777 != is & !0o7777 {
        return Some(format!("{path}: another type of file"));
    }
    if was != is {
        return Some(format!("{path}: mode was {:04o}, is {:04o}", was & 0o7777, is & 0o7777));
    }
    if before[1] != now[1] {
        return Some(format!("{path}: owner was {}, is {}", before[1], now[1]));
    }
    let what = if was & 0o170_000 == 0o120_000 { "link target" } else { "content" };
    (before[2] != now[2]).then(|| format!("{path}: {what} changed"))
}

/// The digest of a selection, kept with its listing.
pub(super) fn digest_and_list(cache: &Cache, picked: &[Picked], own_owners: bool) -> Digest {
    let content = pick::digest(picked, own_owners);
    list(cache, &content, picked, own_owners);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(label: &str, value: &str) -> Part {
        Part { label: label.into(), value: value.into() }
    }

    fn text(before: &[Part], now: &[Part]) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = stack_runtime::home::Home {
            data: directory.path().join("data"),
            run: directory.path().join("run"),
        };
        let cache = Cache::open(&home).expect("a cache");
        first_difference(before, now).map(|found| found.text(&cache)).unwrap_or_default()
    }

    #[test]
    fn the_first_difference_is_told_and_the_parent_last() {
        let before = [part(PARENT, "a"), part("command", "make"), part("environment A", "1")];
        let other = |at: usize, value: &str| {
            let mut now = before.clone();
            now[at].value = value.into();
            now
        };
        assert_eq!(text(&before, &before), "");
        assert_eq!(text(&before, &other(0, "b")), "what it stands on changed");
        assert_eq!(text(&before, &other(2, "2")), "environment A: was `1`, is `2`");
        let mut both = other(0, "b");
        both[1].value = "make all".into();
        assert_eq!(text(&before, &both), "command: was `make`, is `make all`");
        assert_eq!(text(&before, &before[..2]), "environment A: gone, was `1`");
        assert_eq!(text(&before[..2], &before), "environment A: new, `1`");
    }

    #[test]
    fn files_differ_by_what_counts() {
        let row = |mode, owner, content| -> [&str; 3] { [mode, owner, content] };
        let plain = row("100644", "0:0", "aa");
        let told = |now: [&str; 3]| difference("f", Some(&plain), Some(&now));
        assert_eq!(told(plain), None);
        assert_eq!(told(row("100755", "0:0", "aa")).as_deref(), Some("f: mode was 0644, is 0755"));
        assert_eq!(told(row("100644", "5:0", "aa")).as_deref(), Some("f: owner was 0:0, is 5:0"));
        assert_eq!(told(row("100644", "0:0", "ab")).as_deref(), Some("f: content changed"));
        assert_eq!(told(row("40755", "0:0", "")).as_deref(), Some("f: another type of file"));
        assert_eq!(difference("f", None, Some(&plain)).as_deref(), Some("f: new"));
        assert_eq!(difference("f", Some(&plain), None).as_deref(), Some("f: gone"));
    }
}
