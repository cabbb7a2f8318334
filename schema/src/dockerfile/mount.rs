//! The value of `RUN --mount`: `type=cache,target=/root/.cache,…`.
//!
//! [`MountText`] is what was written (fields apart, values still with variables); [`Mount`] is what it
//! means once the values are expanded. A field is read in the light of those before it: `required` before
//! `type=secret` is one of a bind. Errors are sentences about one key.

/// One `--mount` as written.
#[derive(Debug, Clone, PartialEq)]
pub struct MountText {
    /// Key (lower case) and value.
    fields: Vec<(String, Option<String>)>,
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

/// Keys with a value, one spelling each.
const KEYS: [(&str, &str); 20] = [
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
    ("name", "name"),
];

impl MountText {
    /// Splits the flag's value; quotes around a field keep commas.
    ///
    /// # Errors
    /// A quote where none may be, or a variable in `from`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Vec::new();
        for field in split_fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            let key = key.to_lowercase();
            let has_variable = |value: &str| value.find('$').is_some_and(|at| at + 1 < value.len());
            if key == "from" && value.as_deref().is_some_and(has_variable) {
                return Err(
                    "`from` does not support variables; define a stage with that image instead".into()
                );
            }
            fields.push((key, value));
        }
        Ok(Self { fields })
    }

    /// The stage, image or context it takes its content from.
    pub fn from(&self) -> Option<&str> {
        let (_, value) = self.fields.iter().rev().find(|(name, value)| name == "from" && value.is_some())?;
        value.as_deref().filter(|from| !from.is_empty())
    }

    /// Expands the values and gives them their meaning.
    ///
    /// # Errors
    /// What expansion says, a value that does not fit its key, or a key that does not fit the type.
    pub fn resolve(&self, expand: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<Mount, String> {
        let mut fields = Fields::default();
        for (key, value) in &self.fields {
            match value {
                None => fields.alone(key)?,
                Some(value) => fields.set(key, expand(value)?)?,
            }
        }
        fields.mount()
    }
}

/// As CSV has it: a quoted field begins with its quote, and two of them in it are one.
fn split_fields(text: &str) -> Result<Vec<String>, String> {
    const QUOTE: &str = "a quote inside of a field";
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(mut quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest.split_once(',').map_or((rest, None), |(f, after)| (f, Some(after)));
            if field.contains('"') {
                return Err(QUOTE.into());
            }
            fields.push(field.to_owned());
            let Some(after) = after else { return Ok(fields) };
            rest = after;
            continue;
        };
        let mut field = String::new();
        loop {
            let (part, after) = quoted.split_once('"').ok_or("a quote that is not closed")?;
            field.push_str(part);
            let Some(again) = after.strip_prefix('"') else {
                quoted = after;
                break;
            };
            field.push('"');
            quoted = again;
        }
        fields.push(field);
        match quoted.strip_prefix(',') {
            Some(after) => rest = after,
            None if quoted.is_empty() => return Ok(fields),
            None => return Err(QUOTE.into()),
        }
    }
}

/// What the fields read so far say.
#[derive(Default)]
struct Fields {
    kind: Type,
    from: String,
    source: String,
    target: String,
    read_only: Option<bool>,
    id: String,
    sharing: Option<Sharing>,
    required: bool,
    size: Option<u64>,
    env: Option<String>,
    owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Default)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Type {
    const ALL: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl Fields {
    /// A key alone means true.
    fn alone(&mut self, key: &str) -> Result<(), String> {
        match key {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => return self.require(true),
            _ => return Err(format!("the field `{key}` has to be key=value")),
        }
        Ok(())
    }

    fn set(&mut self, written: &str, value: String) -> Result<(), String> {
        let key = KEYS.iter().find(|(name, _)| *name == written).map(|(_, key)| *key);
        let wrong = || format!("invalid value for `{written}`: `{value}`");
        match key {
            Some("type") => {
                let found = Type::ALL.iter().find(|(name, _)| *name == value.to_lowercase());
                self.kind = found.ok_or_else(|| format!("unsupported mount type `{value}`"))?.1;
            }
            Some("from") => self.from = value,
            Some("source") => self.source = value,
            Some("target") => self.target = value,
            Some("ro") => self.read_only = Some(truth(&value).ok_or_else(wrong)?),
            Some("rw") => self.read_only = Some(!truth(&value).ok_or_else(wrong)?),
            Some("id") => self.id = value,
            Some("sharing") => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        return Err(format!(
                            "unsupported sharing value `{value}`: shared, private or locked"
                        ));
                    }
                });
            }
            Some("required") => return self.require(truth(&value).ok_or_else(wrong)?),
            Some("size") if self.kind == Type::Tmpfs => self.size = Some(size(&value).ok_or_else(wrong)?),
            Some("size") => return Err(self.misplaced("size")),
            Some("mode") => self.owner.mode = Some(number(&value, 8).ok_or_else(wrong)? & 0o7777),
            Some("uid") => self.owner.uid = Some(number(&value, 10).ok_or_else(wrong)?),
            Some("gid") => self.owner.gid = Some(number(&value, 10).ok_or_else(wrong)?),
            Some("env") => self.env = Some(value),
            _ => return Err(format!("unexpected key `{written}`")),
        }
        Ok(())
    }

    fn misplaced(&self, key: &str) -> String {
        format!("`{key}` is not allowed for a mount of type `{}`", self.kind.name())
    }

    fn require(&mut self, required: bool) -> Result<(), String> {
        if !matches!(self.kind, Type::Secret | Type::Ssh) {
            return Err(self.misplaced("required"));
        }
        self.required = required;
        Ok(())
    }

    fn mount(self) -> Result<Mount, String> {
        if matches!(self.kind, Type::Bind | Type::Tmpfs) {
            let set = [("mode", self.owner.mode), ("uid", self.owner.uid), ("gid", self.owner.gid)];
            if let Some((key, _)) = set.iter().find(|(_, value)| value.is_some()) {
                return Err(self.misplaced(key));
            }
        }
        if self.sharing.is_some() && self.kind != Type::Cache {
            return Err(self.misplaced("sharing"));
        }
        let read_only = self.read_only.unwrap_or(!matches!(self.kind, Type::Cache | Type::Tmpfs));
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let (target, from, id) = (some(&self.target), some(&self.from), some(&self.id));
        let source = some(&self.source).unwrap_or_else(|| "/".into());
        let kind = match self.kind {
            Type::Bind => MountKind::Bind { from, source },
            Type::Cache => {
                let sharing = self.sharing.unwrap_or_default();
                MountKind::Cache { id, sharing, from, source, owner: self.owner }
            }
            Type::Tmpfs => MountKind::Tmpfs { size: self.size },
            Type::Secret => self.secret()?,
            Type::Ssh => MountKind::Ssh {
                id: id.unwrap_or_else(|| "default".into()),
                required: self.required,
                owner: self.owner,
            },
        };
        Ok(Mount { kind, target, read_only })
    }

    /// Without an id the secret is named by its source, else by the last name of its target.
    fn secret(&self) -> Result<MountKind, String> {
        if !self.from.is_empty() {
            return Err(self.misplaced("from"));
        }
        let base = self.target.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let id = match (self.source.as_str(), self.id.as_str()) {
            ("", "") if self.target.is_empty() => {
                return Err("a secret needs an id, a source or a target".into());
            }
            ("", "") => base,
            ("", id) => id,
            (source, "") => source,
            _ => return Err("a secret has an id or a source, not both".into()),
        };
        let (env, required) = (self.env.clone(), self.required);
        Ok(MountKind::Secret { id: id.to_owned(), env, required, owner: self.owner })
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn number(text: &str, radix: u32) -> Option<u32> {
    // The standard library takes a sign.
    text.starts_with(|c: char| c.is_digit(radix)).then(|| u32::from_str_radix(text, radix).ok())?
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
    use super::super::expand::Expander;
    use super::*;

    fn resolve(text: &str) -> Result<Mount, String> {
        let variables = |name: &str| (name == "dir").then(|| "/data".to_owned());
        let expander = Expander { escape: '\\', variables: &variables };
        let mut expand = |text: &str| expander.word(text).map(|e| e.value).map_err(|e| e.to_string());
        MountText::parse(text)?.resolve(&mut expand)
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
            "target=/a,mode=0700",
            "required,type=secret,id=a",
            "type=secret,id=a,source=b",
            "type=secret,target=/a,from=b",
            "size=1,type=tmpfs,target=/a",
            "sharing=locked,target=/a",
            "from=$x,target=/a",
            "type=cache,target=/a,mode=9",
            "type=cache,target=/a,",
            "a\"b",
            "\"a",
        ] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
