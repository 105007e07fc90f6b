//! Async Rust client for Weir over QUIC: what the `weir` command line uses.
//!
//! A [`Client`] asks one thing at a time; a [`Producer`] and a [`Fetcher`] have a stream of their own, so that many
//! batches can be under way and a waiting fetch holds nobody up.

mod error;
mod fetch;
mod produce;
mod route;
mod session;

pub use error::ClientError;
pub use fetch::{Fetched, Fetcher, Piece};
pub use produce::{Produced, Producer, Sent};
pub use weir_peer::KnownNodes;
pub use weir_peer::protocol::{PartitionInfo, Place, TopicInfo};
pub use weir_types::{Batch, BatchBuilder, Codec, ErrorKind, Gap, Offset, Record};

use bytes::Bytes;
use route::Routes;
use session::{Search, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use weir_peer::protocol::{Reply, Request};
use weir_peer::{Frame, PeerError, PeerStream, read_frame, write_frame};
use weir_types::limits::{FRAME_BYTES_MAX, MODULE_CHUNK_BYTES};

/// A client of a site: of the node that leads it, whichever that is, and of those that lead the replica groups of the
/// partitions that it reads and writes. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    routes: Arc<Routes>,
}

impl Client {
    /// Connects to the node at `addr` and says hello as `name`. Goes on to another node only when this one says that
    /// that one leads: for calls whose connection is lost the outcome is unknown.
    ///
    /// # Errors
    /// When nobody answers there, its key is not the one that is known, or it does not want to talk.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connect(addr: SocketAddr, known: &KnownNodes, name: &str) -> Result<Self, ClientError> {
        Self::connect_any(&[addr], known, name).await
    }

    /// Connects to the site of which these are nodes: to the first that answers, and from there to the one that leads.
    /// When a connection is lost, calls that are safe to repeat are repeated at another node, for half a minute: those
    /// that read, and batches that carry a producer id. Others then fail with an unknown outcome.
    ///
    /// # Errors
    /// When none of them answers.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connect_any(
        seeds: &[SocketAddr],
        known: &KnownNodes,
        name: &str,
    ) -> Result<Self, ClientError> {
        let routes = Arc::new(Routes::new(seeds.to_vec(), known, name));
        routes.site().sessions.get().await?;
        Ok(Self { routes })
    }

    fn sessions(&self) -> &Shared {
        &self.routes.site().sessions
    }

    /// Version of the program of the node that it is connected to.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn node_version(&self) -> Result<String, ClientError> {
        Ok(self.sessions().get().await?.node_version)
    }

    /// A stream for producing.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn producer(&self) -> Result<Producer, ClientError> {
        Producer::open(&self.routes).await
    }

    /// A stream for reading.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn fetcher(&self) -> Result<Fetcher, ClientError> {
        // So that one that cannot be is refused here.
        let stream = self.sessions().stream().await?;
        Ok(Fetcher::new(Arc::clone(&self.routes), stream))
    }

    /// All topics.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, ClientError> {
        let mut topics = self.routes.site().topics().await?;
        self.routes.note(&topics);
        let partitions = topics.iter().flat_map(|t| &t.partitions);
        let elsewhere: BTreeSet<u16> = partitions.filter(|p| !p.is_here).map(|p| p.group).collect();
        for group in elsewhere {
            let route = self.routes.to(group);
            // What it has can only be told by those that have it, best by the one that leads. Without one the rest is
            // still worth telling.
            if route.ask(Request::Leader { group }).await.is_err() {
                continue;
            }
            let Ok(theirs) = route.topics().await else {
                continue;
            };
            let theirs: BTreeMap<String, TopicInfo> =
                theirs.into_iter().map(|t| (t.name.clone(), t)).collect();
            for topic in &mut topics {
                let there = theirs.get(&topic.name).map_or(&[][..], |t| &t.partitions[..]);
                for (ours, theirs) in topic.partitions.iter_mut().zip(there) {
                    if ours.group == group && theirs.group == group {
                        ours.clone_from(theirs);
                    }
                }
            }
        }
        Ok(topics)
    }

    /// The topic `name`.
    ///
    /// # Errors
    /// When there is none, or the connection is lost.
    pub async fn topic(&self, name: &str) -> Result<TopicInfo, ClientError> {
        let found = self.topics().await?.into_iter().find(|t| t.name == name);
        found.ok_or_else(|| ClientError::NoTopic(name.to_owned()))
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// What the node says.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: &[(String, String)],
    ) -> Result<TopicInfo, ClientError> {
        self.create_topic_on(name, partitions, None, settings).await
    }

    /// As [`Client::create_topic`], its partitions spread over groups of so many `replicas` instead of on all nodes.
    ///
    /// # Errors
    /// What the node says.
    pub async fn create_topic_on(
        &self,
        name: &str,
        partitions: u32,
        replicas: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<TopicInfo, ClientError> {
        self.routes.forget(name);
        let (name, settings) = (name.to_owned(), settings.to_vec());
        self.topic_reply(Request::CreateTopic {
            name,
            partitions,
            settings,
            replicas,
        })
        .await
    }

    /// Changes a topic's settings, or adds partitions up to a number.
    ///
    /// # Errors
    /// What the node says.
    pub async fn alter_topic(
        &self,
        name: &str,
        partitions: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<TopicInfo, ClientError> {
        self.alter(name, partitions, settings, None).await
    }

    /// Moves a topic's partitions to groups of so many `replicas`, or to that of all nodes. Returns when that is decided;
    /// it happens while records come and go.
    ///
    /// # Errors
    /// What the node says.
    pub async fn move_topic(&self, name: &str, replicas: Option<u32>) -> Result<TopicInfo, ClientError> {
        self.alter(name, None, &[], Some(replicas.unwrap_or(0))).await
    }

    async fn alter(
        &self,
        name: &str,
        partitions: Option<u32>,
        settings: &[(String, String)],
        replicas: Option<u32>,
    ) -> Result<TopicInfo, ClientError> {
        self.routes.forget(name);
        let (name, settings) = (name.to_owned(), settings.to_vec());
        self.topic_reply(Request::AlterTopic {
            name,
            partitions,
            settings,
            replicas,
        })
        .await
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// What the node says.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        self.routes.forget(name);
        self.done(Request::DeleteTopic {
            name: name.to_owned(),
        })
        .await
    }

    /// The offset of a place in a partition.
    ///
    /// # Errors
    /// What the node says.
    pub async fn offset_at(&self, topic: &str, partition: u32, at: Place) -> Result<Offset, ClientError> {
        let request = Request::OffsetAt {
            topic: topic.to_owned(),
            partition,
            at,
        };
        let group = self.routes.group_of(topic, partition).await?;
        match self.routes.to(group).ask(request).await?.head {
            Reply::Offset(Some(offset)) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    /// Records how far a consumer group has read.
    ///
    /// # Errors
    /// What the node says.
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

    /// How far a consumer group has read a partition, if it ever said.
    ///
    /// # Errors
    /// When the connection is lost.
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

    /// All consumer groups, as JSON.
    ///
    /// # Errors
    /// What the node says.
    pub async fn groups(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Request::Groups).await?.payload)
    }

    /// A consumer group with its members and how far it is, as JSON.
    ///
    /// # Errors
    /// When there is none of this name; what else the node says.
    pub async fn group(&self, name: &str) -> Result<Bytes, ClientError> {
        let name = name.to_owned();
        Ok(self.ask(Request::Group { name }).await?.payload)
    }

    /// Forgets a consumer group without members, and how far it was.
    ///
    /// # Errors
    /// When it has members, or there is none of this name.
    pub async fn delete_group(&self, name: &str) -> Result<(), ClientError> {
        let name = name.to_owned();
        self.done(Request::DeleteGroup { name }).await
    }

    /// A producer id of one's own, for batches that are stored once however often they are sent.
    ///
    /// # Errors
    /// What the node says.
    pub async fn init_producer(&self) -> Result<i64, ClientError> {
        match self.ask(Request::InitProducer).await?.head {
            Reply::Producer(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Pushes a module: a component, or a core module built with the SDK. Returns what the node says of it, as JSON.
    ///
    /// # Errors
    /// What the node says.
    pub async fn push_module(&self, name: &str, version: &str, module: &[u8]) -> Result<Bytes, ClientError> {
        let search = Search::begin();
        loop {
            match self.push_here(name, version, module).await {
                Err(ClientError::Elsewhere(leader)) => self.sessions().elsewhere(leader).await,
                pushed => return pushed,
            }
            search.again().await?;
        }
    }

    async fn push_here(&self, name: &str, version: &str, module: &[u8]) -> Result<Bytes, ClientError> {
        // A stream of its own: its parts must not mix with another push.
        let mut stream = self.sessions().stream().await?;
        for part in module.chunks(MODULE_CHUNK_BYTES) {
            exchange(&mut stream, &Request::PushPart, &[Bytes::copy_from_slice(part)]).await?;
        }
        let request = Request::PushModule {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        Ok(exchange(&mut stream, &request, &[]).await?.payload)
    }

    /// What the node says of something, as JSON.
    ///
    /// # Errors
    /// What the node says.
    pub async fn modules(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Request::Modules).await?.payload)
    }

    /// Removes a module, by `name`, `name@version` or digest.
    ///
    /// # Errors
    /// What the node says.
    pub async fn remove_module(&self, module: &str) -> Result<Bytes, ClientError> {
        Ok(self
            .ask(Request::RemoveModule {
                module: module.to_owned(),
            })
            .await?
            .payload)
    }

    /// Applies a pipeline in TOML. Returns what the node says of it, as JSON.
    ///
    /// # Errors
    /// What the node says.
    pub async fn apply_pipeline(&self, toml: &str) -> Result<Bytes, ClientError> {
        Ok(self
            .ask(Request::ApplyPipeline {
                toml: toml.to_owned(),
            })
            .await?
            .payload)
    }

    /// What applying a pipeline in TOML would change, as JSON.
    ///
    /// # Errors
    /// What the node would say to it.
    pub async fn plan_pipeline(&self, toml: &str) -> Result<Bytes, ClientError> {
        let toml = toml.to_owned();
        Ok(self.ask(Request::PlanPipeline { toml }).await?.payload)
    }

    /// All pipelines, as JSON.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn pipelines(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Request::Pipelines).await?.payload)
    }

    /// Pauses a pipeline, or lets it go on.
    ///
    /// # Errors
    /// What the node says.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<Bytes, ClientError> {
        Ok(self
            .ask(Request::SetPaused {
                name: name.to_owned(),
                paused,
            })
            .await?
            .payload)
    }

    /// Makes a pipeline forget what its modules remember, and pauses it.
    ///
    /// # Errors
    /// What the node says.
    pub async fn reset_pipeline(&self, name: &str) -> Result<Bytes, ClientError> {
        let name = name.to_owned();
        Ok(self.ask(Request::ResetPipeline { name }).await?.payload)
    }

    /// All revisions of a pipeline that are kept, the newest first, as JSON.
    ///
    /// # Errors
    /// What the node says.
    pub async fn pipeline_history(&self, name: &str) -> Result<Bytes, ClientError> {
        let name = name.to_owned();
        Ok(self.ask(Request::PipelineHistory { name }).await?.payload)
    }

    /// Makes a pipeline what it was as revision `to`, or as the last one that was something else.
    ///
    /// # Errors
    /// What the node says.
    pub async fn roll_back_pipeline(&self, name: &str, to: Option<u64>) -> Result<Bytes, ClientError> {
        let name = name.to_owned();
        Ok(self.ask(Request::RollBackPipeline { name, to }).await?.payload)
    }

    /// Has a pipeline in TOML, which is there already, work on `partitions`, and the one that is there on the others.
    ///
    /// # Errors
    /// What the node says.
    pub async fn try_pipeline(&self, toml: &str, partitions: &[u32]) -> Result<Bytes, ClientError> {
        let (toml, partitions) = (toml.to_owned(), partitions.to_vec());
        Ok(self.ask(Request::TryPipeline { toml, partitions }).await?.payload)
    }

    /// Has what is tried on some partitions work on all.
    ///
    /// # Errors
    /// What the node says.
    pub async fn promote_pipeline(&self, name: &str) -> Result<Bytes, ClientError> {
        let name = name.to_owned();
        Ok(self.ask(Request::PromotePipeline { name }).await?.payload)
    }

    /// A page of what the modules of a pipeline remember, as JSON: from `first` on, which is what the page before it says is
    /// `next`.
    ///
    /// # Errors
    /// What the node says.
    pub async fn pipeline_state(&self, name: &str, first: Option<String>) -> Result<Bytes, ClientError> {
        let name = name.to_owned();
        Ok(self.ask(Request::PipelineState { name, first }).await?.payload)
    }

    /// Has a pipeline behind the log forget what its modules remember, and begin anew at `to`: `start`, `end`, an offset, or a
    /// time in RFC 3339.
    ///
    /// # Errors
    /// What the node says.
    pub async fn rewind_pipeline(&self, name: &str, to: &str) -> Result<Bytes, ClientError> {
        let (name, to) = (name.to_owned(), to.to_owned());
        Ok(self.ask(Request::RewindPipeline { name, to }).await?.payload)
    }

    /// Removes a pipeline.
    ///
    /// # Errors
    /// What the node says.
    pub async fn remove_pipeline(&self, name: &str) -> Result<(), ClientError> {
        self.done(Request::RemovePipeline {
            name: name.to_owned(),
        })
        .await
    }

    /// What the node says of itself, as JSON.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn status(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Request::Status).await?.payload)
    }

    /// Has the node read and check all it has; returns its report as JSON. `progress` is called with bytes done and
    /// in all.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn scrub(&self, mut progress: impl FnMut(u64, u64)) -> Result<Bytes, ClientError> {
        let mut stream = self.sessions().stream().await?;
        write_frame(&mut stream.tx, &Request::Scrub, &[]).await?;
        loop {
            let frame = read_reply(&mut stream).await?;
            match frame.head {
                Reply::Progress(done, total) => progress(done, total),
                _ => return Ok(frame.payload),
            }
        }
    }

    /// Has a pipeline in TOML run over what its sources have from `from` on (as in [`Client::rewind_pipeline`]), and over what comes
    /// within `wait`, beside the one of that name as it is. Nothing is written. Returns what came of it as JSON; `progress` is called
    /// with the records that were looked at.
    ///
    /// # Errors
    /// What the node says.
    pub async fn shadow_pipeline(
        &self,
        toml: &str,
        from: &str,
        wait: std::time::Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<Bytes, ClientError> {
        // Whoever leads the site does it.
        self.ask(Request::Leader { group: 0 }).await?;
        let mut stream = self.sessions().stream().await?;
        let request = Request::ShadowPipeline {
            toml: toml.to_owned(),
            from: from.to_owned(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        write_frame(&mut stream.tx, &request, &[]).await?;
        loop {
            let frame = read_reply(&mut stream).await?;
            match frame.head {
                Reply::Progress(done, _) => progress(done),
                _ => return Ok(frame.payload),
            }
        }
    }

    /// Ends the connection at once, and makes no other: the outcome of what is under way is unknown.
    pub fn disconnect(&self) {
        self.routes
            .all()
            .iter()
            .for_each(|route| route.sessions.disconnect());
    }

    /// Ends the connection in good order.
    pub async fn close(self) {
        for route in self.routes.all() {
            if let Some(session) = route.sessions.current().await {
                session.peer.finish().await;
            }
        }
    }

    async fn topic_reply(&self, request: Request) -> Result<TopicInfo, ClientError> {
        match self.ask(request).await?.head {
            Reply::Topic(topic) => Ok(topic),
            other => Err(unexpected(&other)),
        }
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.ask(request).await?.head {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets one node join with `token`, 16 random bytes, within `valid`.
    ///
    /// # Errors
    /// What the node says; an unknown outcome when the connection is lost.
    pub async fn invite(&self, token: [u8; 16], valid: std::time::Duration) -> Result<(), ClientError> {
        let valid_s = valid.as_secs();
        self.done(Request::Invite { token, valid_s }).await
    }

    /// How the nodes of the site are doing, as JSON.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn cluster(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Request::Cluster).await?.payload)
    }

    /// Takes `node` out of the site. One that leads hands over first.
    ///
    /// # Errors
    /// As [`Client::invite`].
    pub async fn remove_node(&self, node: u64) -> Result<(), ClientError> {
        self.done(Request::RemoveNode { node }).await
    }

    /// Has `to` lead; returns once it does.
    ///
    /// # Errors
    /// As [`Client::invite`].
    pub async fn transfer(&self, to: u64) -> Result<(), ClientError> {
        self.done(Request::Transfer { to }).await
    }

    /// Moves replicas of groups from nodes with much to nodes with little, and lets leaders take turns. Returns what is
    /// to move, as JSON.
    ///
    /// # Errors
    /// As [`Client::invite`].
    pub async fn rebalance(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Request::Rebalance).await?.payload)
    }

    async fn ask(&self, request: Request) -> Result<Frame<Reply>, ClientError> {
        self.routes.site().ask(request).await
    }
}

async fn exchange(
    stream: &mut PeerStream,
    request: &Request,
    payload: &[Bytes],
) -> Result<Frame<Reply>, ClientError> {
    write_frame(&mut stream.tx, request, payload).await?;
    read_reply(stream).await
}

async fn read_reply(stream: &mut PeerStream) -> Result<Frame<Reply>, ClientError> {
    let frame = read_frame::<Reply>(&mut stream.rx, FRAME_BYTES_MAX).await?;
    let frame = frame.ok_or_else(|| PeerError::Lost("node closed the stream".to_owned()))?;
    match frame.head {
        Reply::Error(error) => Err(ClientError::Node(error)),
        Reply::Elsewhere(leader) => Err(ClientError::Elsewhere(leader)),
        _ => Ok(frame),
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    let text = format!("{reply:?}");
    PeerError::Malformed(format!(
        "unexpected answer {}",
        text.chars().take(80).collect::<String>()
    ))
    .into()
}
