//! Reading: fetches on streams of their own, repeated at the next leader when a connection breaks.

use crate::error::ClientError;
use crate::route::Routes;
use crate::session::Search;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use weir_peer::protocol::{PieceHead, Reply, Request};
use weir_peer::{Frame, PeerStream};
use weir_types::{Batch, Gap, Offset};

/// A range of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Records; the first batch may begin before the requested offset.
    Batch(Batch),
    /// A range without records, and the reason.
    Gap(Gap),
}

/// Records and gaps that a fetch returned.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Batches and gaps in the order of their offsets.
    pub pieces: Vec<Piece>,
    /// Offset to read from next.
    pub next: Offset,
    /// First offset that may still have a record.
    pub log_start: Offset,
    /// First offset that is not committed yet.
    pub committed_end: Offset,
}

/// A stream of fetches.
pub struct Fetcher {
    routes: Arc<Routes>,
    /// A stream for each replica group; removed when it breaks.
    streams: BTreeMap<u16, PeerStream>,
}

impl Fetcher {
    pub(crate) fn new(routes: Arc<Routes>, site: PeerStream) -> Self {
        Self {
            routes,
            streams: BTreeMap::from([(0, site)]),
        }
    }

    /// Reads from offset `from` on: up to `max_bytes`, but at least a whole batch. Waits up to `wait` when
    /// there are no records. The CRC of every batch is checked.
    ///
    /// # Errors
    /// When the offset is out of range, a batch is damaged, or the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: the stream of a cancelled fetch is dropped, and the next fetch opens another.
    pub async fn fetch(
        &mut self,
        topic: &str,
        partition: u32,
        from: Offset,
        max_bytes: u32,
        wait: Duration,
    ) -> Result<Fetched, ClientError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Fetch {
            topic: topic.to_owned(),
            partition,
            from,
            max_bytes,
            wait_ms,
        };
        let mut frame = self.ask(topic, partition, &request).await?;
        let Reply::Fetched {
            pieces,
            next,
            log_start,
            committed_end,
            ..
        } = frame.head
        else {
            return Err(crate::unexpected(&frame.head));
        };
        let mut read = Vec::with_capacity(pieces.len().min(1_024));
        for piece in pieces {
            read.push(match piece {
                PieceHead::Gap(gap) => Piece::Gap(gap),
                PieceHead::Batch(_) => Piece::Batch(Batch::parse_first(&mut frame.payload)?),
            });
        }
        Ok(Fetched {
            pieces: read,
            next,
            log_start,
            committed_end,
        })
    }

    /// Asks until a leader answers: reading changes nothing, so a broken request is repeated.
    async fn ask(
        &mut self,
        topic: &str,
        partition: u32,
        request: &Request,
    ) -> Result<Frame<Reply>, ClientError> {
        let search = Search::begin();
        loop {
            let group = match self.routes.group_of(topic, partition).await {
                Ok(group) => group,
                Err(e) if !self.routes.site().sessions.has_others() => return Err(e),
                Err(_) => {
                    search.again().await?;
                    continue;
                }
            };
            let route = self.routes.to(group);
            let sessions = &route.sessions;
            let others = sessions.has_others();
            let mut stream = match self.streams.remove(&group) {
                Some(stream) => stream,
                None => match sessions.stream().await {
                    Ok(stream) => stream,
                    Err(e) if !others => return Err(e),
                    Err(_) => {
                        search.again().await?;
                        continue;
                    }
                },
            };
            let exchanged = tokio::select! {
                exchanged = crate::exchange(&mut stream, request, &[]) => exchanged,
                leader = sessions.moved() => Err(ClientError::Elsewhere(leader)),
            };
            match exchanged {
                Ok(frame) => {
                    self.streams.insert(group, stream);
                    return Ok(frame);
                }
                Err(ClientError::Elsewhere(leader)) => {
                    sessions.elsewhere(leader).await;
                    // The partition may have moved to another group.
                    self.routes.forget(topic);
                }
                Err(ClientError::Peer(e)) if !others => return Err(e.into()),
                Err(ClientError::Peer(_)) => {}
                Err(e) => {
                    self.streams.insert(group, stream);
                    return Err(e);
                }
            }
            search.again().await?;
        }
    }
}
