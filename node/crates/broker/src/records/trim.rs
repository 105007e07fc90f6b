//! Removing the oldest records of a partition.

use crate::access::auth::{Operation, Principal, Resource};
use crate::core::{Broker, partition_of};
use crate::error::AdminError;
use crate::topic::config::Cleanup;
use weir_log::Op;
use weir_types::{GapReason, Offset};

impl Broker {
    /// Trims the records of a partition before `to`.
    ///
    /// # Errors
    /// When the partition does not exist, `to` is beyond its end, the topic is compacted, or the trim is not
    /// committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the trim may or may not be committed.
    pub async fn trim(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        to: Offset,
        reason: GapReason,
    ) -> Result<(), AdminError> {
        self.allow(who, Operation::Delete, Resource::Topic(topic))?;
        let wanted = topic.to_owned();
        let id = partition_of(&self.0.applied.tables(), &wanted, partition)?;
        let cleanup = self.topic(topic).map(|topic| topic.config.cleanup);
        if reason == GapReason::Deleted && cleanup == Some(Cleanup::Compact) {
            return Err(AdminError::KeptByKey(wanted));
        }
        self.change_in(id.group(), move |tables, log| {
            let id = partition_of(tables, &wanted, partition)?;
            let marks = log.marks_or_new(id);
            let end = marks.committed_end();
            if to > end {
                return Err(AdminError::OffsetBeyondEnd { offset: to, end });
            }
            let nothing = to <= marks.log_start();
            Ok(if nothing {
                Vec::new()
            } else {
                vec![Op::Trim {
                    partition: id,
                    to,
                    reason,
                }]
            })
        })
        .await
    }
}
