//! What apply needs of images: a look at them, pulling, building. A seam, because the tests of the laws have
//! neither a registry nor a builder.

use crate::event::Sink;
use crate::failure::Result;
use crate::plan::spec::ImageView;
use crate::plan::step::Building;
use stack_schema::project::Project;
use std::future::Future;

pub trait Images: Send + Sync {
    /// `None` when there is no such image here.
    fn view(&self, reference: &str) -> Result<Option<ImageView>>;
    fn remove(&self, reference: &str) -> Result<()>;
    /// Tells the layers' progress below `Image REFERENCE`.
    fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        events: &dyn Sink,
    ) -> impl Future<Output = Result<()>> + Send;
    /// Makes the image and gives it its name.
    fn build(
        &self,
        project: &Project,
        building: &Building,
        events: &dyn Sink,
    ) -> impl Future<Output = Result<()>> + Send;
}
