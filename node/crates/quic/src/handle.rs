//! One request, translated. The only place where broker errors become those of the wire.

use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_broker::{
    At, Broker, Commit, Fetch, FetchError, Fetched, Framing, GroupError, GroupInfo, NamedGap, Piece,
    Principal, ProduceError, Producing, ProposeError, Taken, Token, Topic,
};
use weir_peer::protocol::{PartitionInfo, PieceHead, Place, Reply, Request, TopicInfo, WireError};
use weir_peer::{PeerError, SendStream, write_frame};
use weir_pipeline::{Origin, Services, SpecError};
use weir_types::limits::{MODULE_BYTES_MAX, MODULE_CHUNK_BYTES};
use weir_types::{Batch, ErrorKind, GroupId};

/// A topic as the wire shows it.
fn topic_info(node: &Services, topic: &Topic) -> TopicInfo {
    let mut groups = BTreeMap::new();
    let partitions = topic.partitions.iter().map(|id| {
        let group = id.group();
        let (leader, replicas, is_here) = groups.entry(group).or_insert_with(|| {
            let leader = node.broker.leader_of(group).map(|(id, ..)| id);
            let (replicas, _) = node.broker.replicas_of(group);
            (leader, replicas, node.broker.group_of(group).is_some())
        });
        let marks = node.broker.log().marks(*id).filter(|_| *is_here);
        PartitionInfo {
            group: group.0,
            leader: *leader,
            replicas: replicas.clone(),
            is_here: *is_here,
            log_start: marks.as_ref().map(|m| m.log_start()).unwrap_or_default(),
            committed_end: marks.as_ref().map(|m| m.committed_end()).unwrap_or_default(),
            bytes: marks.as_ref().map_or(0, |m| m.bytes()),
            lost: marks.as_ref().map_or(0, |m| m.lost()),
            gaps: marks.map_or_else(Vec::new, |m| m.unread()),
        }
    });
    let pipelines = node.pipelines.pipelines();
    TopicInfo {
        name: topic.name.to_string(),
        partitions: partitions.collect(),
        config: topic.config.shown(),
        pipeline: pipelines
            .into_iter()
            .find(|p| p.is_inline_of(topic.name.as_str()))
            .map(|p| p.name),
    }
}

/// How long a pipeline may be tried out on what comes: an hour, in milliseconds.
const SHADOW_MS_MAX: u64 = 3_600_000;
/// Longest life of a token: a week, in seconds.
const TOKEN_VALID_S_MAX: u64 = 7 * 24 * 3_600;

/// Replies of a long job, one after the other.
type Replies = mpsc::Receiver<(Reply, Bytes)>;

/// An answer with records is taken in a minute, and a second more for each of these many bytes, as by Kafka clients.
const SEND_WITHIN: Duration = Duration::from_secs(60);
const SEND_BYTES_PER_S: usize = 16 << 10;

/// What becomes of a request: known now, or once its records are committed, or bit by bit.
pub(crate) enum Answer {
    Now(Reply, Bytes),
    /// Read only when its turn to be written has come: a slow peer pins one answer a stream, not a queue of them.
    Fetch(Arc<Services>, GroupId, Principal, Fetch),
    Producing(Arc<Services>, GroupId, Producing),
    Long(Replies),
}

impl Answer {
    pub(crate) async fn write(self, tx: &mut SendStream) -> Result<(), PeerError> {
        match self {
            Self::Now(reply, payload) => write_frame(tx, &reply, &[payload]).await,
            Self::Producing(node, group, producing) => {
                let throttle_ms = millis(producing.throttle());
                let reply = match producing.await {
                    Ok(p) => Reply::Produced {
                        base: p.base,
                        span: p.span,
                        throttle_ms,
                    },
                    // Nothing was wrong with them: they are sent again, here or elsewhere.
                    Err(ProduceError::Propose(ProposeError::NotLeader { .. }) | ProduceError::Overtaken) => {
                        elsewhere(&node, group)
                    }
                    Err(e) => refusal(&node, group, wire(e.kind(), &e)),
                };
                write_frame(tx, &reply, &[]).await
            }
            Self::Fetch(node, group, who, fetch) => match node.broker.fetch(&who, fetch).await {
                Ok(fetched) => {
                    throttle(fetched.throttle).await;
                    let share = fetched.share.clone();
                    let (reply, payload) = fetched_reply(fetched);
                    let bytes: usize = payload.iter().map(Bytes::len).sum();
                    let within = SEND_WITHIN + Duration::from_secs((bytes / SEND_BYTES_PER_S) as u64);
                    let sent = tokio::time::timeout(within, write_frame(tx, &reply, &payload)).await;
                    drop(share);
                    sent.unwrap_or(Err(PeerError::Timeout))
                }
                Err(FetchError::NotLeader(_)) => write_frame(tx, &elsewhere(&node, group), &[]).await,
                Err(e) => write_frame(tx, &refusal(&node, group, wire(e.kind(), &e)), &[]).await,
            },
            Self::Long(mut replies) => {
                while let Some((reply, payload)) = replies.recv().await {
                    write_frame(tx, &reply, &[payload]).await?;
                }
                Ok(())
            }
        }
    }
}

/// One stream's requests.
pub(crate) struct Session {
    node: Arc<Services>,
    who: Principal,
    /// Parts of a module so far, and the place that they take.
    upload: Vec<u8>,
    place: Option<(Taken, Instant)>,
}

/// A module comes in a minute, and a second more for each of these many bytes.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);
const UPLOAD_BYTES_PER_S: usize = 64 << 10;

impl Session {
    pub(crate) fn new(node: Arc<Services>, who: Principal) -> Self {
        Self {
            node,
            who,
            upload: Vec::new(),
            place: None,
        }
    }

    /// Until when something is kept for what has not come yet, if something is.
    pub(crate) fn uploads_until(&self) -> Option<Instant> {
        let (_, begun) = self.place.as_ref()?;
        let more = Duration::from_secs((self.upload.len() / UPLOAD_BYTES_PER_S) as u64);
        Some(*begun + UPLOAD_WITHIN + more)
    }

    pub(crate) async fn handle(&mut self, request: Request, payload: Bytes) -> Answer {
        let group = self.group(&request);
        match self.answer(request, group, payload).await {
            Ok(answer) => answer,
            Err(e) => Answer::Now(refusal(&self.node, group, e), Bytes::new()),
        }
    }

    /// The group whose leader answers `request`.
    fn group(&self, request: &Request) -> GroupId {
        match request {
            Request::Produce { topic, partition }
            | Request::Fetch { topic, partition, .. }
            | Request::OffsetAt { topic, partition, .. } => {
                let topic = self.node.broker.topic(topic);
                let id = topic.and_then(|t| t.partition(*partition));
                id.map_or(GroupId::SITE, |id| id.group())
            }
            Request::Leader { group } => GroupId(*group),
            _ => GroupId::SITE,
        }
    }

    async fn answer(
        &mut self,
        request: Request,
        group: GroupId,
        payload: Bytes,
    ) -> Result<Answer, WireError> {
        let (broker, pipelines, who) = (&self.node.broker, &self.node.pipelines, &self.who);
        if !is_local(&request) && !leads(broker, group) {
            return Err(WireError {
                kind: ErrorKind::Retry.into(),
                message: "this node does not lead".to_owned(),
            });
        }
        let reply = match request {
            Request::Produce { topic, partition } => {
                let batch = Batch::parse(payload).map_err(ProduceError::from);
                let batch = batch.map_err(|e| wire(e.kind(), &e))?;
                let producing = broker
                    .produce(who, &topic, partition, batch, Framing::Merge)
                    .await;
                let producing = match producing {
                    Err(ProduceError::Propose(ProposeError::NotLeader { .. })) => {
                        return Ok(Answer::Now(elsewhere(&self.node, group), Bytes::new()));
                    }
                    producing => producing.map_err(|e| wire(e.kind(), &e))?,
                };
                throttle(producing.throttle()).await;
                return Ok(Answer::Producing(Arc::clone(&self.node), group, producing));
            }
            Request::Fetch {
                topic,
                partition,
                from,
                max_bytes,
                wait_ms,
            } => {
                let wait = Duration::from_millis(u64::from(wait_ms));
                let fetch = Fetch {
                    topic,
                    partition,
                    from,
                    max_bytes: max_bytes as usize,
                    wait,
                };
                return Ok(Answer::Fetch(Arc::clone(&self.node), group, who.clone(), fetch));
            }
            Request::OffsetAt { topic, partition, at } => {
                let at = match at {
                    Place::Start => At::Start,
                    Place::End => At::End,
                    Place::Time(timestamp) => At::Time(timestamp),
                };
                match broker.offset_at(who, &topic, partition, at).await {
                    Err(FetchError::NotLeader(_)) => elsewhere(&self.node, group),
                    offset => Reply::Offset(Some(offset.map_err(|e| wire(e.kind(), &e))?)),
                }
            }
            Request::Topics => Reply::Topics(
                broker
                    .topics()
                    .iter()
                    .map(|t| topic_info(&self.node, t))
                    .collect(),
            ),
            Request::CreateTopic {
                name,
                partitions,
                settings,
                replicas,
            } => {
                let topic = broker
                    .create_topic_on(who, &name, partitions, replicas, &settings)
                    .await;
                Reply::Topic(topic_info(&self.node, &*topic.map_err(|e| wire(e.kind(), &e))?))
            }
            Request::AlterTopic {
                name,
                partitions,
                settings,
                replicas,
            } => {
                if let Some(replicas) = replicas {
                    let replicas = (replicas > 0).then_some(replicas);
                    let moved = broker.move_topic(who, &name, replicas).await;
                    moved.map_err(|e| wire(e.kind(), &e))?;
                }
                let topic = broker.alter_topic(who, &name, partitions, &settings).await;
                Reply::Topic(topic_info(&self.node, &*topic.map_err(|e| wire(e.kind(), &e))?))
            }
            Request::DeleteTopic { name } => {
                broker
                    .delete_topic(who, &name)
                    .await
                    .map_err(|e| wire(e.kind(), &e))?;
                Reply::Done
            }
            Request::CommitOffsets { group, offsets } => {
                let commit = |(topic, partition, offset): (_, _, weir_types::Offset)| Commit {
                    topic,
                    partition,
                    offset: offset.get() as i64,
                    leader_epoch: -1,
                    metadata: String::new(),
                };
                let commits: Vec<Commit> = offsets.into_iter().map(commit).collect();
                let result = broker.commit_offsets(who, &group, &commits).await;
                result.map_err(|e| wire(e.kind(), &e))?;
                Reply::Done
            }
            Request::CommittedOffset {
                group,
                topic,
                partition,
            } => Reply::Offset(
                broker
                    .committed_offset(&group, &topic, partition)
                    .and_then(|c| c.position()),
            ),
            Request::Groups => {
                let groups = broker.list_groups(who).into_iter().map(|group| {
                    let offsets = broker.committed_offsets(&group.name).len();
                    serde_json::json!({ "name": group.name, "state": group.state, "protocol": group.protocol_type, "offsets": offsets })
                });
                return json(&groups.collect::<Vec<_>>());
            }
            Request::Group { name } => {
                let group = broker
                    .describe_group(who, &name)
                    .map_err(|e| refused_group(&name, &e))?;
                if group.state == "Dead" {
                    return Err(refused_group(&name, &GroupError::NotFound));
                }
                return json(&group_json(broker, &group));
            }
            Request::DeleteGroup { name } => {
                let deleted = broker.delete_group(who, &name).await;
                deleted.map_err(|e| refused_group(&name, &e))?;
                Reply::Done
            }
            Request::InitProducer => {
                Reply::Producer(broker.init_producer(who).await.map_err(|e| wire(e.kind(), &e))?)
            }
            Request::PushPart => {
                self.part(&payload)?;
                Reply::Done
            }
            Request::PushModule { name, version } => {
                let bytes = std::mem::take(&mut self.upload);
                let _place = self.place.take();
                let info = pipelines
                    .push(&name, &version, bytes)
                    .await
                    .map_err(|e| wire(e.kind(), &e))?;
                return json(&info);
            }
            Request::Modules => return json(&pipelines.modules()),
            Request::RemoveModule { module } => {
                return json(
                    &pipelines
                        .remove_module(&module)
                        .await
                        .map_err(|e| wire(e.kind(), &e))?,
                );
            }
            Request::ApplyPipeline { toml } => {
                return json(
                    &pipelines
                        .apply(&toml, &named(who))
                        .await
                        .map_err(|e| wire(e.kind(), &e))?,
                );
            }
            Request::PlanPipeline { toml } => {
                return json(&pipelines.plan(&toml).await.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::Pipelines => return json(&pipelines.pipelines()),
            Request::SetPaused { name, paused } => {
                return json(
                    &pipelines
                        .set_paused(&name, paused)
                        .await
                        .map_err(|e| wire(e.kind(), &e))?,
                );
            }
            Request::ResetPipeline { name } => {
                return json(&pipelines.reset(&name).await.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::PipelineHistory { name } => {
                return json(&pipelines.history(&name).await.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::RollBackPipeline { name, to } => {
                let back = pipelines.roll_back(&name, to, &named(who)).await;
                return json(&back.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::TryPipeline { toml, partitions } => {
                let tried = pipelines.canary(&toml, &partitions, &named(who)).await;
                return json(&tried.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::PromotePipeline { name } => {
                let promoted = pipelines.promote(&name, &named(who)).await;
                return json(&promoted.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::ShadowPipeline { toml, from, wait_ms } => {
                let from: Origin = from
                    .parse()
                    .map_err(|e: SpecError| wire(ErrorKind::Invalid, &e))?;
                return Ok(self.shadow(toml, from, Duration::from_millis(wait_ms.min(SHADOW_MS_MAX))));
            }
            Request::PipelineState { name, first } => {
                let page = pipelines.remembered(&name, first.as_deref()).await;
                return json(&page.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::RewindPipeline { name, to } => {
                let origin: Origin = to.parse().map_err(|e: SpecError| wire(ErrorKind::Invalid, &e))?;
                let rewound = pipelines.rewind(&name, origin).await;
                return json(&rewound.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::RemovePipeline { name } => {
                pipelines.remove(&name).await.map_err(|e| wire(e.kind(), &e))?;
                Reply::Done
            }
            Request::Status => return json(&(self.node.status)()),
            Request::Scrub => return Ok(self.scrub()),
            Request::Invite { token, valid_s } => {
                broker.may_change_site(who).map_err(|e| wire(e.kind(), &e))?;
                let valid = Duration::from_secs(valid_s.min(TOKEN_VALID_S_MAX));
                let invited = broker.invite(&Token::new(token), valid).await;
                invited.map_err(|e| wire(e.kind(), &e))?;
                Reply::Done
            }
            Request::Leader { .. } => Reply::Done,
            Request::Cluster => return json(&broker.site_status()),
            Request::Rebalance => {
                broker.may_change_site(who).map_err(|e| wire(e.kind(), &e))?;
                return json(&broker.rebalance().await.map_err(|e| wire(e.kind(), &e))?);
            }
            Request::RemoveNode { node } => {
                broker.may_change_site(who).map_err(|e| wire(e.kind(), &e))?;
                remove_node(broker, node).await?;
                Reply::Done
            }
            Request::Transfer { to } => {
                broker.may_change_site(who).map_err(|e| wire(e.kind(), &e))?;
                let handed = broker.hand_over(to).await;
                handed.map_err(|e| wire(e.kind(), &e))?;
                Reply::Done
            }
        };
        Ok(Answer::Now(reply, Bytes::new()))
    }

    fn part(&mut self, payload: &[u8]) -> Result<(), WireError> {
        if self.place.is_none() {
            let uploads = &self.node.broker.ledger().uploads;
            let place = uploads.try_take(MODULE_BYTES_MAX, self.who.address);
            let place = place.map_err(|e| wire(e.kind(), &e))?;
            self.place = Some((place, Instant::now()));
        }
        let total = self.upload.len() + payload.len();
        if payload.len() > MODULE_CHUNK_BYTES || total > MODULE_BYTES_MAX {
            (self.upload, self.place) = (Vec::new(), None);
            let message =
                format!("module is over the limit of {MODULE_BYTES_MAX} bytes, or a part over 1 MiB");
            return Err(WireError {
                kind: ErrorKind::Invalid.into(),
                message,
            });
        }
        self.upload.extend_from_slice(payload);
        Ok(())
    }

    /// Tries a pipeline out, and says how far it is. Ends early when nobody listens any more.
    fn shadow(&self, toml: String, from: Origin, wait: Duration) -> Answer {
        let pipelines = self.node.pipelines.clone();
        let (replies, answers) = mpsc::channel(16);
        tokio::spawn(async move {
            let eye = replies.clone();
            let progress = move |done| {
                // Progress is for the eye: one that does not fit is left out.
                let _ = eye.try_send((Reply::Progress(done, 0), Bytes::new()));
                !eye.is_closed()
            };
            let reply = match pipelines.shadow(&toml, from, wait, progress).await {
                Ok(shadowed) => match serde_json::to_vec(&shadowed) {
                    Ok(report) => (Reply::Json, report.into()),
                    Err(e) => (Reply::Error(wire(ErrorKind::Internal, &e)), Bytes::new()),
                },
                Err(e) => (Reply::Error(wire(e.kind(), &e)), Bytes::new()),
            };
            let _ = replies.send(reply).await;
        });
        Answer::Long(answers)
    }

    /// Reads everything on a thread of its own, and says how far it is.
    fn scrub(&self) -> Answer {
        let (broker, naming) = (self.node.broker.clone(), self.node.broker.clone());
        let (replies, answers) = mpsc::channel(16);
        tokio::spawn(async move {
            let eye = replies.clone();
            let scrubbed = broker.scrub(move |done, total| {
                // Progress is for the eye: one that does not fit is left out.
                let _ = eye.try_send((Reply::Progress(done, total), Bytes::new()));
            });
            let (report, mended) = match scrubbed.await {
                Ok(scrubbed) => scrubbed,
                Err(e) => {
                    let error = WireError {
                        kind: ErrorKind::Internal.into(),
                        message: e.to_string(),
                    };
                    return drop(replies.send((Reply::Error(error), Bytes::new())).await);
                }
            };
            // What cannot be named is shown by its number.
            let topics = weir_broker::topics_in(naming.log()).unwrap_or_default();
            let gap = |(p, g): &(weir_types::PartitionId, weir_types::Gap)| NamedGap::of(&topics, *p, g);
            let report = serde_json::json!({
                "partitions": report.partitions,
                "batches": report.batches,
                "records": report.records,
                "bytes": report.bytes,
                "gaps": report.gaps.iter().map(gap).collect::<Vec<_>>(),
                "damaged": report.damaged.iter().map(gap).collect::<Vec<_>>(),
                "rows": report.rows,
                "mended": mended.iter().map(gap).collect::<Vec<_>>(),
            });
            let _ = replies.send((Reply::Json, report.to_string().into())).await;
        });
        Answer::Long(answers)
    }
}

/// Who asks, for the record.
fn named(who: &Principal) -> String {
    who.shown()
}

/// What a node answers that does not lead.
fn is_local(request: &Request) -> bool {
    matches!(
        request,
        Request::Topics
            | Request::Modules
            | Request::Pipelines
            | Request::Status
            | Request::Scrub
            | Request::Cluster
            | Request::PushPart
    )
}

/// An error, or where to ask instead when it is only that this node does not lead.
fn refusal(node: &Services, group: GroupId, error: WireError) -> Reply {
    if ErrorKind::from(error.kind) != ErrorKind::Retry || leads(&node.broker, group) {
        return Reply::Error(error);
    }
    elsewhere(node, group)
}

/// Where to ask instead; nowhere in particular while a partition is on its way from here to another group.
fn elsewhere(node: &Services, group: GroupId) -> Reply {
    let me = node.broker.group().node();
    let leader = node.broker.leader_of(group).filter(|(id, ..)| *id != me);
    Reply::Elsewhere(leader.map(|(.., member)| member.quic))
}

fn leads(broker: &Broker, group: GroupId) -> bool {
    broker.group_of(group).is_some_and(|group| group.is_serving())
}

/// A leader that is to go hands over first: the next one removes it.
async fn remove_node(broker: &Broker, node: u64) -> Result<(), WireError> {
    let members = broker.group().members();
    if !members.contains_key(&node) {
        let known: Vec<String> = members.keys().map(u64::to_string).collect();
        return Err(WireError {
            kind: ErrorKind::Invalid.into(),
            message: format!(
                "there is no node {node} in the site: its nodes are {}",
                known.join(", ")
            ),
        });
    }
    if node == broker.group().node() {
        let to = broker.successor().ok_or_else(|| WireError {
            kind: ErrorKind::Invalid.into(),
            message: format!("node {node} is the only one that votes: there is nobody to hand over to"),
        })?;
        broker.hand_over(to).await.map_err(|e| wire(e.kind(), &e))?;
        return Err(WireError {
            kind: ErrorKind::Retry.into(),
            message: "handed over: ask the new leader".to_owned(),
        });
    }
    // Whoever asks again finds the rest done.
    let vacated = broker.vacate(node).await;
    vacated.map_err(|e| wire(e.kind(), &e))?;
    let removed = broker.group().remove(node).await;
    removed.map_err(|e| wire(e.kind(), &e))
}

async fn throttle(by: Duration) {
    if !by.is_zero() {
        tokio::time::sleep(by).await;
    }
}

fn fetched_reply(fetched: Fetched) -> (Reply, Vec<Bytes>) {
    let mut payload = Vec::new();
    let pieces = fetched.pieces.into_iter().map(|piece| match piece {
        Piece::Gap(gap) => PieceHead::Gap(gap),
        Piece::Batch(batch) => {
            let bytes = batch.into_bytes();
            let len = bytes.len() as u32;
            payload.push(bytes);
            PieceHead::Batch(len)
        }
    });
    let reply = Reply::Fetched {
        pieces: pieces.collect(),
        next: fetched.next,
        log_start: fetched.log_start,
        committed_end: fetched.committed_end,
        throttle_ms: millis(fetched.throttle),
    };
    (reply, payload)
}

/// A consumer group as it is shown.
fn group_json(broker: &Broker, group: &GroupInfo) -> serde_json::Value {
    let members = group.members.iter().map(|member| {
        serde_json::json!({ "id": member.id, "instance": member.instance, "client": member.client, "host": member.host })
    });
    let offsets = broker.committed_offsets(&group.name).into_iter().map(|(topic, partition, at)| {
        serde_json::json!({ "topic": topic, "partition": partition, "offset": at.number(), "committed_ms": at.committed_ms })
    });
    serde_json::json!({
        "name": group.name, "state": group.state, "protocol": group.protocol,
        "members": members.collect::<Vec<_>>(), "offsets": offsets.collect::<Vec<_>>(),
    })
}

/// What was refused of a consumer group, with its name.
fn refused_group(name: &str, error: &GroupError) -> WireError {
    let kind = match error {
        GroupError::Unavailable | GroupError::NotCoordinator => ErrorKind::Retry,
        _ => ErrorKind::Invalid,
    };
    let message = match error {
        GroupError::NotFound => format!("there is no group `{name}`"),
        GroupError::NotEmpty => format!("group `{name}` has members: stop them first"),
        error => format!("group `{name}`: {error}"),
    };
    WireError {
        kind: kind.into(),
        message,
    }
}

fn json(value: &impl Serialize) -> Result<Answer, WireError> {
    let text = serde_json::to_vec(value).map_err(|e| wire(ErrorKind::Internal, &e))?;
    Ok(Answer::Now(Reply::Json, text.into()))
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// An error with all its causes, in words.
pub(crate) fn wire(kind: ErrorKind, error: &dyn std::error::Error) -> WireError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let text = e.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = e.source();
    }
    WireError {
        kind: kind.into(),
        message,
    }
}
