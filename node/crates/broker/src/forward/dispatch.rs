//! The dispatcher of requests from other nodes.

use crate::access::auth::Principal;
use crate::core::{Broker, Inner};
use crate::error::{AdminError, ProduceError};
use crate::propose::request::Produced;
use crate::records::fetch::Fetch;
use crate::rpc::message::{Answer, Ask};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Weak;
use std::time::Duration;
use weir_log::{decode, encode};
use weir_replica::Forwarded;
use weir_types::level::LEVEL;
use weir_types::{Batch, ErrorKind, GroupId, Offset, PartitionId};

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
}
