//! One Dockerfile for several platforms: a build each, and an index of what they made.
//!
//! The store has one image under a name: of several platforms that of this machine, else the first. Registries, layouts
//! and OCI archives get the index; files go to a directory each, `linux_amd64`.

use super::event::BuildEvent;
use super::failure::{BuildFailure, Doing, Result};
use super::output::{Dest, Output};
use super::request::{BuildEnv, BuildRequest, BuildResult};
use super::steps::{Events, build};
use stack_runtime::image::artifact::{Place, Version};
use stack_runtime::image::manifest::Manifest;
use stack_runtime::image::progress::silent;
use stack_runtime::image::{Digest, Platform, Reference, Store};

/// As [`build`], for each of these platforms (none: as the request says).
///
/// # Errors
/// Of the first build that fails; an output that cannot hold several platforms.
pub async fn build_for(
    env: &BuildEnv,
    request: &BuildRequest,
    platforms: &[String],
    events: Events<'_>,
) -> Result<BuildResult> {
    let wanted =
        platforms.iter().map(|text| Platform::parse(text)).collect::<std::result::Result<Vec<_>, _>>()?;
    match wanted.as_slice() {
        [] => build(env, request, events).await,
        [one] => {
            build(env, &BuildRequest { platform: Some(one.to_string()), ..request.clone() }, events).await
        }
        several => all(env, request, several, events).await,
    }
}

async fn all(
    env: &BuildEnv,
    request: &BuildRequest,
    platforms: &[Platform],
    events: Events<'_>,
) -> Result<BuildResult> {
    check(request)?;
    // From the first layer until the index is written.
    let _lease = env.store.lease().doing(|| "use the image store")?;
    let host = Platform::host();
    let own = platforms.iter().position(|platform| host.fit(platform).is_some()).unwrap_or(0);
    let (mut images, mut total) = (Vec::new(), None::<BuildResult>);
    for (index, platform) in platforms.iter().enumerate() {
        let one = part(request, platform, index == own);
        let tell = |event| events(named(event, platform));
        let result = build(env, &one, &tell).await?;
        let manifest = result.part.clone().ok_or_else(|| BuildFailure::new("a build gave no manifest"))?;
        images.push((platform.clone(), manifest));
        let (steps, cached) = total.as_ref().map_or((0, 0), |known| (known.steps, known.cached));
        let (steps, cached) = (steps + result.steps, cached + result.cached);
        total = Some(match total {
            Some(known) if index != own => BuildResult { steps, cached, ..known },
            _ => BuildResult { steps, cached, ..result },
        });
    }
    let mut result = total.ok_or_else(|| BuildFailure::new("no platform to build for"))?;
    result.pushed = write(&env.store, request, &images).await?;
    Ok(result)
}

fn check(request: &BuildRequest) -> Result<()> {
    let refused = request.outputs.iter().find_map(|output| match output {
        Output::Archive { is_docker: true, .. } => {
            Some("docker exporter does not currently support exporting manifest lists")
        }
        Output::Tar(_) => Some("an archive of files holds one platform; use type=local"),
        _ => None,
    });
    let refused = refused.or_else(|| {
        (!request.cache_to.is_empty())
            .then_some("a cache of several platforms cannot be exported; build them one by one")
    });
    refused.map_or(Ok(()), |why| Err(BuildFailure::new(why)))
}

/// Which line is of which platform.
fn named(event: BuildEvent, platform: &Platform) -> BuildEvent {
    let on = |name: String| format!("{platform} {name}");
    match event {
        BuildEvent::Started { step, name } => BuildEvent::Started { step, name: on(name) },
        BuildEvent::Cached { step, name } => BuildEvent::Cached { step, name: on(name) },
        BuildEvent::Done { step, name, took } => BuildEvent::Done { step, name: on(name), took },
        BuildEvent::Failed { step, name } => BuildEvent::Failed { step, name: on(name) },
        other => other,
    }
}

/// The build of one of them.
fn part(request: &BuildRequest, platform: &Platform, is_own: bool) -> BuildRequest {
    let keeps =
        request.outputs.is_empty() || request.outputs.iter().any(|o| matches!(o, Output::Image { .. }));
    let mut outputs = vec![Output::Part];
    let mut tags = Vec::new();
    if keeps && is_own {
        tags = names(request);
        outputs.push(Output::Image { names: Vec::new(), push: false });
    }
    for output in &request.outputs {
        if let Output::Files(directory) = output {
            let name = platform.to_string().replace('/', "_");
            outputs.push(Output::Files(directory.join(name)));
        }
    }
    BuildRequest { platform: Some(platform.to_string()), outputs, tags, ..request.clone() }
}

/// All that were written anywhere.
fn names(request: &BuildRequest) -> Vec<Reference> {
    let of_output = |output: &Output| match output {
        Output::Image { names, .. } => names.clone(),
        _ => Vec::new(),
    };
    request.tags.iter().cloned().chain(request.outputs.iter().flat_map(of_output)).collect()
}

/// The index, wherever it is wanted; gives the digest of what was pushed.
async fn write(
    store: &Store,
    request: &BuildRequest,
    images: &[(Platform, Manifest)],
) -> Result<Option<Digest>> {
    let mut pushed = None;
    let version = request.tags.first().map_or(Version::Any, |tag| Version::Tag(tag.version().to_owned()));
    for output in &request.outputs {
        match output {
            Output::Image { push: true, .. } => {
                for name in names(request) {
                    pushed = Some(Place::Registry(name).put_index(store, images, &silent).await?);
                }
                if pushed.is_none() {
                    return Err(BuildFailure::new("tag is needed when pushing to registry"));
                }
            }
            Output::Layout(directory) => {
                let place = Place::Layout { directory: directory.clone(), version: version.clone() };
                place.put_index(store, images, &silent).await?;
            }
            Output::Archive { dest, .. } => archive(store, images, dest, version.clone()).await?,
            _ => {}
        }
    }
    Ok(pushed)
}

/// A layout, packed.
async fn archive(
    store: &Store,
    images: &[(Platform, Manifest)],
    dest: &Dest,
    version: Version,
) -> Result<()> {
    let made = tempfile::Builder::new().prefix("index-").tempdir_in(store.tmp());
    let made = made.doing(|| "make a directory for an archive")?;
    let place = Place::Layout { directory: made.path().to_owned(), version };
    place.put_index(store, images, &silent).await?;
    let dest = dest.clone();
    super::shared::blocking(move || dest.pack(made.path())).await
}
