//! `build --check`: findings about a Dockerfile, without building anything.
//!
//! All stages are read, or those of the target. Base images count as they are here; what an image that is not here
//! would set is not guessed, so variables on top of it are not looked at.

use super::cache::Cache;
use super::context::ignore_file;
use super::failure::{BuildFailure, Doing, Result};
use super::git;
use super::inputs;
use super::read::Reader;
use super::request::{BuildEnv, BuildRequest};
use super::state::Outside;
use stack_runtime::image::{Image, Platform};
use stack_schema::dockerfile::Dockerfile;
use stack_schema::dockerfile::lint::{Check, Finding};

/// All findings that are wanted, in the order of the file. Reads files and blocks.
///
/// # Errors
/// What is wrong with the Dockerfile, its ignore file or the request.
pub fn check(env: &BuildEnv, request: &BuildRequest) -> Result<Checked> {
    let cache;
    let mut request = request.clone();
    if git::is_address(&request.context.to_string_lossy()) {
        cache = Cache::open(&env.home).doing(|| "open the build cache")?;
        request = git::contexts(&cache, request)?;
    }
    let request = &request;
    let (file, path) = inputs::read(request)?;
    let outside = inputs::outside(&file, request)?;
    let ignore = ignore_file(&request.context, path.as_deref())?;
    let selection = match request.target {
        Some(_) => inputs::selection(&file, request, &outside)?.stages,
        None => inputs::all_stages(&file, request, &outside)?,
    };
    let image = |name: &str| {
        let found =
            env.store.image(name).map_err(|e| BuildFailure::doing(format!("look up image {name}"), e))?;
        Ok(found.map(|image| image.document))
    };
    let mut reader = Reader::new(&file, &outside, request.platform.as_deref(), &ignore, &image)?;
    reader.read(&selection)?;
    let mut findings = inputs::findings(&file, request, &outside);
    findings.extend(reader.findings());
    let wanted = wanted(&file, &outside)?;
    findings.retain(|finding| wanted.wants(finding.rule));
    findings.sort_by_key(|finding| finding.diagnostic.place.as_ref().map(|place| place.start));
    Ok(Checked { is_error: wanted.is_error && !findings.is_empty(), findings })
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// The Dockerfile wants findings to be errors, and there are some.
    pub is_error: bool,
}

/// The directive, or the argument that replaces it.
pub(super) fn wanted(file: &Dockerfile, outside: &Outside) -> Result<Check> {
    match outside.given("BUILDKIT_DOCKERFILE_CHECK") {
        Some(text) => Check::parse(text).map_err(BuildFailure::new),
        None => Ok(file.check.clone()),
    }
}

pub(super) fn own_platform(image: &Image) -> Platform {
    let variant = image.variant.clone();
    Platform { os: image.os.clone(), architecture: image.architecture.clone(), variant }
}
