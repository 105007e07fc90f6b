//! Scrubbing: reading and checking all stored records.

use crate::services::Services;
use crate::topics::named_gaps;
use weir_api as api;
use weir_broker::ReadError;

impl Services {
    /// Reads and checks all stored records; damaged ranges are replaced by another node's copy, if the site
    /// has a version. `progress` is called with bytes done and bytes in all.
    ///
    /// # Errors
    /// When the log cannot be read, or another scrub is under way.
    ///
    /// # Cancel safety
    /// Safe: a scrub that began goes on, and its report is lost.
    pub async fn scrub(
        &self,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<api::ScrubReport, ReadError> {
        let (report, mended) = self.broker.scrub(progress).await?;
        // A partition without a name is told by its number.
        let topics = weir_broker::topics_in(self.broker.log()).unwrap_or_default();
        Ok(api::ScrubReport {
            partitions: report.partitions,
            batches: report.batches,
            records: report.records,
            bytes: report.bytes,
            gaps: named_gaps(&topics, &report.gaps),
            damaged: named_gaps(&topics, &report.damaged),
            rows: report.rows,
            mended: Some(named_gaps(&topics, &mended)),
            ..api::ScrubReport::default()
        })
    }
}
