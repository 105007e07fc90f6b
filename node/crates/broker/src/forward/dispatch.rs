//! The dispatcher of requests from other nodes.

use crate::access::auth::Principal;
use crate::core::{Broker, Inner};
use crate::error::{AdminError, ProduceError};
use crate::propose::request::Produced;
use crate::records::fetch::Fetch;
use crate::rpc::message::{PeerRequest, PeerResponse};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Weak;
use std::time::Duration;
use weir_log::{decode, encode};
use weir_replica::Forwarded;
use weir_types::level::LEVEL;
use weir_types::{Batch, ErrorKind, GroupId, Offset, PartitionId};

pub(crate) struct PeerRequestHandler(pub(crate) Weak<Inner>);

impl Forwarded for PeerRequestHandler {
    fn answer(&self, ask: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let answer = match (inner, decode::<PeerRequest>("what another node asks", &ask)) {
                (Some(inner), Ok(ask)) => Broker(inner).answer(ask).await,
                (None, _) => PeerResponse::Refused("the node is shutting down".to_owned(), true),
                (_, Err(newer)) => PeerResponse::Refused(newer.to_string(), false),
            };
            encode(&answer).into()
        })
    }
}

/// Converts the answer of the pipeline layer: done, not yet, or a refusal.
fn response_of(done: Result<bool, String>) -> PeerResponse {
    match done {
        Ok(true) => PeerResponse::Done,
        Ok(false) => PeerResponse::Refused("not yet".to_owned(), true),
        Err(why) => PeerResponse::Refused(why, false),
    }
}

impl Broker {
    pub(crate) async fn answer(&self, ask: PeerRequest) -> PeerResponse {
        let who = Principal::anonymous("site");
        let done = match ask {
            PeerRequest::ProducerIds => self.reserve_producer_ids().await.map(PeerResponse::ProducerIds),
            PeerRequest::Copy { partition, at } => self
                .copy(partition, Offset::new(at))
                .await
                .map(PeerResponse::Copied),
            PeerRequest::Seal { partition, to } => {
                self.seal(partition, to).await.map(|()| PeerResponse::Done)
            }
            PeerRequest::Producers { partition } => self.windows(partition).map(PeerResponse::Windows),
            PeerRequest::Term { group } => {
                let group = self.group_of(group).filter(|group| group.is_serving());
                let term = group.map(|group| PeerResponse::Term(group.term()));
                term.ok_or_else(|| self.not_leader().into())
            }
            PeerRequest::Moved { to, term } => self.note_moved(to, term).await.map(|()| PeerResponse::Done),
            PeerRequest::Forward { to, batch } => match self.take_forwarded(to, batch).await {
                Ok(answer) => Ok(answer),
                Err(e) => {
                    // Asking again resolves an unknown outcome.
                    let kind = e.kind();
                    let again = matches!(
                        kind,
                        ErrorKind::Retry | ErrorKind::UnknownOutcome | ErrorKind::Fenced
                    );
                    Ok(PeerResponse::Refused(e.to_string(), again))
                }
            },
            PeerRequest::OpenChannel { home, to } => {
                self.open_channel(home, to).await.map(|()| PeerResponse::Done)
            }
            PeerRequest::RenewChannel {
                home,
                to,
                epoch,
                base,
            } => {
                let renewed = self.renew_channel((home, to), epoch, base).await;
                renewed.map(|()| PeerResponse::Done)
            }
            PeerRequest::Read {
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
                Ok(read.map_or_else(PeerResponse::from, |fetched| PeerResponse::Read(fetched.into())))
            }
            PeerRequest::Place {
                client,
                topic,
                partition,
                at,
            } => {
                let who = Principal::anonymous(client);
                let place = self.offset_at(&who, &topic, partition, at).await;
                Ok(place.map_or_else(PeerResponse::from, PeerResponse::Place))
            }
            PeerRequest::Ends { partitions } => {
                let end = |id: &PartitionId| {
                    let marks = self.0.log.marks(*id).filter(|_| self.serves(*id));
                    marks.map_or(Offset::ZERO, |marks| marks.committed_end())
                };
                Ok(PeerResponse::Ends(partitions.iter().map(end).collect()))
            }
            PeerRequest::Prepare { modules } => Ok(match self.hook() {
                Some(hook) => response_of(hook.prepare(modules).await),
                None => PeerResponse::Refused("the node is starting".to_owned(), true),
            }),
            PeerRequest::TakeBack {
                pipeline,
                revision,
                why,
            } => Ok(match self.hook().filter(|_| self.is_serving()) {
                Some(hook) => response_of(hook.take_back(pipeline, revision, why).await),
                None => PeerResponse::Refused("another node leads".to_owned(), true),
            }),
            PeerRequest::Level => Ok(PeerResponse::Level(LEVEL)),
            PeerRequest::Leads { group, led } => {
                let noted = self.note_leader(GroupId(group), led).await;
                noted.map(|()| PeerResponse::Done)
            }
            PeerRequest::Produce {
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
                    Ok(Produced { base, span }) => PeerResponse::Produced { base, span },
                    Err(e) => PeerResponse::NotProduced(e.to_string(), e.kind().into()),
                })
            }
            PeerRequest::Change { client, change } => {
                Ok(self.answer_change(&Principal::anonymous(client), change).await)
            }
            PeerRequest::CreateTopic { name, partitions } => {
                match self.create_unasked(&who, &name, partitions).await {
                    Ok(_) | Err(AdminError::Exists(_)) => Ok(PeerResponse::Done),
                    Err(e) => Err(e),
                }
            }
        };
        done.unwrap_or_else(|e| {
            PeerResponse::Refused(e.to_string(), e.kind() == weir_types::ErrorKind::Retry)
        })
    }
}
