//! From a request to what is built: the Dockerfile's text, values for its `ARG`s, the selected stages.

use super::failure::{BuildFailure, Doing, Result};
use super::request::{BuildRequest, DockerfileSource};
use super::state::Outside;
use indexmap::IndexMap;
use stack_runtime::image::{Platform, Reference};
use stack_schema::dockerfile::expand::Expander;
use stack_schema::dockerfile::lint::{Finding, check_bases};
use stack_schema::dockerfile::stages::{self, Names, Selected, Selection, every, label, select};
use stack_schema::dockerfile::{Dockerfile, Frontend, Kind};
use stack_schema::source::Source;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No Dockerfile that a person wrote comes near.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;

/// The file, and where it is if it is one. It has to be one for this builder.
pub(super) fn read(request: &BuildRequest) -> Result<(Dockerfile, Option<PathBuf>)> {
    let (file, path) = read_any(request)?;
    file.frontend.as_ref().map(Frontend::accept).transpose()?;
    Ok((file, path))
}

/// The same, whatever frontend it asks for.
pub(super) fn read_any(request: &BuildRequest) -> Result<(Dockerfile, Option<PathBuf>)> {
    let (name, path, text) = match &request.dockerfile {
        DockerfileSource::Inline(text) => ("Dockerfile (inline)".to_owned(), None, text.clone()),
        DockerfileSource::Path(path) => {
            let path = locate(&request.context, path);
            let text = read_text(&path).map_err(|e| missing(&path, &e))?;
            (shown(&path), Some(path), text)
        }
    };
    let name = request.dockerfile_name.clone().unwrap_or(name);
    let source = Source { name, path: path.clone(), text };
    Ok((stack_schema::dockerfile::parse(Arc::new(source))?, path))
}

/// The default name has a lower-case form.
fn locate(context: &Path, path: &Path) -> PathBuf {
    let full = context.join(path);
    let lower = context.join("dockerfile");
    if path == Path::new("Dockerfile") && !full.exists() && lower.exists() { lower } else { full }
}

fn read_text(path: &Path) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.len() > DOCKERFILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 16 MiB"));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut &file, &mut bytes)?;
    // Old files have comments in other encodings, which mean nothing.
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

fn missing(path: &Path, error: &io::Error) -> BuildFailure {
    let failure = BuildFailure::doing(format!("read the Dockerfile {}", path.display()), error);
    match error.kind() {
        io::ErrorKind::NotFound => failure.hint("Set `build.dockerfile`, relative to the build context."),
        _ => failure,
    }
}

/// Relative to where the user is, if it is below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// Global `ARG`s and the platform's variables.
pub(super) fn outside(file: &Dockerfile, request: &BuildRequest) -> Result<Outside> {
    let build = Platform::host();
    let target =
        request.platform.as_deref().map(Platform::parse).transpose()?.unwrap_or_else(|| build.clone());
    let mut globals = IndexMap::new();
    for (prefix, platform) in [("BUILD", &build), ("TARGET", &target)] {
        globals.insert(format!("{prefix}PLATFORM"), platform.to_string());
        globals.insert(format!("{prefix}OS"), platform.os.clone());
        globals.insert(format!("{prefix}OSVERSION"), String::new());
        globals.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        globals.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    let last = file.stages.last().and_then(|stage| stage.name.clone()).unwrap_or_else(|| "default".into());
    globals.insert("TARGETSTAGE".into(), request.target.clone().unwrap_or(last));
    let mut outside = Outside { build_args: request.args.clone(), globals };
    for instruction in &file.globals {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for (name, default) in args {
            let value =
                global(file, &outside, name, default.as_deref()).map_err(|f| f.at(&instruction.place))?;
            outside.globals.extend(value.map(|value| (name.clone(), value)));
        }
    }
    Ok(outside)
}

fn global(file: &Dockerfile, outside: &Outside, name: &str, default: Option<&str>) -> Result<Option<String>> {
    if let Some(given) = outside.given(name) {
        return Ok(Some(given.to_owned()));
    }
    let expander = Expander { escape: file.escape, variables: outside };
    let expanded = default.map(|text| expander.word(text)).transpose();
    Ok(expanded.map_err(|e| BuildFailure::new(e.to_string()))?.map(|e| e.value))
}

pub(super) fn selection(file: &Dockerfile, request: &BuildRequest, outside: &Outside) -> Result<Selection> {
    Ok(select(file, request.target.as_deref(), &names(&is_context(request), outside))?)
}

/// Images that the target is made from, as the Dockerfile calls them.
///
/// # Errors
/// What is wrong with the Dockerfile.
pub fn images(request: &BuildRequest) -> std::result::Result<Vec<String>, BuildFailure> {
    let (file, _) = read(request)?;
    let outside = outside(&file, request)?;
    let selection = selection(&file, request, &outside)?;
    let named = |reference: stages::Reference| match reference {
        stages::Reference::Image(name) => Some(name),
        _ => None,
    };
    let stages = selection.stages.into_iter();
    let references = stages
        .flat_map(|stage| std::iter::once(stage.base).chain(stage.uses.into_iter().map(|(_, used)| used)));
    Ok(references.filter_map(named).collect())
}

pub(super) fn all_stages(
    file: &Dockerfile,
    request: &BuildRequest,
    outside: &Outside,
) -> Result<Vec<Selected>> {
    Ok(every(file, &names(&is_context(request), outside))?)
}

/// What needs neither files nor images.
pub(super) fn findings(file: &Dockerfile, request: &BuildRequest, outside: &Outside) -> Vec<Finding> {
    let known: Vec<&str> = outside.globals.keys().map(String::as_str).collect();
    let bases = check_bases(file, &names(&is_context(request), outside), &known);
    file.findings.iter().cloned().chain(bases).collect()
}

fn names<'a>(contexts: &'a dyn Fn(&str) -> bool, outside: &'a Outside) -> Names<'a> {
    Names { contexts, variables: outside, platform: &can_be_platform, image: &can_be_image }
}

fn is_context(request: &BuildRequest) -> impl Fn(&str) -> bool {
    |name| request.additional_contexts.contains_key(name)
}

fn can_be_platform(text: &str) -> std::result::Result<(), String> {
    Platform::parse(text).map(drop).map_err(|e| e.to_string())
}

fn can_be_image(name: &str) -> std::result::Result<(), String> {
    Reference::parse(name).map(drop).map_err(|e| e.to_string())
}

/// The name of a stage, for people.
pub(super) fn stage_label(file: &Dockerfile, index: usize) -> String {
    label(&file.stages[index], index)
}

/// What a named context is.
pub(super) enum NamedContext {
    Directory(PathBuf),
    Image(String),
}

pub(super) fn named_context(request: &BuildRequest, name: &str) -> Result<NamedContext> {
    let value =
        request.additional_contexts.get(name).ok_or(()).map_err(|()| BuildFailure::new("no such context"))?;
    match value.split_once("://") {
        Some(("docker-image", reference)) => Ok(NamedContext::Image(reference.to_owned())),
        Some((scheme, _)) => Err(BuildFailure::new(format!(
            "the context `{name}` is a {scheme}:// source, which is not supported"
        ))
        .hint("Named contexts are directories or docker-image:// references.")),
        None => {
            let path = std::fs::canonicalize(request.context.join(value))
                .doing(|| format!("find the context `{name}`"))?;
            Ok(NamedContext::Directory(path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> BuildRequest {
        BuildRequest { dockerfile: DockerfileSource::Inline(text.into()), ..BuildRequest::default() }
    }

    #[test]
    fn global_args_see_earlier_ones_and_given_values_win() {
        let mut request = request("ARG A=1 B=$A-x\nARG C=${B}y\nFROM img:$C");
        request.args.insert("A".into(), Some("2".into()));
        let (file, _) = read(&request).expect("read");
        let outside = outside(&file, &request).expect("valid");
        assert_eq!(outside.globals["C"], "2-xy");
        assert_eq!(outside.globals["TARGETOS"], "linux");
        assert_eq!(outside.globals["TARGETSTAGE"], "default");
        let selection = selection(&file, &request, &outside).expect("valid");
        assert_eq!(selection.stages.len(), 1);
    }

    #[test]
    fn the_lower_case_name_is_found_and_a_missing_file_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let request = BuildRequest { context: directory.path().into(), ..BuildRequest::default() };
        let error = read(&request).expect_err("nothing there").render();
        assert!(error.contains("failed to read the Dockerfile") && error.contains("hint:"), "{error}");
        std::fs::write(directory.path().join("dockerfile"), "FROM a").expect("written");
        assert!(read(&request).is_ok());
    }
}
