//! Opening and removing the channels of the outbox.

use crate::core::Broker;
use crate::error::AdminError;
use crate::rpc::message::PeerRequest;
use crate::state::rows::Row;
use crate::state::rows::channel::{ChannelKey, ChannelRow};
use crate::state::rows::counter::{Counter, CounterName};
use std::time::Duration;
use tokio::time::Instant;
use weir_log::Op;
use weir_types::limits::OUTBOX_BYTES_MAX;
use weir_types::{GroupId, Offset, PartitionId};

/// A channel that was asked for is known here within a round trip to the site's leader.
const OPENED_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait of a pipeline for a channel, before other work goes on.
const OPENED_SOON: Duration = Duration::from_millis(500);

const OPENED_POLL: Duration = Duration::from_millis(5);

/// Reason why a pipeline must hold back its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// As much waits for the partition as may.
    Full,
    /// No channel is open yet; retry soon.
    NotYet,
}

impl Broker {
    /// Ensures that a pipeline in `home` can write to `partition`. Blocks.
    ///
    /// # Errors
    /// When the pipeline must hold back its output.
    pub fn make_way(&self, home: GroupId, partition: PartitionId) -> Result<(), Blocked> {
        let (channel, is_here, to) = {
            let tables = self.0.applied.tables();
            let is_here = partition.group() == home && !tables.sealed.contains(&partition);
            let to = tables.original_id(partition);
            (tables.channels.get(&(home, to)).copied(), is_here, to)
        };
        match channel {
            None if is_here => Ok(()),
            None => self.open_route((home, to)),
            Some(row) => {
                let bytes = self.0.log.marks(row.at).map_or(0, |marks| marks.bytes());
                if bytes < OUTBOX_BYTES_MAX {
                    Ok(())
                } else {
                    Err(Blocked::Full)
                }
            }
        }
    }

    /// Requests a channel in the background, and waits for a short time. Blocks.
    fn open_route(&self, channel: ChannelKey) -> Result<(), Blocked> {
        let opening = || self.0.opening.lock();
        if !opening().insert(channel) {
            return Err(Blocked::NotYet);
        }
        let broker = self.clone();
        let asked = self.runtime().spawn(async move {
            let opened = broker.ask_for_channel(channel).await;
            let opening = &broker.0.opening;
            opening.lock().remove(&channel);
            if let Err(error) = &opened {
                tracing::debug!(to = %channel.1, %error, "no channel to a partition yet");
            }
            opened.is_ok()
        });
        match self.block_on(async { tokio::time::timeout(OPENED_SOON, asked).await }) {
            Ok(Ok(true)) => Ok(()),
            _ => Err(Blocked::NotYet),
        }
    }

    /// Requests a channel, and waits until this node has applied the row.
    async fn ask_for_channel(&self, channel: ChannelKey) -> Result<(), AdminError> {
        let (home, to) = channel;
        let ask = PeerRequest::OpenChannel { home, to };
        self.ask_group(GroupId::SITE, ask).await?;
        let deadline = Instant::now() + OPENED_WITHIN;
        while !self.0.applied.tables().channels.contains_key(&channel) {
            if Instant::now() >= deadline {
                return Err(self.not_leader().into());
            }
            tokio::time::sleep(OPENED_POLL).await;
        }
        Ok(())
    }

    /// Opens a channel, unless the channel exists. For the site's leader.
    pub(crate) async fn open_channel(&self, home: GroupId, to: PartitionId) -> Result<(), AdminError> {
        self.change(move |tables, _| {
            let is_there = tables.partition_owner.contains_key(&tables.current(to));
            if tables.channels.contains_key(&(home, to)) || !is_there {
                return Ok(Vec::new());
            }
            let number = tables.next_partition(home);
            let at = u32::try_from(number).ok().and_then(|n| PartitionId::new(home, n));
            let row = ChannelRow {
                at: at.ok_or(AdminError::Limit {
                    what: "partition number",
                    limit: u64::from(PartitionId::NUMBERS),
                })?,
                epoch: 0,
                base: Offset::ZERO,
            };
            Ok(vec![
                Counter(number + 1).put(&CounterName::NextPartition(home)),
                row.put(&(home, to)),
            ])
        })
        .await
    }

    /// Has a channel count from `base` on, under another epoch than `epoch`. Of the site's leader.
    pub(crate) async fn renew_channel(
        &self,
        channel: ChannelKey,
        epoch: i16,
        base: Offset,
    ) -> Result<(), AdminError> {
        self.change(move |tables, _| {
            let row = tables.channels.get(&channel).filter(|row| row.epoch == epoch);
            let renewed = |row: &ChannelRow| ChannelRow {
                at: row.at,
                epoch: row.epoch.wrapping_add(1).max(0),
                base,
            };
            Ok(row.map(|row| renewed(row).put(&channel)).into_iter().collect())
        })
        .await
    }

    pub(crate) async fn forget_channels(&self, lost: Vec<(ChannelKey, ChannelRow)>) {
        let forgotten = self.change(move |tables, log| {
            let mut ops = Vec::new();
            for (channel, row) in lost {
                let (home, to) = channel;
                let is_there = tables.partition_owner.contains_key(&tables.current(to));
                if is_there || !tables.channels.contains_key(&channel) {
                    continue;
                }
                ops.push(ChannelRow::remove(&channel));
                // Other groups drop theirs when they find that no channel has them.
                if home == GroupId::SITE && log.marks(row.at).is_some() {
                    ops.push(Op::Drop { partition: row.at });
                }
            }
            Ok(ops)
        });
        if let Err(error) = forgotten.await {
            tracing::debug!(%error, "outbox records of a deleted topic stay for now");
        }
    }
}
