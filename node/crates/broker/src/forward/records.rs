//! Producing and reading at any node.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::quota::Direction;
use crate::core::Broker;
use crate::error::{AdminError, FetchError, ProduceError};
use crate::propose::request::{Framing, Produced};
use crate::records::fetch::{Fetch, Fetched};
use crate::records::lookup::At;
use crate::rpc::message::{PeerRequest, PeerResponse};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::encode;
use weir_types::{Batch, GroupId, Offset, PartitionId, TopicName};

impl Broker {
    /// Allocates a producer id. The first batch has epoch 0 and sequence 0.
    ///
    /// # Errors
    /// When the reservation of ids is not committed.
    ///
    /// # Cancel safety
    /// Cancel safe: reserved ids may be lost, which does no harm.
    pub async fn init_producer(&self, who: &Principal) -> Result<i64, AdminError> {
        self.allow(who, Operation::Write, Resource::Cluster)?;
        let mut ids = self.0.producer_ids.lock().await;
        if ids.is_empty() {
            *ids = if self.is_serving() {
                self.reserve_producer_ids().await?
            } else {
                self.ask_for_producer_ids().await?
            };
        }
        ids.next()
            .and_then(|id| i64::try_from(id).ok())
            .ok_or(AdminError::Closed)
    }
}

/// A topic, and the index of a partition.
type TopicPartition = (TopicName, u32);

impl Broker {
    /// Produces records at any node of the site, for protocols whose clients do not look for leaders.
    /// Forwards the batch to the leader of the partition, and waits for the outcome.
    ///
    /// # Errors
    /// When the batch is refused or not committed: see [`ProduceError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the batch may or may not be committed.
    pub async fn produce_anywhere(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        batch: Batch,
        framing: Framing,
    ) -> Result<Produced, ProduceError> {
        let id = self.topic(topic).and_then(|t| t.partition(partition));
        let me = self.group().node();
        let leader = id
            .filter(|id| !self.serves(*id))
            .and_then(|id| self.leader_of(id.group()));
        let Some((node, _, member)) = leader.filter(|(node, ..)| *node != me) else {
            return self.produce(who, topic, partition, batch, framing).await?.await;
        };
        if !authorize(who, Operation::Write, Resource::Topic(topic)) {
            return Err(ProduceError::Denied(topic.to_owned()));
        }
        // The leader charges an account of its own; this node delays the client.
        let bytes = batch.bytes().len();
        self.0
            .quotas
            .charge(Direction::Produce, &who.account, bytes, Instant::now());
        let ask = PeerRequest::Produce {
            client: who.account.clone(),
            topic: topic.to_owned(),
            partition,
            batch: batch.bytes().to_vec(),
            framing,
        };
        let ask = encode(&ask).into();
        let answer = self.group().forward_to(node, member, ask).await;
        // The batch may have arrived.
        let answer = answer.map_err(|_| weir_replica::ProposeError::Unknown)?;
        match postcard::from_bytes(&answer) {
            Ok(PeerResponse::Produced { base, span }) => Ok(Produced { base, span }),
            Ok(PeerResponse::NotProduced(why, fate)) => Err(ProduceError::There(why, fate.into())),
            _ => Err(weir_replica::ProposeError::Unknown.into()),
        }
    }

    /// Reads a partition at any node of the site, like [`Broker::peek`]. Does not wait for new records.
    ///
    /// # Errors
    /// When the read is refused: see [`FetchError`].
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn peek_anywhere(&self, who: &Principal, fetch: Fetch) -> Result<Fetched, FetchError> {
        let id = self
            .topic(&fetch.topic)
            .and_then(|t| t.partition(fetch.partition));
        let Some(id) = id.filter(|id| !self.serves(*id)) else {
            return self.peek(who, fetch).await;
        };
        if !authorize(who, Operation::Read, Resource::Topic(&fetch.topic)) {
            return Err(FetchError::Denied(fetch.topic));
        }
        let ask = PeerRequest::Read {
            client: who.account.clone(),
            topic: fetch.topic,
            partition: fetch.partition,
            from: fetch.from,
            max_bytes: fetch.max_bytes as u32,
        };
        match self.ask_to_read(id, ask).await? {
            PeerResponse::Read(reading) => Fetched::try_from(reading)
                .map_err(|e| FetchError::There(format!("damaged answer of another node: {e}"))),
            PeerResponse::Beyond { end } => Err(FetchError::OutOfRange {
                offset: fetch.from,
                end,
            }),
            _ => Err(FetchError::NotLeader(None)),
        }
    }

    /// Looks up an offset at any node of the site, like [`Broker::offset_at`].
    ///
    /// # Errors
    /// When the look-up is refused: see [`FetchError`].
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn offset_anywhere(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        at: At,
    ) -> Result<Offset, FetchError> {
        let id = self.topic(topic).and_then(|t| t.partition(partition));
        let Some(id) = id.filter(|id| !self.serves(*id)) else {
            return self.offset_at(who, topic, partition, at).await;
        };
        if !authorize(who, Operation::Read, Resource::Topic(topic)) {
            return Err(FetchError::Denied(topic.to_owned()));
        }
        let ask = PeerRequest::Place {
            client: who.account.clone(),
            topic: topic.to_owned(),
            partition,
            at,
        };
        match self.ask_to_read(id, ask).await? {
            PeerResponse::Place(offset) => Ok(offset),
            _ => Err(FetchError::NotLeader(None)),
        }
    }

    /// Returns the committed ends of those `places` that other nodes lead, and the groups that did not answer
    /// `within` that time.
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn ends_elsewhere(
        &self,
        places: &[TopicPartition],
        within: Duration,
    ) -> (Vec<(TopicName, u32, Offset)>, Vec<GroupId>) {
        let mut by_group: BTreeMap<GroupId, Vec<(&TopicPartition, PartitionId)>> = BTreeMap::new();
        for place in places {
            let id = self.topic(place.0.as_str()).and_then(|t| t.partition(place.1));
            if let Some(id) = id.filter(|id| !self.serves(*id)) {
                by_group.entry(id.group()).or_default().push((place, id));
            }
        }
        let asked = by_group.iter().map(|(group, places)| {
            let partitions = places.iter().map(|(_, id)| *id).collect();
            tokio::time::timeout(within, self.ask_group(*group, PeerRequest::Ends { partitions }))
        });
        let answers = futures_util::future::join_all(asked).await;
        let (mut ends, mut silent) = (Vec::new(), Vec::new());
        for ((group, places), answer) in by_group.into_iter().zip(answers) {
            match answer {
                Ok(Ok(PeerResponse::Ends(found))) => {
                    let known = places.iter().zip(found);
                    ends.extend(known.map(|(((topic, partition), _), end)| (topic.clone(), *partition, end)));
                }
                // The new leader answers the next request.
                Ok(_) => {}
                Err(_) => silent.push(group),
            }
        }
        (ends, silent)
    }
}
