//! Scrubbing the whole log of a node.

use crate::core::Broker;
use std::sync::Arc;
use tokio::sync::oneshot;
use weir_log::{Errand, ReadError, ScrubReport};
use weir_replica::Mended;
use weir_types::{Gap, PartitionId};

impl Broker {
    /// Reads the whole log of this node, and repairs unreadable ranges from other members. Calls `progress`
    /// with bytes read and in total. Returns the report, and the repaired ranges.
    ///
    /// # Errors
    /// When another scrub is running, or the log cannot be read.
    ///
    /// # Cancel safety
    /// If the future is dropped, the scrub ends in the background without repairs; scrub again.
    pub async fn scrub(
        &self,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<(ScrubReport, Vec<(PartitionId, Gap)>), ReadError> {
        if self.group().is_witness() {
            // A witness has no records, and must not get any.
            return Ok((ScrubReport::default(), Vec::new()));
        }
        let Ok(one) = Arc::clone(&self.0.scrubbing).try_acquire_owned() else {
            return Err(ReadError::Busy("another scrub is under way".to_owned()));
        };
        let (done, answer) = oneshot::channel();
        let log = self.0.log.clone();
        // A worker of its own: a scrub takes as long as the disk.
        let errand = Errand::new(move || {
            let _one = one;
            drop(done.send(log.scrub(progress)));
        });
        let started = self.0.log.workers().start("weir-scrub", errand);
        started.map_err(|e| ReadError::Busy(e.to_string()))?;
        let mut report = answer.await.map_err(|_| ReadError::Closed)??;
        let mut mended = Vec::new();
        for (partition, gap) in std::mem::take(&mut report.damaged) {
            let list = match self.mend(partition, gap).await {
                Mended::Whole => &mut mended,
                Mended::Lost | Mended::Unknown => &mut report.damaged,
            };
            list.push((partition, gap));
        }
        Ok((report, mended))
    }
}
