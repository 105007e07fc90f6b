//! What any node of a site is asked and only the one that leads can do: it is asked in turn, as a Kafka broker asks its
//! controller.

#[cfg(test)]
mod tests;
pub(crate) mod topics;

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::quota::Direction;
use crate::broker::{Broker, Inner};
use crate::error::{AdminError, FetchError, ProduceError, Refusal};
use crate::fetch::{At, Fetch, Fetched};
use crate::forward::topics::Change;
use crate::moves::Copied;
use crate::propose::request::{Framing, Produced};
use crate::state::rows::leader::Led;
use crate::state::rows::topic::Topic;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{Piece, decode, encode};
use weir_replica::{Forwarded, Member, NodeId};
use weir_types::level::LEVEL;
use weir_types::{Batch, BatchError, ErrorKind, Gap, GroupId, Offset, PartitionId, TopicName};

/// A node that is in step has applied what the leader has a heartbeat ago.
pub(crate) const APPLIED_WITHIN: Duration = Duration::from_secs(5);

/// A voter that is not ready says so within a moment, and is asked again.
const PREPARE_AGAIN: Duration = Duration::from_millis(50);

pub(crate) const APPLIED_POLL: Duration = Duration::from_millis(5);

/// What is asked. Known by position: add at the end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Numbers for producers.
    ProducerIds,
    /// A topic with default settings. Sent by nodes of the first release.
    CreateTopic { name: String, partitions: u32 },
    /// Who leads a replica group.
    Leads { group: u16, led: Led },
    /// Records for a partition that the node which is asked leads.
    Produce {
        client: String,
        topic: String,
        partition: u32,
        batch: Vec<u8>,
        framing: Framing,
    },
    /// What a partition has from an offset on. Of the leader of its group, as all below.
    Copy { partition: PartitionId, at: u64 },
    /// That it takes nothing more.
    Seal { partition: PartitionId, to: PartitionId },
    /// The windows of its producers.
    Producers { partition: PartitionId },
    /// In which term a group is.
    Term { group: GroupId },
    /// That all of a partition is where it was to go. Of the site's leader.
    Moved { to: PartitionId, term: u64 },
    /// A batch of another group's outbox, for the partition that was made as `to`. Of the leader of its group.
    Forward { to: PartitionId, batch: Vec<u8> },
    /// A way from a group to a partition of another. Of the site's leader.
    OpenChannel { home: GroupId, to: PartitionId },
    /// That a channel sends under another epoch than this from `base` on. Of the site's leader.
    RenewChannel {
        home: GroupId,
        to: PartitionId,
        epoch: i16,
        base: Offset,
    },
    /// What is stored from an offset on. Of the leader of the partition's group, as those below.
    Read {
        client: String,
        topic: String,
        partition: u32,
        from: Offset,
        max_bytes: u32,
    },
    /// Where a place is.
    Place {
        client: String,
        topic: String,
        partition: u32,
        at: At,
    },
    /// Up to where partitions are committed.
    Ends { partitions: Vec<PartitionId> },
    /// That modules are ready. Of any voter.
    Prepare { modules: Vec<[u8; 32]> },
    /// That a revision of a pipeline has left its bounds on the node that says so. Of the site's leader.
    TakeBack {
        pipeline: String,
        revision: u64,
        why: String,
    },
    /// What it can read at most. Of any node.
    Level,
    /// A change of a topic. Of the site's leader.
    Change { client: String, change: Change },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    ProducerIds(Range<u64>),
    /// It is done.
    Created,
    /// In words; and whether it is worth another try.
    Refused(String, bool),
    Produced {
        base: Offset,
        span: u32,
    },
    NotProduced(String, Fate),
    Copied(Copied),
    Windows(Vec<(i64, Vec<u8>)>),
    Term(u64),
    /// It is there, now or since an earlier time.
    Forwarded,
    /// Another sequence is the next, or the sender is not known.
    Expected(Option<i32>),
    Read(Reading),
    /// What was asked for lies beyond the end.
    Beyond {
        end: Offset,
    },
    Place(Offset),
    /// In the order in which they were asked for.
    Ends(Vec<Offset>),
    Level(u32),
    /// It is not done, for a reason of this kind, in words.
    NotDone(Refusal, String),
    /// It is done, and shows on a node that has applied so many entries of the site.
    Done {
        applied: u64,
    },
}

/// What was read elsewhere.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) pieces: Vec<Read>,
    pub(crate) next: Offset,
    pub(crate) log_start: Offset,
    pub(crate) committed_end: Offset,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Read {
    Batch(Vec<u8>),
    Gap(Gap),
}

impl From<Fetched> for Reading {
    fn from(fetched: Fetched) -> Self {
        let read = |piece: Piece| match piece {
            Piece::Batch(batch) => Read::Batch(batch.bytes().to_vec()),
            Piece::Gap(gap) => Read::Gap(gap),
        };
        Self {
            pieces: fetched.pieces.into_iter().map(read).collect(),
            next: fetched.next,
            log_start: fetched.log_start,
            committed_end: fetched.committed_end,
        }
    }
}

impl TryFrom<Reading> for Fetched {
    type Error = BatchError;

    fn try_from(reading: Reading) -> Result<Self, BatchError> {
        let piece = |read: Read| match read {
            Read::Batch(bytes) => Batch::parse(Bytes::from(bytes)).map(Piece::Batch),
            Read::Gap(gap) => Ok(Piece::Gap(gap)),
        };
        Ok(Self {
            pieces: reading.pieces.into_iter().map(piece).collect::<Result<_, _>>()?,
            next: reading.next,
            log_start: reading.log_start,
            committed_end: reading.committed_end,
            throttle: Duration::ZERO,
            share: None,
        })
    }
}

/// What became of records that were not acknowledged.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// Nothing, and another try may help.
    Retry,
    /// Nothing, and another try would not help.
    Invalid,
    Unknown,
}

impl From<ErrorKind> for Fate {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Retry | ErrorKind::Closed => Self::Retry,
            ErrorKind::Invalid | ErrorKind::Fenced => Self::Invalid,
            ErrorKind::UnknownOutcome | ErrorKind::Corrupt | ErrorKind::Internal => Self::Unknown,
        }
    }
}

impl From<FetchError> for Answer {
    fn from(e: FetchError) -> Self {
        match e {
            FetchError::OutOfRange { end, .. } => Self::Beyond { end },
            e => Self::Refused(e.to_string(), e.kind() == ErrorKind::Retry),
        }
    }
}

impl From<Fate> for ErrorKind {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Retry => Self::Retry,
            Fate::Invalid => Self::Invalid,
            Fate::Unknown => Self::UnknownOutcome,
        }
    }
}

/// A topic, and the number of a partition of it.
type TopicPartition = (TopicName, u32);

pub(crate) struct ByBroker(pub(crate) Weak<Inner>);

impl Forwarded for ByBroker {
    fn answer(&self, ask: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let answer = match (inner, decode::<Ask>("what another node asks", &ask)) {
                (Some(inner), Ok(ask)) => Broker(inner).answer(ask).await,
                (None, _) => Answer::Refused("the node stops".to_owned(), true),
                (_, Err(newer)) => Answer::Refused(newer.to_string(), false),
            };
            encode(&answer).into()
        })
    }
}

/// What another layer says of what it was asked to do.
fn done_or_not_yet(done: Result<bool, String>) -> Answer {
    match done {
        Ok(true) => Answer::Created,
        Ok(false) => Answer::Refused("not yet".to_owned(), true),
        Err(why) => Answer::Refused(why, false),
    }
}

impl Broker {
    pub(crate) async fn answer(&self, ask: Ask) -> Answer {
        let who = Principal::anonymous("site");
        let done = match ask {
            Ask::ProducerIds => self.reserve_producer_ids().await.map(Answer::ProducerIds),
            Ask::Copy { partition, at } => self.copy(partition, Offset::new(at)).await.map(Answer::Copied),
            Ask::Seal { partition, to } => self.seal(partition, to).await.map(|()| Answer::Created),
            Ask::Producers { partition } => self.windows(partition).map(Answer::Windows),
            Ask::Term { group } => {
                let group = self.group_of(group).filter(|group| group.is_serving());
                let term = group.map(|group| Answer::Term(group.term()));
                term.ok_or_else(|| self.not_leader().into())
            }
            Ask::Moved { to, term } => self.note_moved(to, term).await.map(|()| Answer::Created),
            Ask::Forward { to, batch } => match self.take_forwarded(to, batch).await {
                Ok(answer) => Ok(answer),
                Err(e) => {
                    // What is unknown is found out by asking again.
                    let kind = e.kind();
                    let again = matches!(
                        kind,
                        ErrorKind::Retry | ErrorKind::UnknownOutcome | ErrorKind::Fenced
                    );
                    Ok(Answer::Refused(e.to_string(), again))
                }
            },
            Ask::OpenChannel { home, to } => self.open_channel(home, to).await.map(|()| Answer::Created),
            Ask::RenewChannel {
                home,
                to,
                epoch,
                base,
            } => {
                let renewed = self.renew_channel((home, to), epoch, base).await;
                renewed.map(|()| Answer::Created)
            }
            Ask::Read {
                client,
                topic,
                partition,
                from,
                max_bytes,
            } => {
                let fetch = Fetch {
                    topic,
                    partition,
                    from,
                    max_bytes: max_bytes as usize,
                    wait: Duration::ZERO,
                };
                let read = self.peek(&Principal::anonymous(client), fetch).await;
                Ok(read.map_or_else(Answer::from, |fetched| Answer::Read(fetched.into())))
            }
            Ask::Place {
                client,
                topic,
                partition,
                at,
            } => {
                let who = Principal::anonymous(client);
                let place = self.offset_at(&who, &topic, partition, at).await;
                Ok(place.map_or_else(Answer::from, Answer::Place))
            }
            Ask::Ends { partitions } => {
                let end = |id: &PartitionId| {
                    let marks = self.0.log.marks(*id).filter(|_| self.serves(*id));
                    marks.map_or(Offset::ZERO, |marks| marks.committed_end())
                };
                Ok(Answer::Ends(partitions.iter().map(end).collect()))
            }
            Ask::Prepare { modules } => Ok(match self.hook() {
                Some(hook) => done_or_not_yet(hook.prepare(modules).await),
                None => Answer::Refused("the node is starting".to_owned(), true),
            }),
            Ask::TakeBack {
                pipeline,
                revision,
                why,
            } => Ok(match self.hook().filter(|_| self.is_serving()) {
                Some(hook) => done_or_not_yet(hook.take_back(pipeline, revision, why).await),
                None => Answer::Refused("another node leads".to_owned(), true),
            }),
            Ask::Level => Ok(Answer::Level(LEVEL)),
            Ask::Leads { group, led } => {
                let noted = self.note_leader(GroupId(group), led).await;
                noted.map(|()| Answer::Created)
            }
            Ask::Produce {
                client,
                topic,
                partition,
                batch,
                framing,
            } => {
                let who = Principal::anonymous(client);
                let batch = Batch::parse(Bytes::from(batch)).map_err(ProduceError::from);
                let produced = async {
                    self.produce(&who, &topic, partition, batch?, framing)
                        .await?
                        .await
                };
                Ok(match produced.await {
                    Ok(Produced { base, span }) => Answer::Produced { base, span },
                    Err(e) => Answer::NotProduced(e.to_string(), e.kind().into()),
                })
            }
            Ask::Change { client, change } => {
                Ok(self.answer_change(&Principal::anonymous(client), change).await)
            }
            Ask::CreateTopic { name, partitions } => {
                match self.create_unasked(&who, &name, partitions).await {
                    Ok(_) | Err(AdminError::Exists(_)) => Ok(Answer::Created),
                    Err(e) => Err(e),
                }
            }
        };
        done.unwrap_or_else(|e| Answer::Refused(e.to_string(), e.kind() == weir_types::ErrorKind::Retry))
    }

    /// Asks the leader of `group`, whoever that is.
    pub(crate) async fn ask_group(&self, group: GroupId, ask: Ask) -> Result<Answer, AdminError> {
        let answer = match self.group_of(group).is_some_and(|group| group.is_serving()) {
            true => self.answer(ask).await,
            false => {
                let leader = self
                    .leader_of(group)
                    .filter(|(id, ..)| *id != self.group().node());
                let (id, _, member) = leader.ok_or_else(|| self.not_leader())?;
                let ask = encode(&ask).into();
                let answer = self.group().forward_to(id, member, ask).await;
                let answer = answer.map_err(|_| self.not_leader())?;
                postcard::from_bytes(&answer).map_err(|_| self.not_leader())?
            }
        };
        match answer {
            Answer::Refused(why, false) => Err(AdminError::Refused(why)),
            Answer::Refused(_, true) => Err(self.not_leader().into()),
            answer => Ok(answer),
        }
    }

    /// Asks `node`, which is reached at `member`. None when it does not answer.
    pub(crate) async fn ask_node(&self, node: NodeId, member: Member, ask: &Ask) -> Option<Answer> {
        let ask = encode(ask).into();
        let answer = self.group().forward_to(node, member, ask).await.ok()?;
        decode("an answer", &answer).ok()
    }

    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Answer, AdminError> {
        let ask = encode(ask).into();
        let answer = self.group().forward(ask).await;
        let answer = answer.map_err(|_| self.not_leader())?;
        match postcard::from_bytes(&answer) {
            Ok(Answer::Refused(why, false)) => Err(AdminError::Refused(why)),
            Ok(Answer::Refused(_, true)) | Err(_) => Err(self.not_leader().into()),
            Ok(answer) => Ok(answer),
        }
    }

    /// As [`Broker::produce`] at any node of the site, for protocols whose clients do not look for leaders: hands over to
    /// the node that leads the partition, and waits for what becomes of it.
    ///
    /// # Errors
    /// As there.
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
        // The leader has an account of its own for it; but it is held back here.
        let bytes = batch.bytes().len();
        self.0
            .quotas
            .charge(Direction::Produce, &who.account, bytes, Instant::now());
        let ask = Ask::Produce {
            client: who.account.clone(),
            topic: topic.to_owned(),
            partition,
            batch: batch.bytes().to_vec(),
            framing,
        };
        let ask = encode(&ask).into();
        let answer = self.group().forward_to(node, member, ask).await;
        // It may have got there.
        let answer = answer.map_err(|_| weir_replica::ProposeError::Unknown)?;
        match postcard::from_bytes(&answer) {
            Ok(Answer::Produced { base, span }) => Ok(Produced { base, span }),
            Ok(Answer::NotProduced(why, fate)) => Err(ProduceError::There(why, fate.into())),
            _ => Err(weir_replica::ProposeError::Unknown.into()),
        }
    }

    /// As [`Broker::peek`] at any node of the site: asks the one that leads the partition. Does not wait for records.
    ///
    /// # Errors
    /// As there.
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
        let ask = Ask::Read {
            client: who.account.clone(),
            topic: fetch.topic,
            partition: fetch.partition,
            from: fetch.from,
            max_bytes: fetch.max_bytes as u32,
        };
        match self.ask_to_read(id, ask).await? {
            Answer::Read(reading) => Fetched::try_from(reading)
                .map_err(|e| FetchError::There(format!("what was read elsewhere is damaged: {e}"))),
            Answer::Beyond { end } => Err(FetchError::OutOfRange {
                offset: fetch.from,
                end,
            }),
            _ => Err(FetchError::NotLeader(None)),
        }
    }

    /// As [`Broker::offset_at`] at any node of the site.
    ///
    /// # Errors
    /// As there.
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
        let ask = Ask::Place {
            client: who.account.clone(),
            topic: topic.to_owned(),
            partition,
            at,
        };
        match self.ask_to_read(id, ask).await? {
            Answer::Place(offset) => Ok(offset),
            _ => Err(FetchError::NotLeader(None)),
        }
    }

    async fn ask_to_read(&self, id: PartitionId, ask: Ask) -> Result<Answer, FetchError> {
        match self.ask_group(id.group(), ask).await {
            Ok(answer) => Ok(answer),
            Err(AdminError::Refused(why)) => Err(FetchError::There(why)),
            Err(_) => Err(FetchError::NotLeader(None)),
        }
    }

    /// Up to where `places`, each a topic and a partition, are committed, of those that other nodes lead; and the groups of which
    /// nobody has said so `within` that time.
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
            tokio::time::timeout(within, self.ask_group(*group, Ask::Ends { partitions }))
        });
        let answers = futures_util::future::join_all(asked).await;
        let (mut ends, mut silent) = (Vec::new(), Vec::new());
        for ((group, places), answer) in by_group.into_iter().zip(answers) {
            match answer {
                Ok(Ok(Answer::Ends(found))) => {
                    let known = places.iter().zip(found);
                    ends.extend(known.map(|(((topic, partition), _), end)| (topic.clone(), *partition, end)));
                }
                // Who leads it says so again in a moment.
                Ok(_) => {}
                Err(_) => silent.push(group),
            }
        }
        (ends, silent)
    }

    /// Has the other voters make modules ready, so that whoever leads next can go on with them at once. Those that do not answer
    /// are not waited for longer than `wait`.
    ///
    /// # Errors
    /// A node that cannot, and why.
    pub async fn prepare_elsewhere(
        &self,
        modules: &[[u8; 32]],
        wait: Duration,
    ) -> Result<(), (NodeId, String)> {
        let (me, members) = (self.group().node(), self.group().members());
        let voters = self.group().voters().into_iter().filter(|id| *id != me);
        let full = voters.filter_map(|id| members.get(&id).filter(|m| !m.witness).map(|m| (id, m.clone())));
        let ask = postcard::to_allocvec(&Ask::Prepare {
            modules: modules.to_vec(),
        });
        let ask = ask.unwrap_or_default();
        let asked = full.map(|(id, member)| {
            let ask = ask.clone();
            let ready = async move {
                loop {
                    let answer = self.group().forward_to(id, member.clone(), ask.clone()).await;
                    // One that is away is not waited for.
                    let answer = answer.map_err(|e| e.to_string())?;
                    match postcard::from_bytes(&answer) {
                        Ok(Answer::Created) => return Ok(None),
                        Ok(Answer::Refused(why, false)) => return Ok(Some(why)),
                        _ => tokio::time::sleep(PREPARE_AGAIN).await,
                    }
                }
            };
            let ready = tokio::time::timeout(wait, ready);
            async move { (id, ready.await.unwrap_or(Err("it takes too long".to_owned()))) }
        });
        let asked: Vec<_> = asked.collect();
        for (id, answer) in futures_util::future::join_all(asked).await {
            match answer {
                Ok(None) => {}
                Ok(Some(why)) => return Err((id, why)),
                Err(why) => {
                    tracing::warn!(node = id, %why, "a voter does not say that it is ready for a revision");
                }
            }
        }
        Ok(())
    }

    /// Has the site's leader take back a revision of a pipeline that has left its bounds on this node.
    ///
    /// # Errors
    /// In the leader's words when it cannot be; to be tried again when it is not done yet.
    pub async fn report_out_of_bounds(
        &self,
        pipeline: String,
        revision: u64,
        why: String,
    ) -> Result<(), AdminError> {
        let ask = Ask::TakeBack {
            pipeline,
            revision,
            why,
        };
        self.ask_group(GroupId::SITE, ask).await.map(drop)
    }

    /// The number with which a partition was made, by which it is known wherever it moves.
    pub fn identity(&self, partition: PartitionId) -> PartitionId {
        self.0.applied.tables().identity(partition)
    }

    /// The topic whose first partition was made with the number `identity`.
    pub fn topic_of_first(&self, identity: PartitionId) -> Option<Arc<Topic>> {
        let tables = self.0.applied.tables();
        let first = tables.current(identity);
        let topic = tables.topics.get(tables.partition_owner.get(&first)?)?;
        (topic.partition(0) == Some(first)).then(|| Arc::clone(topic))
    }

    /// Tells the site's leader who leads `group`.
    pub(crate) async fn tell_leader(&self, group: GroupId, led: Led) -> Result<(), AdminError> {
        self.ask(&Ask::Leads { group: group.0, led }).await.map(drop)
    }

    /// Numbers for producers, from the leader.
    pub(crate) async fn ask_for_producer_ids(&self) -> Result<Range<u64>, AdminError> {
        match self.ask(&Ask::ProducerIds).await? {
            Answer::ProducerIds(ids) => Ok(ids),
            _ => Err(self.not_leader().into()),
        }
    }
}
