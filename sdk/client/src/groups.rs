//! Consumer groups and producer ids.

use crate::error::ClientError;
use crate::{Client, unexpected};
use weir_api::{Group, GroupSummary};
use weir_peer::protocol::{Reply, Request};
use weir_types::Offset;

impl Client {
    /// Commits offsets of a consumer group: topic, partition and the offset to read next.
    ///
    /// # Errors
    /// The node's own.
    ///
    /// # Cancel safety
    /// Not safe: the offsets may be committed or not.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: Vec<(String, u32, Offset)>,
    ) -> Result<(), ClientError> {
        self.done(Request::CommitOffsets {
            group: group.to_owned(),
            offsets,
        })
        .await
    }

    /// Returns the committed offset of a consumer group in a partition, if there is one.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn committed_offset(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> Result<Option<Offset>, ClientError> {
        let request = Request::CommittedOffset {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition,
        };
        match self.ask(request).await?.head {
            Reply::Offset(offset) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns all consumer groups.
    ///
    /// # Errors
    /// The node's own.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn groups(&self) -> Result<Vec<GroupSummary>, ClientError> {
        self.answer(Request::Groups).await
    }

    /// Returns a consumer group with its members and committed offsets.
    ///
    /// # Errors
    /// When there is no such group; the node's own.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn group(&self, name: &str) -> Result<Group, ClientError> {
        let name = name.to_owned();
        self.answer(Request::Group { name }).await
    }

    /// Deletes a consumer group without members, and its committed offsets.
    ///
    /// # Errors
    /// When the group has members, or there is no such group.
    ///
    /// # Cancel safety
    /// Not safe: the group may be deleted or not.
    pub async fn delete_group(&self, name: &str) -> Result<(), ClientError> {
        let name = name.to_owned();
        self.done(Request::DeleteGroup { name }).await
    }

    /// Returns a new producer id. Batches that carry it are stored once, however often they are sent.
    ///
    /// # Errors
    /// The node's own.
    ///
    /// # Cancel safety
    /// Safe: an id that nobody uses is no loss.
    pub async fn init_producer(&self) -> Result<i64, ClientError> {
        match self.ask(Request::InitProducer).await?.head {
            Reply::Producer(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }
}
