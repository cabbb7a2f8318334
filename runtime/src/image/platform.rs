//! Platforms: `os/architecture[/variant]`, and which of an index's images fits.

use super::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// As in an index; names are Go's (`amd64`, `arm64`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What a platform of one word may be, besides an architecture.
const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// What this machine runs.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(str::to_owned) }
    }

    /// `linux/arm64/v8`, `linux/x86_64`, or an architecture alone.
    ///
    /// # Errors
    /// When a part is empty or there are more than three.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<String> = text.split('/').map(str::to_ascii_lowercase).collect();
        let valid = |p: &String| {
            !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !parts.iter().all(valid) {
            return Err(Error::invalid(format!("platform `{text}`"), "it must be OS/ARCHITECTURE[/VARIANT]"));
        }
        match parts.as_slice() {
            [os] if SYSTEMS.contains(&os.as_str()) => Ok(Self { os: os.clone(), ..Self::host() }),
            [architecture] => {
                let platform = Self::linux(architecture, None);
                if !ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    let why = "it is neither a known system nor a known architecture";
                    return Err(Error::invalid(format!("platform `{text}`"), why));
                }
                Ok(platform)
            }
            [os, architecture] => Ok(Self { os: os.clone(), ..Self::linux(architecture, None) }),
            [os, architecture, variant] => {
                Ok(Self { os: os.clone(), ..Self::linux(architecture, Some(variant)) })
            }
            _ => Err(Error::invalid(format!("platform `{text}`"), "it has more than three parts")),
        }
    }

    fn linux(architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i686" => ("386", None),
            other => (other, None),
        };
        let variant = variant.or(implied).map(str::to_owned);
        Self { os: "linux".into(), architecture: architecture.into(), variant }
    }

    /// How well an offered platform serves this wish; higher is better, `None` not at all.
    pub fn fit(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (wanted, offered) = (self.variant_number(), offered.variant_number());
        match self.architecture.as_str() {
            // An older variant runs on a newer machine.
            "arm" | "amd64" if offered <= wanted => Some(offered + 1),
            "arm" | "amd64" => None,
            _ => Some(u32::from(offered == wanted) + 1),
        }
    }

    fn variant_number(&self) -> u32 {
        let default = match self.architecture.as_str() {
            "arm" => 7,
            "arm64" => 8,
            _ => 1,
        };
        let number = self.variant.as_deref().and_then(|v| v.strip_prefix('v')).and_then(|v| v.parse().ok());
        number.unwrap_or(default)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn parses_aliases() {
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("arm64").to_string(), "linux/arm64");
        assert_eq!(platform("linux/armhf").to_string(), "linux/arm/v7");
        assert!(Platform::parse("a/b/c/d").is_err());
        assert!(Platform::parse("linux/").is_err());
    }

    #[test]
    fn older_variants_fit() {
        assert_eq!(platform("linux/amd64").fit(&platform("linux/arm64")), None);
        assert!(
            platform("linux/arm/v7").fit(&platform("linux/arm/v6"))
                < platform("linux/arm/v7").fit(&platform("linux/arm/v7"))
        );
        assert_eq!(platform("linux/arm/v6").fit(&platform("linux/arm/v7")), None);
        assert_eq!(platform("linux/arm64").fit(&platform("linux/arm64/v8")), Some(2));
        assert_eq!(platform("linux/amd64").fit(&platform("linux/amd64/v3")), None);
    }
}
