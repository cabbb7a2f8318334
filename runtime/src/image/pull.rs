//! Pulling: a name in a registry becomes an image in the store.

use super::error::{Error, Result};
use super::platform::Platform;
use super::progress::Report;
use super::reference::Reference;
use super::store::{Image, Store};

/// Pulls for a platform (`None`: this machine's). What is there already is not fetched again.
///
/// # Errors
/// [`Error::Unreachable`] when the registry gave no answer at all; a caller may then fall back.
pub async fn pull(_store: &Store, _reference: &Reference, _platform: Option<&Platform>, _report: Report<'_>) -> Result<Image> {
    Err(Error::NotYet("pulling".into()))
}
