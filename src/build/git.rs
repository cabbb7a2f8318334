//! Git repositories as build contexts and as sources of ADD.
//!
//! `URL#REF:SUBDIRECTORY` or `URL?ref=…&subdir=…`; `branch`, `tag` and `commit` say what kind of reference it is. The
//! machine's own `git` fetches it, without hooks and without asking anybody; a commit that is named is what is got, or
//! the build fails. Submodules come along.

use super::cache::Cache;
use super::failure::{BuildFailure, Doing, Result};
use super::request::{BuildRequest, DockerfileSource, Secret};
use crate::obtain::Registries;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether a context is no directory of this machine.
pub fn is_address(text: &str) -> bool {
    text.contains("://") || is_git(text)
}

/// Checks out the repositories among the contexts of a request, which then are directories. Blocks.
///
/// # Errors
/// As [`Repository::check_out`]; an address that is no repository.
pub(super) fn contexts(cache: &Cache, mut request: BuildRequest) -> Result<BuildRequest> {
    let text = request.context.to_string_lossy().into_owned();
    if is_git(&text) {
        request.context = context(cache, &request, &text)?;
        request.whole_contexts.insert(String::new());
        if let (None, DockerfileSource::Path(path)) = (&request.dockerfile_name, &request.dockerfile) {
            request.dockerfile_name = Some(format!("{text}/{}", path.display()));
        }
    } else if is_address(&text) {
        let failure = BuildFailure::new(format!("the build context {text} is not supported"));
        return Err(failure.hint("It can be a directory or a git repository."));
    }
    for (name, text) in request.additional_contexts.clone() {
        if is_git(&text) {
            let directory = context(cache, &request, &text)?;
            request.additional_contexts.insert(name.clone(), directory.to_string_lossy().into_owned());
            request.whole_contexts.insert(name);
        }
    }
    Ok(request)
}

fn context(cache: &Cache, request: &BuildRequest, text: &str) -> Result<PathBuf> {
    let repository = Repository::parse(text)
        .map_err(|why| BuildFailure::new(format!("the build context {text}: {why}")))?;
    let directory = directory(cache)?;
    repository.check_out(&directory, request)
}

/// For one checkout; it goes with the build.
pub(super) fn directory(cache: &Cache) -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix("git-").tempdir_in(cache.tmp());
    Ok(made.doing(|| "make a directory for a checkout")?.keep())
}

/// A repository, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Repository {
    remote: String,
    /// Branch, tag or commit; empty: what the repository shows first.
    reference: String,
    subdirectory: String,
    /// The commit to get where no reference is named; it has to be this one, or begin with it.
    commit: String,
    /// What the commit has to be, or begin with.
    checksum: String,
    has_submodules: bool,
    keeps_git: bool,
}

/// Whether the text names a repository.
pub(super) fn is_git(text: &str) -> bool {
    let path = text.split(['#', '?']).next().unwrap_or_default();
    let starts = |list: &[&str]| list.iter().any(|start| text.starts_with(start));
    starts(&["git@", "git://", "ssh://", "github.com/"])
        || (starts(&["http://", "https://"]) && path.ends_with(".git"))
}

/// The same for a source of ADD, where `github.com/…` is a path.
pub(super) fn is_source(text: &str) -> bool {
    is_git(text) && !text.starts_with("github.com/")
}

impl Repository {
    /// # Errors
    /// A sentence about the address.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = text.split_once('?').unwrap_or((text, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut found = Self {
            remote: if remote.starts_with("github.com/") {
                format!("https://{remote}")
            } else {
                remote.into()
            },
            reference: reference.into(),
            subdirectory: subdirectory.into(),
            has_submodules: true,
            ..Self::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let flag = || match value {
                "" | "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(format!("invalid value for `{key}`: `{value}`")),
            };
            match key {
                "ref" => found.reference = value.into(),
                "branch" => found.reference = format!("refs/heads/{value}"),
                "tag" => found.reference = format!("refs/tags/{value}"),
                "subdir" => found.subdirectory = value.into(),
                "commit" => found.commit = value.into(),
                "checksum" => found.checksum = value.into(),
                "submodules" => found.has_submodules = flag()?,
                "keep-git-dir" => found.keeps_git = flag()?,
                _ => return Err(format!("unexpected query \"{key}\"")),
            }
        }
        if found.remote.starts_with('-') || found.reference.starts_with('-') {
            return Err("an address or reference cannot begin with `-`".into());
        }
        Ok(found)
    }

    /// ADD's own flags.
    pub(super) fn with(mut self, checksum: Option<&str>, keeps_git: Option<bool>) -> Self {
        if let Some(checksum) = checksum {
            self.checksum = checksum.into();
        }
        self.keeps_git = keeps_git.unwrap_or(self.keeps_git);
        self
    }

    /// Checks it out below `directory`; gives the directory that is meant. Blocks.
    ///
    /// # Errors
    /// What `git` says; a commit that is another one; a subdirectory that is none.
    pub(super) fn check_out(&self, directory: &Path, request: &BuildRequest) -> Result<PathBuf> {
        if request.registries == Registries::Offline {
            return Err(super::remote::kept_out(&self.remote));
        }
        let git = Git { directory, authorization: self.authorization(request)? };
        git.run(&["init", "-q", "--template=", "."])?;
        let wanted = match (self.reference.as_str(), self.commit.as_str()) {
            ("", "") => "HEAD",
            ("", commit) => commit,
            (reference, _) => reference,
        };
        if git.run(&["fetch", "-q", "--depth=1", "--", &self.remote, wanted]).is_ok() {
            git.run(&["checkout", "-q", "--detach", "FETCH_HEAD"])?;
        } else {
            // Servers do not give every commit by its name, and none by a part of it.
            let all = "+refs/*:refs/remotes/origin/*";
            git.run(&["fetch", "-q", "--", &self.remote, all]).map_err(|why| self.refused(&why))?;
            git.run(&["checkout", "-q", "--detach", wanted]).map_err(|why| self.refused(&why))?;
        }
        let head = git.run(&["rev-parse", "HEAD"])?;
        let unexpected =
            [&self.commit, &self.checksum].into_iter().find(|wanted| !head.trim().starts_with(*wanted));
        if let Some(wanted) = unexpected {
            let message = format!("expected commit {wanted} of {}, found {}", self.remote, head.trim());
            return Err(BuildFailure::new(message));
        }
        if self.has_submodules && directory.join(".gitmodules").exists() {
            git.run(&["submodule", "-q", "update", "--init", "--recursive", "--depth=1"])?;
        }
        if !self.keeps_git {
            std::fs::remove_dir_all(directory.join(".git")).doing(|| "remove what git keeps")?;
        }
        self.meant(directory)
    }

    fn meant(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join(self.subdirectory.trim_matches('/'));
        let real =
            path.canonicalize().doing(|| format!("find `{}` in {}", self.subdirectory, self.remote))?;
        // A link of the repository may lead anywhere.
        let root = directory.canonicalize().doing(|| "find the checkout")?;
        if real.starts_with(&root) && real.is_dir() {
            Ok(real)
        } else {
            let message = format!("`{}` is no directory of {}", self.subdirectory, self.remote);
            Err(BuildFailure::new(message))
        }
    }

    fn refused(&self, why: &BuildFailure) -> BuildFailure {
        BuildFailure::doing(format!("fetch `{}` of {}", self.reference, self.remote), why)
    }

    /// `GIT_AUTH_HEADER` or `GIT_AUTH_TOKEN` of the build's secrets, for this host first.
    fn authorization(&self, request: &BuildRequest) -> Result<Option<String>> {
        let rest = self.remote.split_once("://").map_or(self.remote.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', ':']).next().unwrap_or_default().to_owned();
        let find = |kind: &str| -> Option<(String, &Secret)> {
            let ids = [format!("GIT_AUTH_{kind}.{host}"), format!("GIT_AUTH_{kind}")];
            ids.into_iter().find_map(|id| Some((id.clone(), request.secrets.get(&id)?)))
        };
        let text = |(id, secret): (String, &Secret)| {
            let bytes = super::mounts::secret_bytes(&id, secret)?;
            Ok::<_, BuildFailure>(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        if let Some(header) = find("HEADER") {
            return text(header).map(Some);
        }
        let basic = |token: String| format!("basic {}", STANDARD.encode(format!("x-access-token:{token}")));
        find("TOKEN").map(|token| Ok(basic(text(token)?))).transpose()
    }
}

struct Git<'a> {
    directory: &'a Path,
    authorization: Option<String>,
}

impl Git<'_> {
    fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("git");
        command.args(args).current_dir(self.directory).stdin(Stdio::null());
        // Neither questions nor the user's own settings; what may be told to others is not on the command line.
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_GLOBAL", "/dev/null").env("LC_ALL", "C");
        command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
        if let Some(authorization) = &self.authorization {
            command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "http.extraHeader");
            command.env("GIT_CONFIG_VALUE_0", format!("Authorization: {authorization}"));
        }
        let output = command.output().map_err(|e| {
            BuildFailure::doing("run git", e).hint("Git repositories need the program `git` on this machine.")
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or("git failed").chars().take(300).collect::<String>();
        Err(BuildFailure::new(said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_what_is_wanted() {
        let parse = |text: &str| Repository::parse(text).expect(text);
        let whole = parse("https://a.io/x.git#main:sub/dir");
        assert_eq!(
            (whole.remote.as_str(), whole.reference.as_str(), whole.subdirectory.as_str()),
            ("https://a.io/x.git", "main", "sub/dir")
        );
        assert_eq!(parse("github.com/a/b").remote, "https://github.com/a/b");
        assert_eq!(parse("git@a.io:x/y").remote, "git@a.io:x/y");
        let query =
            parse("https://a.io/x.git?branch=dev&subdir=s&commit=abc&submodules=false&keep-git-dir=1");
        assert_eq!((query.reference.as_str(), query.subdirectory.as_str()), ("refs/heads/dev", "s"));
        assert_eq!(query.commit, "abc");
        assert!(!query.has_submodules && query.keeps_git);
        assert_eq!(parse("https://a.io/x.git?tag=v1").reference, "refs/tags/v1");
        assert_eq!(Repository::parse("https://a.io/x.git?what=1"), Err("unexpected query \"what\"".into()));
        assert!(Repository::parse("https://a.io/x.git#--upload-pack=x").is_err());
    }

    #[test]
    fn repositories_are_told_from_other_sources() {
        for text in [
            "https://a.io/x.git",
            "https://a.io/x.git#m:s",
            "git@a.io:x",
            "git://a.io/x",
            "ssh://a.io/x",
            "github.com/a/b",
        ] {
            assert!(is_git(text), "{text}");
        }
        for text in [
            "https://a.io/x.git/file",
            "https://a.io/x",
            "docker-image://a/x.git",
            "/dir/x.git",
            "dir",
            "x.git",
        ] {
            assert!(!is_git(text), "{text}");
        }
    }
}
