//! What any node of a site is asked and only the one that leads can do: it is asked in turn, as a Kafka broker asks its
//! controller.

pub(crate) mod topics;

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::quota::Direction;
use crate::core::{Broker, Inner};
use crate::error::{AdminError, FetchError, ProduceError};
use crate::propose::request::{Framing, Produced};
use crate::records::fetch::{Fetch, Fetched};
use crate::records::lookup::At;
use crate::rpc::message::{Answer, Ask};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{decode, encode};
use weir_replica::{Forwarded, NodeId};
use weir_types::level::LEVEL;
use weir_types::{Batch, ErrorKind, GroupId, Offset, PartitionId, TopicName};

/// A node that is in step has applied what the leader has a heartbeat ago.
pub(crate) const APPLIED_WITHIN: Duration = Duration::from_secs(5);

/// A voter that is not ready says so within a moment, and is asked again.
const PREPARE_AGAIN: Duration = Duration::from_millis(50);

pub(crate) const APPLIED_POLL: Duration = Duration::from_millis(5);

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
}
