//! Producing: many batches under way on one stream, answered in order.

use crate::error::ClientError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;
use weir_peer::protocol::{Reply, Request};
use weir_peer::{PeerError, PeerStream, SendStream, read_frame, write_frame};
use weir_types::limits::FRAME_BYTES_MAX;
use weir_types::{Batch, Offset};

/// Where records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the first.
    pub base: Offset,
    /// Offsets that they span.
    pub span: u32,
}

type Waiter = oneshot::Sender<Result<Produced, ClientError>>;
type Waiting = Arc<Mutex<Option<VecDeque<Waiter>>>>;

/// A stream of batches.
pub struct Producer {
    tx: SendStream,
    waiting: Waiting,
}

/// A batch under way. Resolves when the node has it safe, or says why not. When the connection breaks the error's kind
/// is an unknown outcome: send again only with a producer id.
pub struct Sent(oneshot::Receiver<Result<Produced, ClientError>>);

impl Producer {
    pub(crate) fn new(stream: PeerStream) -> Self {
        let PeerStream { tx, mut rx } = stream;
        let waiting: Waiting = Arc::new(Mutex::new(Some(VecDeque::new())));
        let answered = Arc::clone(&waiting);
        tokio::spawn(async move {
            loop {
                let result = match read_frame::<Reply>(&mut rx, FRAME_BYTES_MAX).await {
                    Ok(Some(frame)) => match frame.head {
                        Reply::Produced { base, span, .. } => Ok(Produced { base, span }),
                        Reply::Error(error) => Err(ClientError::Node(error)),
                        other => Err(crate::unexpected(&other)),
                    },
                    Ok(None) => break fail(&answered, "node closed the stream"),
                    Err(e) => break fail(&answered, &e.to_string()),
                };
                let mut waiting = answered.lock().unwrap_or_else(PoisonError::into_inner);
                let waiter = waiting.as_mut().and_then(VecDeque::pop_front);
                if let Some(waiter) = waiter {
                    let _ = waiter.send(result);
                }
            }
        });
        Self { tx, waiting }
    }

    /// Sends a batch for a partition and returns what resolves to its fate. Returns once the batch is on its way:
    /// waits while the node takes no more.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Not safe: a part of the batch may have been sent, and the stream is then of no more use.
    pub async fn send(&mut self, topic: &str, partition: u32, batch: &Batch) -> Result<Sent, ClientError> {
        let (waiter, answer) = oneshot::channel();
        match self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(waiting) => waiting.push_back(waiter),
            None => return Err(PeerError::Lost("the stream has ended".to_owned()).into()),
        }
        let request = Request::Produce {
            topic: topic.to_owned(),
            partition,
        };
        write_frame(&mut self.tx, &request, &[batch.bytes().clone()]).await?;
        Ok(Sent(answer))
    }
}

/// Nobody will be answered any more.
fn fail(waiting: &Waiting, why: &str) {
    let left = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    for waiter in left.into_iter().flatten() {
        let _ = waiter.send(Err(PeerError::Lost(why.to_owned()).into()));
    }
}

impl Sent {
    /// Waits for the node's answer.
    ///
    /// # Errors
    /// What the node says; an unknown outcome when the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: the batch goes on without anybody waiting.
    pub async fn done(self) -> Result<Produced, ClientError> {
        self.0
            .await
            .unwrap_or_else(|_| Err(PeerError::Lost("the stream has ended".to_owned()).into()))
    }
}
