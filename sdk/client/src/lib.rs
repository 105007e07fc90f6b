//! Async Rust client for Weir over QUIC: what the `weir` command line uses.
//!
//! A [`Client`] asks one thing at a time; a [`Producer`] and a [`Fetcher`] have a stream of their own, so that many
//! batches can be under way and a waiting fetch holds nobody up.

mod error;
mod fetch;
mod produce;

pub use error::ClientError;
pub use fetch::{Fetched, Fetcher, Piece};
pub use produce::{Produced, Producer, Sent};
pub use weir_peer::KnownNodes;
pub use weir_peer::protocol::{PartitionInfo, Place, TopicInfo};
pub use weir_types::{Batch, BatchBuilder, Codec, ErrorKind, Gap, Offset, Record};

use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Mutex;
use weir_peer::protocol::{Hello, MAGIC, Reply, Request, VERSION, Welcome};
use weir_peer::{Frame, Peer, PeerError, PeerStream, read_frame, write_frame};
use weir_types::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX, MODULE_CHUNK_BYTES};

/// A connection to a node. Clones share it.
#[derive(Clone)]
pub struct Client {
    peer: Peer,
    control: Arc<Mutex<PeerStream>>,
    node_version: String,
}

impl Client {
    /// Connects to the node at `addr`, whose key must be the one in `known` if it was met before. `name` is what the
    /// node's quotas and logs call this client.
    ///
    /// # Errors
    /// When nobody answers, the key has changed, or the node does not speak this version.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connect(addr: SocketAddr, known: &KnownNodes, name: &str) -> Result<Self, ClientError> {
        let peer = weir_peer::connect(addr, known).await?;
        let mut hello = peer.open().await?;
        let message = Hello {
            magic: MAGIC,
            version: VERSION,
            client: name.to_owned(),
        };
        write_frame(&mut hello.tx, &message, &[]).await?;
        let _ = hello.tx.finish();
        let welcome = read_frame::<Welcome>(&mut hello.rx, HELLO_BYTES_MAX).await?;
        let welcome = welcome
            .ok_or(PeerError::Lost("node closed without a word".to_owned()))?
            .head;
        if let Some(error) = welcome.error {
            return Err(ClientError::Node(error));
        }
        let control = Arc::new(Mutex::new(peer.open().await?));
        Ok(Self {
            peer,
            control,
            node_version: welcome.node_version,
        })
    }

    /// Version of the node's program.
    pub fn node_version(&self) -> &str {
        &self.node_version
    }

    /// A stream for producing.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn producer(&self) -> Result<Producer, ClientError> {
        Ok(Producer::new(self.peer.open().await?))
    }

    /// A stream for reading.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn fetcher(&self) -> Result<Fetcher, ClientError> {
        Ok(Fetcher::new(self.peer.open().await?))
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
        // A stream of its own: its parts must not mix with another push.
        let mut stream = self.peer.open().await?;
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
        let mut stream = self.peer.open().await?;
        write_frame(&mut stream.tx, &Request::Scrub, &[]).await?;
        loop {
            let frame = read_reply(&mut stream).await?;
            match frame.head {
                Reply::Progress(done, total) => progress(done, total),
                _ => return Ok(frame.payload),
            }
        }
    }

    /// Ends the connection at once: the outcome of what is under way is unknown.
    pub fn disconnect(&self) {
        self.peer.close("disconnected");
    }

    /// Ends the connection in good order.
    pub async fn close(self) {
        self.peer.finish().await;
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

    async fn ask(&self, request: Request) -> Result<Frame<Reply>, ClientError> {
        let mut stream = self.control.lock().await;
        exchange(&mut stream, &request, &[]).await
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
