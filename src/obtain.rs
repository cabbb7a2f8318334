//! Getting an image by its name: from a registry, or, where none answers or none may be asked, what is here.

use stack_runtime::image::progress::Report;
use stack_runtime::image::{Error, Image, Platform, Reference, Store, pull};

/// How far registries are relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registries {
    /// What one was asked for must come from it.
    Required,
    /// Where none answers, what it said last will do.
    #[default]
    Preferred,
    /// Nobody is asked (`--offline`).
    Offline,
}

/// An image, and what has to be said about how it was got.
#[derive(Debug)]
pub struct Obtained {
    pub image: Image,
    pub notice: Option<String>,
}

/// # Errors
/// As [`pull::pull`]; [`Error::Offline`] when nobody may be asked and it is not here.
pub async fn obtain(
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
    registries: Registries,
    report: Report<'_>,
) -> Result<Obtained, Error> {
    if registries == Registries::Offline {
        let offline = || Error::Offline(format!("image {}", reference.familiar()));
        let image = here(store, reference, platform)?.ok_or_else(offline)?;
        return Ok(Obtained { image, notice: None });
    }
    match pull::pull(store, reference, platform, report).await {
        Err(error) if error.is_unreachable() && registries == Registries::Preferred => {
            let Some(image) = here(store, reference, platform)? else { return Err(error) };
            let digest = image.manifest_digest.as_ref().unwrap_or(&image.id);
            let notice = format!("{error}; using {} as it was last, {digest}", reference.familiar());
            Ok(Obtained { image, notice: Some(notice) })
        }
        pulled => pulled.map(|image| Obtained { image, notice: None }),
    }
}

fn here(store: &Store, reference: &Reference, platform: Option<&Platform>) -> Result<Option<Image>, Error> {
    let own = |image: &Image| Platform {
        os: image.os.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
    };
    let fits = |image: &Image| platform.is_none_or(|wanted| wanted.fit(&own(image)).is_some());
    Ok(store.image(&reference.to_string())?.filter(fits))
}
