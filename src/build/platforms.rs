//! One Dockerfile for several platforms: a build each, beside each other, and an index of what they made.
//!
//! The store has one image under a name: of several platforms that of this machine, else the first. Registries, layouts
//! and OCI archives get the index; files go to a directory each, `linux_amd64`.

use super::attest;
use super::event::BuildEvent;
use super::failure::{BuildFailure, Doing, Result};
use super::output::{Dest, Output, Part};
use super::request::{BuildEnv, BuildRequest, BuildResult};
use super::steps::{Events, build};
use futures_util::future::try_join_all;
use stack_runtime::image::artifact::{Member, Place, Version};
use stack_runtime::image::progress::silent;
use stack_runtime::image::{Digest, Platform, Reference, Store};
use stack_runtime::spec::Map;

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
    let own = request.platform.as_deref().map_or_else(|| Ok(Platform::host()), Platform::parse)?;
    match wanted.as_slice() {
        [] if !request.attest.is_none() => all(env, request, &[own], events).await,
        [one] if !request.attest.is_none() => all(env, request, std::slice::from_ref(one), events).await,
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
    check(request, platforms.len() > 1)?;
    // From the first layer until the index is written.
    let _lease = env.store.lease().doing(|| "use the image store")?;
    let host = Platform::host();
    let own = platforms.iter().position(|platform| host.fit(platform).is_some()).unwrap_or(0);
    let is_several = platforms.len() > 1;
    let one = |(index, platform)| async move {
        let one = part(request, platform, index == own, is_several);
        let tell = |event| events(if is_several { named(event, platform) } else { event });
        build(env, &one, &tell).await
    };
    let results = try_join_all(platforms.iter().enumerate().map(one)).await?;
    let mut images = Vec::new();
    for (platform, result) in platforms.iter().zip(&results) {
        let part = result.part.clone().ok_or_else(|| BuildFailure::new("a build gave no manifest"))?;
        images.extend(members(platform, part)?);
    }
    let sum = |count: fn(&BuildResult) -> usize| results.iter().map(count).sum();
    let (steps, cached) = (sum(|result| result.steps), sum(|result| result.cached));
    let mut result = BuildResult { steps, cached, ..results[own].clone() };
    result.pushed = write(&env.store, request, &images).await?;
    Ok(result)
}

/// The image, and what is said about it.
fn members(platform: &Platform, part: Part) -> Result<Vec<Member>> {
    let bytes = serde_json::to_vec(&part.manifest).doing(|| "describe the image")?;
    let unknown = || "unknown".to_owned();
    let about = [
        (attest::ABOUT.to_owned(), Digest::of(&bytes).to_string()),
        (attest::TYPE.to_owned(), attest::ATTESTATION.to_owned()),
    ];
    let statements = part.statements.map(|manifest| Member {
        platform: Platform { os: unknown(), architecture: unknown(), variant: None },
        manifest,
        annotations: about.into_iter().collect(),
    });
    let annotations = Map::new();
    let image = Member { platform: platform.clone(), manifest: part.manifest, annotations };
    Ok(std::iter::once(image).chain(statements).collect())
}

fn check(request: &BuildRequest, is_several: bool) -> Result<()> {
    let refused = request.outputs.iter().find_map(|output| match output {
        Output::Archive { is_docker: true, .. } => {
            Some("docker exporter does not currently support exporting manifest lists")
        }
        Output::Tar(_) if is_several => Some("an archive of files holds one platform; use type=local"),
        _ => None,
    });
    let has_caches = is_several && !request.cache_to.is_empty();
    let caches = "a cache of several platforms cannot be exported; build them one by one";
    let refused = refused.or(has_caches.then_some(caches));
    let holds = |output: &Output| match output {
        Output::Image { push, .. } => *push,
        Output::Archive { .. } | Output::Layout(_) | Output::Files(_) => true,
        _ => false,
    };
    if !request.attest.is_none() && !request.outputs.iter().any(holds) {
        let failure = BuildFailure::new("attestations are not supported for images of this machine's store");
        return Err(failure.hint("Push them, or write them to a file: -o type=oci,dest=FILE."));
    }
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
fn part(request: &BuildRequest, platform: &Platform, is_own: bool, is_several: bool) -> BuildRequest {
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
            outputs.push(Output::Files(if is_several { directory.join(name) } else { directory.clone() }));
        }
        if let (Output::Tar(_), false) = (output, is_several) {
            outputs.push(output.clone());
        }
    }
    let names = names(request);
    BuildRequest { platform: Some(platform.to_string()), outputs, tags, names, ..request.clone() }
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
async fn write(store: &Store, request: &BuildRequest, images: &[Member]) -> Result<Option<Digest>> {
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
async fn archive(store: &Store, images: &[Member], dest: &Dest, version: Version) -> Result<()> {
    let made = tempfile::Builder::new().prefix("index-").tempdir_in(store.tmp());
    let made = made.doing(|| "make a directory for an archive")?;
    let place = Place::Layout { directory: made.path().to_owned(), version };
    place.put_index(store, images, &silent).await?;
    let dest = dest.clone();
    super::shared::blocking(move || dest.pack(made.path())).await
}
