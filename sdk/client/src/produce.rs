//! Producing: many batches in flight on a stream, answered in order, and resent where that is safe.

use crate::error::ClientError;
use crate::route::Routes;
use crate::session::{Search, Shared};
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use weir_peer::protocol::{Reply, Request, WireKind};
use weir_peer::{PeerError, PeerStream, SendStream, read_frame, write_frame};
use weir_types::limits::{CONNECTION_REQUESTS_MAX, FRAME_BYTES_MAX, PRODUCER_WINDOW};
use weir_types::{Batch, Offset};

/// Place of stored records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the first record.
    pub base: Offset,
    /// Number of offsets.
    pub span: u32,
}

/// Largest number of batches in flight: twice as many as the node works on.
const WINDOW: usize = 2 * CONNECTION_REQUESTS_MAX;

/// A batch in flight.
struct Item {
    topic: String,
    partition: u32,
    batch: Batch,
    waiter: oneshot::Sender<Result<Produced, ClientError>>,
}

impl Item {
    /// Tells whether the node recognises a repetition of the batch.
    fn is_idempotent(&self) -> bool {
        self.batch.producer().is_some()
    }

    fn place(&self) -> (String, u32) {
        (self.topic.clone(), self.partition)
    }

    fn fail(self, why: &str) {
        let _ = self.waiter.send(Err(PeerError::Lost(why.to_owned()).into()));
    }
}

/// A stream of batches. When the leader changes, refused batches are resent to the next leader in their
/// order. When a connection is lost, batches with a producer id are resent: the node recognises them.
pub struct Producer {
    routes: Arc<Routes>,
    /// A stream for each replica group.
    streams: BTreeMap<u16, mpsc::Sender<Item>>,
    /// Stream of each partition, for ever: after a move to another group, that stream passes batches on in
    /// their order. Bounded by the partitions of the topics written to.
    places: BTreeMap<(String, u32), u16>,
}

/// A batch in flight. Resolves once the node has stored or refused the batch. When the connection breaks, the
/// outcome is unknown: resend only with a producer id.
pub struct Sent(oneshot::Receiver<Result<Produced, ClientError>>);

impl Producer {
    pub(crate) async fn open(routes: &Arc<Routes>) -> Result<Self, ClientError> {
        // A connection that fails is told here, not with the first batch.
        let site = Sending::begin(Arc::clone(routes), 0).await?;
        Ok(Self {
            routes: Arc::clone(routes),
            streams: BTreeMap::from([(0, site)]),
            places: BTreeMap::new(),
        })
    }

    /// Sends a batch to a partition, and returns a handle for its outcome. Waits while too many batches are
    /// in flight.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: a cancelled batch is not sent.
    pub async fn send(&mut self, topic: &str, partition: u32, batch: &Batch) -> Result<Sent, ClientError> {
        let place = (topic.to_owned(), partition);
        let group = match self.places.get(&place) {
            Some(group) => *group,
            None => self.routes.group_of(topic, partition).await?,
        };
        self.places.entry(place).or_insert(group);
        let stream = match self.streams.get(&group) {
            Some(stream) => stream.clone(),
            None => {
                let stream = Sending::begin(Arc::clone(&self.routes), group).await?;
                self.streams.entry(group).or_insert(stream).clone()
            }
        };
        let (waiter, answer) = oneshot::channel();
        let item = Item {
            topic: topic.to_owned(),
            partition,
            batch: batch.clone(),
            waiter,
        };
        let sent = stream.send(item).await;
        sent.map_err(|_| PeerError::Lost("the stream has ended".to_owned()))?;
        Ok(Sent(answer))
    }
}

impl Sent {
    /// Waits for the node's answer.
    ///
    /// # Errors
    /// When the node refuses the batch; an unknown outcome when the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: the batch is stored or refused all the same.
    pub async fn done(self) -> Result<Produced, ClientError> {
        self.0
            .await
            .unwrap_or_else(|_| Err(PeerError::Lost("the stream has ended".to_owned()).into()))
    }
}

struct Sending {
    routes: Arc<Routes>,
    group: u16,
    sessions: Shared,
    /// Streams of partitions that have moved to other groups.
    gone: BTreeMap<(String, u32), mpsc::Sender<Item>>,
    queue: mpsc::Receiver<Item>,
    /// Batches without an answer, in the order of sending.
    unanswered: VecDeque<Item>,
    /// Number of answers other than a redirection.
    answers: u64,
    /// A batch held back until the node would recognise all batches before it.
    held: Option<Item>,
}

async fn pass_on(stream: &mpsc::Sender<Item>, item: Item) {
    if let Err(mpsc::error::SendError(item)) = stream.send(item).await {
        item.fail("the stream has ended");
    }
}

/// End of a stream.
enum End {
    /// The sender is gone, and every batch is answered.
    Done,
    /// The node does not lead; the address of the leader, if known.
    Elsewhere(Option<String>),
    Lost(String),
}

impl Sending {
    /// Boxed, since a stream may begin another.
    fn begin(routes: Arc<Routes>, group: u16) -> BoxFuture<'static, Result<mpsc::Sender<Item>, ClientError>> {
        Box::pin(async move {
            let sessions = Shared::clone(&routes.to(group).sessions);
            let stream = sessions.stream().await?;
            let (items, queue) = mpsc::channel(WINDOW);
            let sending = Self {
                routes,
                group,
                sessions,
                gone: BTreeMap::new(),
                queue,
                unanswered: VecDeque::new(),
                answers: 0,
                held: None,
            };
            tokio::spawn(sending.run(stream));
            Ok(items)
        })
    }

    /// Passes batches of partitions that have moved on to their groups' streams, in their order, and all
    /// later batches.
    async fn hand_over(&mut self) {
        let waiting = self.unanswered.iter().chain(&self.held);
        let places: BTreeSet<(String, u32)> = waiting.map(Item::place).collect();
        places.iter().for_each(|(topic, _)| self.routes.forget(topic));
        for place in places {
            let group = self.routes.group_of(&place.0, place.1).await;
            let Ok(group) = group else { continue };
            if group == self.group {
                continue;
            }
            let Ok(stream) = Self::begin(Arc::clone(&self.routes), group).await else {
                continue;
            };
            let all = std::mem::take(&mut self.unanswered).into_iter();
            let (moved, stay) = all.partition(|item: &Item| item.place() == place);
            self.unanswered = stay;
            let held = self.held.take_if(|item| item.place() == place);
            let moved: VecDeque<Item> = moved;
            for item in moved.into_iter().chain(held) {
                pass_on(&stream, item).await;
            }
            self.gone.insert(place, stream);
        }
    }

    async fn run(mut self, mut stream: PeerStream) {
        // A redirection from a node that does not lead is no progress: the search goes on.
        let mut looking: Option<(Search, u64)> = None;
        loop {
            let failed = match self.serve(stream).await {
                End::Done => return,
                End::Elsewhere(leader) => {
                    self.hand_over().await;
                    self.sessions.elsewhere(leader).await;
                    "no node of the site leads".to_owned()
                }
                End::Lost(why) if !self.sessions.has_others() => return self.give_up(&why),
                End::Lost(why) => {
                    let (again, unknown) = self.unanswered.into_iter().partition(Item::is_idempotent);
                    self.unanswered = again;
                    unknown.into_iter().for_each(|item: Item| item.fail(&why));
                    why
                }
            };
            let answers = self.answers;
            let same = looking
                .take()
                .filter(|(search, before)| *before == answers && search.is_fresh());
            let (search, _) = looking.insert(same.unwrap_or_else(|| (Search::begin(), answers)));
            search.look();
            stream = loop {
                if search.again().await.is_err() {
                    return self.give_up(&failed);
                }
                match self.sessions.stream().await {
                    Ok(stream) => break stream,
                    Err(e) if !self.sessions.has_others() => return self.give_up(&e.to_string()),
                    Err(_) => {}
                }
            };
        }
    }

    fn give_up(self, why: &str) {
        let left = self.unanswered.into_iter().chain(self.held);
        left.for_each(|item| item.fail(why));
    }

    /// Sends unanswered and new batches until the stream ends. Batches left then are resent.
    async fn serve(&mut self, stream: PeerStream) -> End {
        let PeerStream { mut tx, rx } = stream;
        let mut answers = answers(rx);
        for item in &self.unanswered {
            if let Err(e) = write(&mut tx, item).await {
                return End::Lost(e.to_string());
            }
        }
        // Batches refused by a node that does not lead. Batches behind them are answered before any is
        // resent.
        let mut refused: Option<(Option<String>, VecDeque<Item>)> = None;
        let mut open = true;
        let end = loop {
            if self.unanswered.is_empty() {
                if refused.is_some() {
                    break None;
                }
                if !open && self.held.is_none() {
                    return End::Done;
                }
            }
            // The pause counts from the last answer.
            let moved = self.sessions.moved();
            if refused.is_none()
                && let Some(item) = self.held.take_if(|item| known_again(&self.unanswered, item))
            {
                let written = write(&mut tx, &item).await;
                self.unanswered.push_back(item);
                if let Err(e) = written {
                    break Some(e.to_string());
                }
                continue;
            }
            let room = open && self.held.is_none() && refused.is_none() && self.unanswered.len() < WINDOW;
            tokio::select! {
                answer = answers.recv() => match answer.unwrap_or_else(|| Err("the stream has ended".to_owned())) {
                    Ok(reply) => self.answered(reply, &mut refused),
                    Err(why) => break Some(why),
                },
                item = self.queue.recv(), if room => match item {
                    Some(item) if !self.gone.is_empty() && self.gone.contains_key(&item.place()) => {
                        if let Some(stream) = self.gone.get(&item.place()) {
                            pass_on(stream, item).await;
                        }
                    }
                    Some(item) if !known_again(&self.unanswered, &item) => self.held = Some(item),
                    Some(item) => {
                        let written = write(&mut tx, &item).await;
                        self.unanswered.push_back(item);
                        if let Err(e) = written {
                            break Some(e.to_string());
                        }
                    }
                    None => open = false,
                },
                leader = moved, if !self.unanswered.is_empty() => {
                    self.sessions.elsewhere(leader).await;
                    break Some("another node leads".to_owned());
                }
            }
        };
        match (refused, end) {
            (None, why) => End::Lost(why.unwrap_or_default()),
            (Some((leader, mut again)), end) => {
                let behind = std::mem::take(&mut self.unanswered);
                for item in behind {
                    match item.is_idempotent() {
                        true => again.push_back(item),
                        false => item.fail(end.as_deref().unwrap_or("the stream has ended")),
                    }
                }
                self.unanswered = again;
                End::Elsewhere(leader)
            }
        }
    }

    fn answered(&mut self, reply: Reply, refused: &mut Option<(Option<String>, VecDeque<Item>)>) {
        let Some(item) = self.unanswered.pop_front() else {
            return;
        };
        let result = match reply {
            Reply::Produced { base, span, .. } => Ok(Produced { base, span }),
            Reply::Elsewhere(leader) => {
                let (_, again) = refused.get_or_insert_with(|| (leader, VecDeque::new()));
                return again.push_back(item);
            }
            // The batch may be stored: the next leader recognises or stores it.
            Reply::Error(e) if e.kind == WireKind::UnknownOutcome && item.is_idempotent() => {
                let (_, again) = refused.get_or_insert_with(|| (None, VecDeque::new()));
                return again.push_back(item);
            }
            // Behind a batch that is resent, this batch only came too early.
            Reply::Error(_) if refused.is_some() && item.is_idempotent() => {
                if let Some((_, again)) = refused {
                    again.push_back(item);
                }
                return;
            }
            Reply::Error(error) => Err(ClientError::Node(error)),
            other => Err(crate::unexpected(&other)),
        };
        self.answers += 1;
        let _ = item.waiter.send(result);
    }
}

/// Tells whether the node would recognise all batches in flight if `item` were sent too. It remembers the
/// last few batches of each producer and partition.
fn known_again(unanswered: &VecDeque<Item>, item: &Item) -> bool {
    let Some(producer) = item.batch.producer() else {
        return true;
    };
    let same = |other: &&Item| {
        let of_same = other.batch.producer().is_some_and(|p| p.id == producer.id);
        of_same && other.partition == item.partition && other.topic == item.topic
    };
    unanswered.iter().filter(same).count() < PRODUCER_WINDOW
}

async fn write(tx: &mut SendStream, item: &Item) -> Result<(), PeerError> {
    let request = Request::Produce {
        topic: item.topic.clone(),
        partition: item.partition,
    };
    write_frame(tx, &request, &[item.batch.bytes().clone()]).await
}

/// Returns answers as they come, from a task that can wait in the middle of an answer.
fn answers(mut rx: weir_peer::RecvStream) -> mpsc::Receiver<Result<Reply, String>> {
    let (tx, answers) = mpsc::channel(WINDOW);
    tokio::spawn(async move {
        loop {
            let answer = match read_frame::<Reply>(&mut rx, FRAME_BYTES_MAX).await {
                Ok(Some(frame)) => Ok(frame.head),
                Ok(None) => Err("node closed the stream".to_owned()),
                Err(e) => Err(e.to_string()),
            };
            let last = answer.is_err();
            if tx.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    answers
}
