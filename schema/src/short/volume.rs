//! `[source:]target[:options]`.

use super::{ShortError, error};

/// A mount as a short form says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeSpec {
    /// A path ([`is_path`]) or a volume's key; `None`: anonymous volume.
    pub source: Option<String>,
    pub target: String,
    pub read_only: bool,
    pub nocopy: bool,
    pub propagation: Option<String>,
    /// `z` or `Z`.
    pub selinux: Option<String>,
}

const PROPAGATIONS: [&str; 6] = ["shared", "rshared", "slave", "rslave", "private", "rprivate"];

/// Reads a short form. Unknown options are ignored, as Compose does.
pub fn parse_volume(text: &str) -> Result<VolumeSpec, ShortError> {
    let parts = split(text);
    if parts.iter().any(|part| part.is_empty()) {
        return error(format!("`{text}` has an empty part between colons"));
    }
    let mut spec = VolumeSpec::default();
    match parts[..] {
        [target] => spec.target = clean_path(target),
        [source, target] => (spec.source, spec.target) = (Some(source.to_owned()), clean_path(target)),
        [source, target, options] => {
            (spec.source, spec.target) = (Some(source.to_owned()), clean_path(target));
            options.split(',').for_each(|option| apply(&mut spec, option));
        }
        _ => return error(format!("`{text}` has too many colons")),
    }
    Ok(spec)
}

/// Splits at colons, except the one of a drive letter: one with a backslash behind it, or a slash and a target of its own.
fn split(text: &str) -> Vec<&str> {
    let parts = parts(text);
    let is_drive = |head: &str, tail: &str| {
        let is_path = tail.starts_with('\\')
            || (tail.starts_with('/') && parts.get(2).is_some_and(|target| target.starts_with('/')));
        head.len() == 1 && head.as_bytes()[0].is_ascii_alphabetic() && is_path
    };
    if parts.len() > 1 && is_drive(parts[0], parts[1]) {
        let path = &text[..parts[0].len() + 1 + parts[1].len()];
        return std::iter::once(path).chain(parts[2..].iter().copied()).collect();
    }
    parts
}

/// The text between colons; those of a `${…}` that is not interpolated do not count.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut open, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '$' if text[at + 1..].starts_with('{') => open += 1,
            '}' => open = open.saturating_sub(1),
            ':' if open == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn apply(spec: &mut VolumeSpec, option: &str) {
    match option {
        "ro" => spec.read_only = true,
        "rw" => spec.read_only = false,
        "nocopy" => spec.nocopy = true,
        "z" | "Z" => spec.selinux = Some(option.to_owned()),
        _ if PROPAGATIONS.contains(&option) => spec.propagation = Some(option.to_owned()),
        _ => {}
    }
}

/// Whether a short form's source is a path and not a volume's key.
pub fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~', '\\']) || source.as_bytes().get(1) == Some(&b':')
}

/// A slash-separated path without `.`, `..`, double and trailing slashes; empty stays empty.
pub fn clean_path(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            _ => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let spec = parse_volume(text).expect(text);
        let flags = [(spec.read_only, "ro"), (spec.nocopy, "nocopy")]
            .iter()
            .filter(|f| f.0)
            .map(|f| f.1)
            .collect::<String>();
        let options = spec.selinux.or(spec.propagation).unwrap_or_default();
        format!("{}|{}|{flags}{options}", spec.source.unwrap_or_default(), spec.target)
    }

    #[test]
    fn reads_every_form() {
        for (text, spec) in [
            ("/data", "|/data|"),
            ("data:/data", "data|/data|"),
            ("./x:/x:ro", "./x|/x|ro"),
            ("~/x:/x/:rw,z", "~/x|/x|z"),
            ("d:/data:nocopy", "d|/data|nocopy"),
            ("/a:/b/../c:rshared,cached", "/a|/c|rshared"),
            ("C:\\p:/p:ro", "C:\\p|/p|ro"),
            ("c:/p:/p", "c:/p|/p|"),
            ("c:/p:ro", "c|/p|ro"),
        ] {
            assert_eq!(shown(text), spec, "{text}");
        }
        assert!(
            parse_volume("a:/b:ro:x").is_err() && parse_volume("").is_err() && parse_volume("a::ro").is_err()
        );
    }

    #[test]
    fn cleans_paths() {
        for (path, clean) in
            [("/a/./b//c/", "/a/b/c"), ("/../a", "/a"), ("a/..", "."), ("../a/../b", "../b"), ("/", "/")]
        {
            assert_eq!(clean_path(path), clean);
        }
    }
}
