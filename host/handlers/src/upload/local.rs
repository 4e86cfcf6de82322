//! Bundles in a folder: what an ingest service would get, unpacked.

use std::path::Path;
use std::sync::Arc;

use super::folder::Folder;
use super::{Error, Origin, rows};
use crate::meter::Meter;
use crate::output::Output;
use crate::work;

/// Writes a bundle into `folder` and returns where it is.
pub(super) async fn upload(
    folder: &Arc<Path>,
    output: &Arc<Output>,
    origin: &Arc<Origin>,
    meter: &Arc<Meter>,
) -> Result<String, Error> {
    let (parent, output) = (Arc::clone(folder), Arc::clone(output));
    let (origin, meter) = (Arc::clone(origin), Arc::clone(meter));
    work::run(move |stop| {
        let mut bundle = Folder::begin(&parent, &output.label(origin.run))?;
        let sums = bundle.copy(&output, "data", stop, &meter)?;
        let metadata = rows::metadata(&output, &origin, sums.iter().map(String::as_str));
        bundle.write("metadata.txt", &metadata)?;
        Ok(bundle.finish(stop)?.display().to_string())
    })
    .await
}
