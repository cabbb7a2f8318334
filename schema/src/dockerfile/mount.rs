//! The value of `RUN --mount`: `type=cache,target=/root/.cache,…`.
//!
//! [`MountText`] is what was written (keys known, values still with variables); [`Mount`] is what it
//! means once the values are expanded. Errors are sentences about one key.

use super::expand::{ExpandError, Expander};

/// One `--mount` as written.
#[derive(Debug, Clone, PartialEq)]
pub struct MountText {
    /// Key (lower case, one spelling each) and value.
    fields: Vec<(&'static str, Option<String>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    pub kind: MountKind,
    /// As written, expanded; relative to the working directory. Secrets and ssh may have none.
    pub target: Option<String>,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MountKind {
    Bind { from: Option<String>, source: String },
    Cache { id: Option<String>, sharing: Sharing, from: Option<String>, source: String, owner: Owner },
    Tmpfs { size: Option<u64> },
    Secret { id: String, env: Option<String>, required: bool, owner: Owner },
    Ssh { id: String, required: bool, owner: Owner },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Owner {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// Every spelling of every key.
const KEYS: [(&str, &str); 21] = [
    ("type", "type"),
    ("from", "from"),
    ("source", "source"),
    ("src", "source"),
    ("target", "target"),
    ("dst", "target"),
    ("destination", "target"),
    ("readonly", "ro"),
    ("ro", "ro"),
    ("readwrite", "rw"),
    ("rw", "rw"),
    ("id", "id"),
    ("sharing", "sharing"),
    ("required", "required"),
    ("mode", "mode"),
    ("uid", "uid"),
    ("gid", "gid"),
    ("size", "size"),
    ("env", "env"),
    ("optional", "optional"),
    ("name", "name"),
];

impl MountText {
    /// Splits the flag's value; quotes around a field keep commas.
    ///
    /// # Errors
    /// An unknown key, or a variable in `from`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Vec::new();
        for field in split_fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            let wanted = key.trim().to_ascii_lowercase();
            let (_, key) = KEYS
                .iter()
                .find(|(name, _)| *name == wanted)
                .ok_or_else(|| format!("unexpected key `{wanted}`"))?;
            if *key == "from" && value.as_deref().is_some_and(|v| v.contains('$')) {
                return Err(
                    "`from` does not support variables; define a stage with that image instead".into()
                );
            }
            fields.push((*key, value));
        }
        Ok(Self { fields })
    }

    /// The stage, image or context it takes its content from.
    pub fn from(&self) -> Option<&str> {
        self.value("from")
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(name, _)| *name == key)?.1.as_deref()
    }

    /// Expands the values and gives them their meaning.
    ///
    /// # Errors
    /// A value that does not fit its key, or a key that does not fit the type.
    pub fn resolve(&self, expander: &Expander<'_>) -> Result<Mount, String> {
        let mut fields = Vec::new();
        for (key, value) in &self.fields {
            let value = value.as_deref().map(|v| expander.word(v)).transpose();
            fields.push((*key, value.map_err(|e: ExpandError| e.to_string())?.map(|e| e.value)));
        }
        Fields(fields).mount()
    }
}

fn split_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("never empty").push(c),
        }
    }
    if quoted { Err("a quote that is not closed".into()) } else { Ok(fields) }
}

struct Fields(Vec<(&'static str, Option<String>)>);

impl Fields {
    fn text(&self, key: &str) -> Option<String> {
        self.0.iter().rev().find(|(name, _)| *name == key)?.1.clone().filter(|v| !v.is_empty())
    }

    /// A key alone means true.
    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let Some((_, value)) = self.0.iter().rev().find(|(name, _)| *name == key) else { return Ok(None) };
        match value.as_deref() {
            None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(Some(true)),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(format!("invalid value for `{key}`: `{other}` is neither true nor false")),
        }
    }

    fn number(&self, key: &str, radix: u32) -> Result<Option<u32>, String> {
        let parse = |v: String| {
            u32::from_str_radix(&v, radix).map_err(|_| format!("invalid value for `{key}`: `{v}`"))
        };
        self.text(key).map(parse).transpose()
    }

    fn owner(&self) -> Result<Owner, String> {
        let mode = self.number("mode", 8)?;
        if mode.is_some_and(|mode| mode > 0o7777) {
            return Err("invalid value for `mode`: larger than 7777".into());
        }
        Ok(Owner { mode, uid: self.number("uid", 10)?, gid: self.number("gid", 10)? })
    }

    fn only(&self, kind: &str, allowed: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(key, _)| *key != "type" && !allowed.contains(key)) {
            Some((key, _)) => Err(format!("`{key}` is not allowed for a mount of type `{kind}`")),
            None => Ok(()),
        }
    }

    fn mount(&self) -> Result<Mount, String> {
        match self.text("type").as_deref().unwrap_or("bind") {
            "bind" => self.bind(),
            "cache" => self.cache(),
            "tmpfs" => self.tmpfs(),
            "secret" => self.secret(),
            "ssh" => self.ssh(),
            other => Err(format!("unsupported mount type `{other}`")),
        }
    }

    fn read_only(&self, default: bool) -> Result<bool, String> {
        match (self.flag("ro")?, self.flag("rw")?) {
            (Some(_), Some(_)) => Err("`ro` and `rw` exclude each other".into()),
            (Some(ro), None) => Ok(ro),
            (None, Some(rw)) => Ok(!rw),
            (None, None) => Ok(default),
        }
    }

    fn target_required(&self, kind: &str) -> Result<Option<String>, String> {
        let target = self.text("target").ok_or_else(|| format!("a mount of type `{kind}` needs a target"))?;
        Ok(Some(target))
    }

    fn bind(&self) -> Result<Mount, String> {
        self.only("bind", &["from", "source", "target", "ro", "rw"])?;
        let kind = MountKind::Bind {
            from: self.text("from"),
            source: self.text("source").unwrap_or_else(|| "/".into()),
        };
        Ok(Mount { kind, target: self.text("target"), read_only: self.read_only(true)? })
    }

    fn cache(&self) -> Result<Mount, String> {
        self.only("cache", &["id", "from", "source", "target", "ro", "rw", "sharing", "mode", "uid", "gid"])?;
        let sharing = match self.text("sharing").as_deref() {
            None | Some("shared") => Sharing::Shared,
            Some("private") => Sharing::Private,
            Some("locked") => Sharing::Locked,
            Some(other) => {
                return Err(format!("unsupported sharing value `{other}`: shared, private or locked"));
            }
        };
        let source = self.text("source").unwrap_or_else(|| "/".into());
        let kind = MountKind::Cache {
            id: self.text("id"),
            sharing,
            from: self.text("from"),
            source,
            owner: self.owner()?,
        };
        Ok(Mount { kind, target: self.target_required("cache")?, read_only: self.read_only(false)? })
    }

    fn tmpfs(&self) -> Result<Mount, String> {
        self.only("tmpfs", &["target", "size"])?;
        let size =
            self.text("size").map(|v| size(&v).ok_or_else(|| format!("invalid value for `size`: `{v}`")));
        let kind = MountKind::Tmpfs { size: size.transpose()? };
        Ok(Mount { kind, target: self.target_required("tmpfs")?, read_only: false })
    }

    fn secret(&self) -> Result<Mount, String> {
        self.only("secret", &["id", "source", "target", "required", "mode", "uid", "gid", "env"])?;
        let target = self.text("target");
        // Without an id the secret is named by its source, else by the last name of its target.
        let base = || target.as_deref().and_then(|t| t.rsplit('/').next()).map(str::to_owned);
        let id = self.text("id").or_else(|| self.text("source")).or_else(base);
        let id = id.filter(|id| !id.is_empty()).ok_or("a secret needs an id, a source or a target")?;
        let required = self.flag("required")?.unwrap_or(false);
        let kind = MountKind::Secret { id, env: self.text("env"), required, owner: self.owner()? };
        Ok(Mount { kind, target, read_only: true })
    }

    fn ssh(&self) -> Result<Mount, String> {
        self.only("ssh", &["id", "target", "required", "mode", "uid", "gid"])?;
        let id = self.text("id").unwrap_or_else(|| "default".into());
        let kind =
            MountKind::Ssh { id, required: self.flag("required")?.unwrap_or(false), owner: self.owner()? };
        Ok(Mount { kind, target: self.text("target"), read_only: false })
    }
}

/// `64m`, `1GiB`, `1024`: binary units.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Mount, String> {
        let variables = |name: &str| (name == "dir").then(|| "/data".to_owned());
        MountText::parse(text)?.resolve(&Expander { escape: '\\', variables: &variables })
    }

    #[test]
    fn a_bind_is_read_only_unless_asked() {
        let mount = resolve("target=/a,from=base,source=/b").expect("valid");
        assert!(mount.read_only);
        assert_eq!(mount.kind, MountKind::Bind { from: Some("base".into()), source: "/b".into() });
        assert!(!resolve("type=bind,rw,dst=/a").expect("valid").read_only);
    }

    #[test]
    fn a_cache_has_sharing_and_owner() {
        let mount = resolve("type=cache,target=$dir,sharing=locked,uid=7,mode=0750").expect("valid");
        assert_eq!(mount.target.as_deref(), Some("/data"));
        let MountKind::Cache { id, sharing, owner, .. } = mount.kind else { panic!("a cache") };
        assert_eq!((id, sharing), (None, Sharing::Locked));
        assert_eq!(owner, Owner { mode: Some(0o750), uid: Some(7), gid: None });
    }

    #[test]
    fn a_secret_is_named_by_id_source_or_target() {
        let id = |text: &str| match resolve(text).expect(text).kind {
            MountKind::Secret { id, .. } => id,
            _ => panic!("a secret"),
        };
        assert_eq!(id("type=secret,id=a,target=/x/b"), "a");
        assert_eq!(id("type=secret,target=/x/b"), "b");
        assert!(resolve("type=secret").is_err());
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("64m"), Some(64 << 20));
        assert_eq!(size("1GiB"), Some(1 << 30));
        assert_eq!(size("12"), Some(12));
        assert_eq!(size("x"), None);
        assert_eq!(size("99999999999999t"), None);
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        for text in [
            "nope=1",
            "type=disk,target=/a",
            "type=cache",
            "type=tmpfs,target=/a,id=x",
            "from=$x,target=/a",
            "type=cache,target=/a,mode=9",
            "ro,rw,target=/a",
            "\"a",
        ] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
