//! Waiting for new records.

use crate::core::Broker;
use std::task::Poll;
use std::time::Duration;
use weir_log::Marks;
use weir_types::limits::FETCH_WAIT_MS_MAX;
use weir_types::{Offset, PartitionId};

impl Broker {
    /// Waits until any of `places`, each a topic, a partition and an offset, has a record at its offset, up
    /// to `wait`. Returns true if the call waited. An unknown place ends the wait at once; reading from the
    /// place reports the reason.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing changes.
    pub async fn wait_for_any(&self, places: &[(String, u32, Offset)], wait: Duration) -> bool {
        let found: Option<Vec<_>> = places
            .iter()
            .map(|(topic, partition, from)| {
                let id = self.0.applied.topic(topic)?.partition(*partition)?;
                Some((self.0.applied.growth.of(id), self.0.log.marks_or_new(id), *from))
            })
            .collect();
        let Some(found) = found else { return false };
        // Asked for before looking, so that growth in between is not missed.
        let mut notified: Vec<_> = found
            .iter()
            .map(|(growth, ..)| Box::pin(growth.notified()))
            .collect();
        for n in &mut notified {
            let _ = n.as_mut().enable();
        }
        if found.iter().any(|(_, marks, from)| marks.committed_end() > *from) {
            return false;
        }
        let any = std::future::poll_fn(|cx| {
            let grown = notified.iter_mut().any(|n| n.as_mut().poll(cx).is_ready());
            if grown { Poll::Ready(()) } else { Poll::Pending }
        });
        let wait = wait.min(Duration::from_millis(FETCH_WAIT_MS_MAX));
        let _ = tokio::time::timeout(wait, any).await;
        true
    }

    /// Returns when the partition has grown past `from`, or after `wait`.
    pub(crate) async fn wait_for(&self, id: PartitionId, marks: &Marks, from: Offset, wait: Duration) {
        let wait = wait.min(Duration::from_millis(FETCH_WAIT_MS_MAX));
        let growth = self.0.applied.growth.of(id);
        let grown = async {
            loop {
                let mut notified = std::pin::pin!(growth.notified());
                // Asked for before looking, so that growth in between is not missed.
                notified.as_mut().enable();
                if marks.committed_end() > from {
                    return;
                }
                notified.await;
                if self.0.log.marks(id).is_none() || !self.serves(id) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(wait, grown).await;
    }
}
