//! Async Rust client for Weir over QUIC: what the `weir` command line uses.
//!
//! A [`Client`] asks one thing at a time; a [`Producer`] and a [`Fetcher`] have a stream of their own, so that many
//! batches can be under way and a waiting fetch holds nobody up.

mod error;
mod fetch;
mod produce;
mod session;

pub use error::ClientError;
pub use fetch::{Fetched, Fetcher, Piece};
pub use produce::{Produced, Producer, Sent};
pub use weir_peer::KnownNodes;
pub use weir_peer::protocol::{PartitionInfo, Place, TopicInfo};
pub use weir_types::{Batch, BatchBuilder, Codec, ErrorKind, Gap, Offset, Record};

use bytes::Bytes;
use session::{Search, Sessions, Shared};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Mutex;
use weir_peer::protocol::{Reply, Request};
use weir_peer::{Frame, PeerError, PeerStream, read_frame, write_frame};
use weir_types::limits::{FRAME_BYTES_MAX, MODULE_CHUNK_BYTES};

/// A client of a site: of the node that leads it, whichever that is. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    sessions: Shared,
    control: Arc<Mutex<Option<PeerStream>>>,
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
        let sessions = Arc::new(Sessions::new(seeds.to_vec(), known, name));
        sessions.get().await?;
        Ok(Self {
            sessions,
            control: Arc::default(),
        })
    }

    /// Version of the program of the node that it is connected to.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn node_version(&self) -> Result<String, ClientError> {
        Ok(self.sessions.get().await?.node_version)
    }

    /// A stream for producing.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn producer(&self) -> Result<Producer, ClientError> {
        Producer::open(&self.sessions).await
    }

    /// A stream for reading.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn fetcher(&self) -> Result<Fetcher, ClientError> {
        // So that one that cannot be is refused here.
        let stream = self.sessions.stream().await?;
        Ok(Fetcher::new(Arc::clone(&self.sessions), stream))
    }

    /// All topics.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, ClientError> {
        match self.ask(Request::Topics).await?.head {
            Reply::Topics(topics) => Ok(topics),
            other => Err(unexpected(&other)),
        }
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
        let (name, settings) = (name.to_owned(), settings.to_vec());
        self.topic_reply(Request::CreateTopic {
            name,
            partitions,
            settings,
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
        let (name, settings) = (name.to_owned(), settings.to_vec());
        self.topic_reply(Request::AlterTopic {
            name,
            partitions,
            settings,
        })
        .await
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// What the node says.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
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
        match self.ask(request).await?.head {
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
                Err(ClientError::Elsewhere(leader)) => self.sessions.elsewhere(leader).await,
                pushed => return pushed,
            }
            search.again().await?;
        }
    }

    async fn push_here(&self, name: &str, version: &str, module: &[u8]) -> Result<Bytes, ClientError> {
        // A stream of its own: its parts must not mix with another push.
        let mut stream = self.sessions.stream().await?;
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
        let mut stream = self.sessions.stream().await?;
        write_frame(&mut stream.tx, &Request::Scrub, &[]).await?;
        loop {
            let frame = read_reply(&mut stream).await?;
            match frame.head {
                Reply::Progress(done, total) => progress(done, total),
                _ => return Ok(frame.payload),
            }
        }
    }

    /// Ends the connection at once, and makes no other: the outcome of what is under way is unknown.
    pub fn disconnect(&self) {
        self.sessions.disconnect();
    }

    /// Ends the connection in good order.
    pub async fn close(self) {
        if let Ok(session) = self.sessions.get().await {
            session.peer.finish().await;
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

    /// Asks the node that leads, or any if it knows itself.
    async fn ask(&self, request: Request) -> Result<Frame<Reply>, ClientError> {
        let mut control = self.control.lock().await;
        let search = Search::begin();
        loop {
            let mut stream = match control.take() {
                Some(stream) => stream,
                None => match self.sessions.stream().await {
                    Ok(stream) => stream,
                    Err(e) if !self.sessions.has_others() => return Err(e),
                    // Nothing was asked yet.
                    Err(_) => {
                        search.again().await?;
                        continue;
                    }
                },
            };
            let exchanged = tokio::select! {
                exchanged = exchange(&mut stream, &request, &[]) => exchanged,
                leader = self.sessions.moved() => {
                    self.sessions.elsewhere(leader).await;
                    Err(PeerError::Timeout.into())
                }
            };
            match exchanged {
                Ok(frame) => {
                    *control = Some(stream);
                    return Ok(frame);
                }
                Err(ClientError::Elsewhere(leader)) => self.sessions.elsewhere(leader).await,
                Err(ClientError::Peer(e)) if !(self.sessions.has_others() && reads(&request)) => {
                    return Err(e.into());
                }
                Err(ClientError::Peer(_)) => {}
                Err(e) => {
                    *control = Some(stream);
                    return Err(e);
                }
            }
            search.again().await?;
        }
    }
}

/// What changes nothing, and can be asked again.
fn reads(request: &Request) -> bool {
    matches!(
        request,
        Request::OffsetAt { .. }
            | Request::Topics
            | Request::CommittedOffset { .. }
            // The same token is as good a second time.
            | Request::Invite { .. }
            // And the same offset.
            | Request::CommitOffsets { .. }
            // Numbers that nobody gets are no loss.
            | Request::InitProducer
            | Request::Modules
            | Request::Pipelines
            | Request::Status
            | Request::Cluster
    )
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
