//! Find: which files make the project, from where relative paths count, and which variables are seen.
//!
//! | what | first that is there |
//! |---|---|
//! | files | `-f`, `COMPOSE_FILE`, `compose.yaml`, `compose.yml`, `docker-compose.yml`, `docker-compose.yaml` here or in a parent (with the override file beside it) |
//! | directory | `--project-directory`, the first file's, the current one |
//! | variables | the process environment, then `--env-file`, `COMPOSE_ENV_FILES` or the directory's `.env` |
//! | name | `-p`, `COMPOSE_PROJECT_NAME`, `name:`, the directory's (the last two are the loader's) |
//!
//! `.env` may itself name the files (`COMPOSE_FILE`); then the `.env` of the directory it leads to is read as
//! well, and the first one wins. `COMPOSE_*` in it steer the command line unless the process environment does.

use crate::failure::{Failure, Kind, Result, failed};
use stack_schema::diagnostic::{Diagnostic, Severity};
use stack_schema::env::{Env, Origin, parse_dotenv_after};
use stack_schema::interpolate::Usage;
use stack_schema::load::LoadRequest;
use stack_schema::source::{Files, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What was typed.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub files: Vec<String>,
    pub project_name: Option<String>,
    pub profiles: Vec<String>,
    pub env_files: Vec<String>,
    pub project_directory: Option<PathBuf>,
    pub compatibility: bool,
}

/// Where it was typed.
#[derive(Debug, Clone)]
pub struct Place {
    pub directory: PathBuf,
    pub environment: Env,
}

impl Place {
    /// # Errors
    /// When the current directory is gone.
    pub fn current() -> Result<Self> {
        let directory = std::env::current_dir().map_err(failed("find the current directory"))?;
        let pairs =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Ok(Self { directory, environment: Env::process(pairs) })
    }
}

#[derive(Debug, Clone, Default)]
pub struct Found {
    pub request: LoadRequest,
    pub warnings: Vec<Diagnostic>,
    /// The env files that were read, absolute.
    pub env_files: Vec<PathBuf>,
}

/// Everything but the files: enough for what needs only a name.
pub fn settings(asked: &Asked, place: &Place, disk: &dyn Files) -> Result<Env> {
    let mut finder = Finder::new(asked, place, disk);
    finder.read_env_files()?;
    Ok(finder.environment)
}

/// # Errors
/// No file is there, an env file is missing or wrong.
pub fn find(asked: &Asked, place: &Place, disk: &dyn Files) -> Result<Found> {
    if let Some(remote) = asked.files.iter().find(|file| file.contains("://") || file.starts_with("git@")) {
        let message = format!("reading `{remote}` from elsewhere is not supported yet");
        return Err(Failure::usage(message).hint("Copy the files here, and name them with `-f`."));
    }
    let mut finder = Finder::new(asked, place, disk);
    finder.read_env_files()?;
    finder.choose_files()?;
    finder.read_env_files()?;
    Ok(finder.finish())
}

/// The value of a setting that counts as yes.
pub fn is_true(value: Option<&str>) -> bool {
    matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "y" | "yes" | "on"))
}

struct Finder<'a> {
    asked: &'a Asked,
    place: &'a Place,
    disk: &'a dyn Files,
    files: Vec<PathBuf>,
    environment: Env,
    usages: Vec<Usage>,
    env_files: Vec<PathBuf>,
    warnings: Vec<Diagnostic>,
}

impl<'a> Finder<'a> {
    fn new(asked: &'a Asked, place: &'a Place, disk: &'a dyn Files) -> Self {
        let files = asked.files.iter().map(|f| located(&place.directory, f)).collect();
        let mut environment = place.environment.clone();
        if environment.get("PWD").is_none() {
            environment.set("PWD", place.directory.display().to_string(), Origin::Process);
        }
        Self {
            asked,
            place,
            disk,
            files,
            environment,
            usages: Vec::new(),
            env_files: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The directory as far as it is known.
    fn directory(&self) -> PathBuf {
        if let Some(directory) = &self.asked.project_directory {
            return clean(&self.place.directory.join(directory));
        }
        let first = self.files.iter().find(|f| *f != Path::new("-"));
        let parent = first.and_then(|f| f.parent()).map(Path::to_path_buf);
        parent.unwrap_or_else(|| self.place.directory.clone())
    }

    /// Once more is harmless: what is set stays, what was read is not read again.
    fn read_env_files(&mut self) -> Result<()> {
        let from_process = self.place.environment.get("COMPOSE_ENV_FILES").filter(|f| !f.is_empty());
        let named: Vec<String> = match (self.asked.env_files.is_empty(), from_process) {
            (false, _) => self.asked.env_files.clone(),
            (true, Some(list)) => list.split(',').filter(|f| !f.is_empty()).map(str::to_string).collect(),
            (true, None) => return self.read_default_env_file(),
        };
        if !self.env_files.is_empty() {
            return Ok(());
        }
        let mut all = Env::default();
        for name in named {
            let path = located(&self.place.directory, &name);
            let missing =
                || Failure::new(Kind::Project, format!("couldn't find env file: {}", path.display()));
            let text = self.disk.read(&path).map_err(|_| missing())?;
            all.overlay(self.parse(&path, text, &all)?);
            self.env_files.push(path);
        }
        self.environment.fill(&all);
        Ok(())
    }

    fn read_default_env_file(&mut self) -> Result<()> {
        let path = self.directory().join(".env");
        if is_true(self.place.environment.get("COMPOSE_DISABLE_ENV_FILE")) || self.env_files.contains(&path) {
            return Ok(());
        }
        if let Ok(text) = self.disk.read(&path) {
            let variables = self.parse(&path, text, &Env::default())?;
            self.environment.fill(&variables);
            self.env_files.push(path);
        }
        Ok(())
    }

    fn parse(&mut self, path: &Path, bytes: Vec<u8>, earlier: &Env) -> Result<Env> {
        let not_text = |_| Failure::new(Kind::Project, format!("{} is not UTF-8 text", path.display()));
        let text = String::from_utf8(bytes).map_err(not_text)?;
        let name = self.shown(path);
        let source = Arc::new(Source { name, path: Some(path.to_path_buf()), text });
        let environment = &self.environment;
        let parsed = parse_dotenv_after(&source, earlier, &|name| environment.get(name).map(str::to_string));
        self.usages.extend(parsed.usages);
        let (errors, warnings): (Vec<_>, Vec<_>) =
            parsed.diagnostics.into_iter().partition(|d| d.severity == Severity::Error);
        self.warnings.extend(warnings);
        if errors.is_empty() { Ok(parsed.variables) } else { Err(errors.into()) }
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.place.directory).unwrap_or(path).display().to_string()
    }

    fn choose_files(&mut self) -> Result<()> {
        if !self.files.is_empty() {
            return Ok(());
        }
        if let Some(list) = self.environment.get("COMPOSE_FILE").filter(|l| !l.is_empty()) {
            let separator =
                self.environment.get("COMPOSE_PATH_SEPARATOR").filter(|s| !s.is_empty()).unwrap_or(":");
            self.files = list.split(separator).map(|f| located(&self.place.directory, f)).collect();
            return Ok(());
        }
        let start = self.directory();
        let Some(directory) = start.ancestors().find(|d| self.first_of(d, &NAMES).is_some()) else {
            return Err(Failure::new(Kind::Project, "no configuration file provided: not found").hint(
                format!("There is no {} in {} or above; name one with `-f`.", NAMES[0], start.display()),
            ));
        };
        let directory = directory.to_path_buf();
        let base = self.chosen(&directory, &NAMES, "config");
        let over = self.chosen(&directory, &OVERRIDES, "override");
        self.files = base.into_iter().chain(over).collect();
        Ok(())
    }

    fn first_of(&self, directory: &Path, names: &[&str]) -> Option<PathBuf> {
        names.iter().map(|n| directory.join(n)).find(|p| self.disk.is_file(p))
    }

    fn chosen(&mut self, directory: &Path, names: &[&str], what: &str) -> Option<PathBuf> {
        let all: Vec<&&str> = names.iter().filter(|n| self.disk.is_file(&directory.join(n))).collect();
        let first = directory.join(all.first()?);
        if all.len() > 1 {
            let list = all.iter().map(|n| **n).collect::<Vec<_>>().join(", ");
            let text = format!(
                "found multiple {what} files with supported names: {list}; using {}",
                first.display()
            );
            self.warnings.push(Diagnostic::warning(text));
        }
        Some(first)
    }

    fn finish(self) -> Found {
        let setting = |name: &str| self.environment.get(name).filter(|v| !v.is_empty()).map(str::to_string);
        let profiles = match (self.asked.profiles.is_empty(), setting("COMPOSE_PROFILES")) {
            (false, _) => self.asked.profiles.clone(),
            (true, list) => list.iter().flat_map(|l| l.split(',')).map(|p| p.trim().to_string()).collect(),
        };
        let request = LoadRequest {
            project_directory: self.directory(),
            project_name: self.asked.project_name.clone().or_else(|| setting("COMPOSE_PROJECT_NAME")),
            profiles,
            environment: self.environment.clone(),
            usages: self.usages,
            display_base: self.place.directory.clone(),
            compatibility: self.asked.compatibility || is_true(setting("COMPOSE_COMPATIBILITY").as_deref()),
            files: self.files,
            ..LoadRequest::default()
        };
        Found { request, warnings: self.warnings, env_files: self.env_files }
    }
}

/// `-` stays standard input.
fn located(base: &Path, name: &str) -> PathBuf {
    if name == "-" { PathBuf::from("-") } else { clean(&base.join(name)) }
}

/// Without `.` and `..`, by the text alone.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io;

    /// Files by absolute path.
    struct Memory(BTreeMap<PathBuf, &'static str>);

    impl Files for Memory {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.get(path).map(|t| t.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        fn is_file(&self, path: &Path) -> bool {
            self.0.contains_key(path)
        }
        fn is_dir(&self, path: &Path) -> bool {
            self.0.keys().any(|f| f.starts_with(path) && f != path)
        }
    }

    fn disk(files: &[(&str, &'static str)]) -> Memory {
        Memory(files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect())
    }

    fn at(directory: &str, environment: &[(&str, &str)]) -> Place {
        let pairs = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Place { directory: directory.into(), environment: Env::process(pairs) }
    }

    fn paths(found: &Found) -> Vec<&str> {
        found.request.files.iter().filter_map(|f| f.to_str()).collect()
    }

    #[test]
    fn a_parents_file_and_its_override_are_found() {
        let disk = disk(&[("/p/compose.yml", ""), ("/p/docker-compose.override.yml", ""), ("/p/a/b/x", "")]);
        let found = find(&Asked::default(), &at("/p/a/b", &[]), &disk).expect("in /p");
        assert_eq!(paths(&found), ["/p/compose.yml", "/p/docker-compose.override.yml"]);
        assert_eq!(found.request.project_directory, PathBuf::from("/p"));
    }

    #[test]
    fn several_names_give_a_warning() {
        let disk = disk(&[("/p/compose.yaml", ""), ("/p/docker-compose.yml", "")]);
        let found = find(&Asked::default(), &at("/p", &[]), &disk).expect("in /p");
        assert_eq!(paths(&found), ["/p/compose.yaml"]);
        assert!(found.warnings[0].message.contains("multiple config files"));
    }

    #[test]
    fn nothing_there_is_an_error() {
        let failure = find(&Asked::default(), &at("/p", &[]), &disk(&[])).expect_err("nothing");
        assert_eq!(failure.message, "no configuration file provided: not found");
        assert_eq!(failure.exit_code, 1);
    }

    #[test]
    fn named_files_take_no_override_and_move_the_directory() {
        let disk = disk(&[
            ("/q/a.yaml", ""),
            ("/q/compose.override.yml", ""),
            ("/q/.env", "A=q"),
            ("/p/.env", "A=p"),
        ]);
        let asked = Asked { files: vec!["../q/a.yaml".into()], ..Asked::default() };
        let found = find(&asked, &at("/p", &[]), &disk).expect("named");
        assert_eq!(paths(&found), ["/q/a.yaml"]);
        assert_eq!(found.request.environment.get("A"), Some("q"));
    }

    #[test]
    fn dotenv_may_name_the_files_and_the_first_dotenv_wins() {
        let disk = disk(&[
            ("/p/.env", "COMPOSE_FILE=sub/a.yaml:b.yaml\nA=first\n"),
            ("/p/sub/a.yaml", ""),
            ("/p/b.yaml", ""),
            ("/p/sub/.env", "A=second\nB=2\n"),
        ]);
        let found = find(&Asked::default(), &at("/p", &[]), &disk).expect("named in .env");
        assert_eq!(paths(&found), ["/p/sub/a.yaml", "/p/b.yaml"]);
        assert_eq!(found.request.environment.get("A"), Some("first"));
        assert_eq!(found.request.environment.get("B"), Some("2"));
    }

    #[test]
    fn the_process_wins_over_dotenv_and_flags_over_both() {
        let disk = disk(&[
            ("/p/compose.yaml", ""),
            ("/p/.env", "COMPOSE_PROJECT_NAME=file\nCOMPOSE_PROFILES=a,b\n"),
        ]);
        let found =
            find(&Asked::default(), &at("/p", &[("COMPOSE_PROJECT_NAME", "env")]), &disk).expect("ok");
        assert_eq!(found.request.project_name.as_deref(), Some("env"));
        assert_eq!(found.request.profiles, ["a", "b"]);
        let asked =
            Asked { project_name: Some("flag".into()), profiles: vec!["c,d".into()], ..Asked::default() };
        let found = find(&asked, &at("/p", &[]), &disk).expect("ok");
        assert_eq!(found.request.project_name.as_deref(), Some("flag"));
        assert_eq!(found.request.profiles, ["c,d"]);
    }

    #[test]
    fn env_files_replace_dotenv_and_the_later_wins() {
        let disk =
            disk(&[("/p/compose.yaml", ""), ("/p/.env", "Z=1"), ("/p/a", "A=1\nB=1"), ("/p/b", "A=2")]);
        let asked = Asked { env_files: vec!["a".into(), "b".into()], ..Asked::default() };
        let found = find(&asked, &at("/p", &[]), &disk).expect("ok");
        let environment = &found.request.environment;
        assert_eq!(
            (environment.get("A"), environment.get("B"), environment.get("Z")),
            (Some("2"), Some("1"), None)
        );
        let asked = Asked { env_files: vec!["missing".into()], ..Asked::default() };
        let failure = find(&asked, &at("/p", &[]), &disk).expect_err("missing");
        assert_eq!(failure.message, "couldn't find env file: /p/missing");
    }

    #[test]
    fn the_directory_flag_wins_over_the_files() {
        let disk = disk(&[("/p/f/a.yaml", ""), ("/d/.env", "A=d")]);
        let asked = Asked {
            files: vec!["f/a.yaml".into()],
            project_directory: Some("/d".into()),
            ..Asked::default()
        };
        let found = find(&asked, &at("/p", &[]), &disk).expect("ok");
        assert_eq!(found.request.project_directory, PathBuf::from("/d"));
        assert_eq!(found.request.environment.get("A"), Some("d"));
    }
}
