//! One node: what a crash leaves of it, what runs on its host, and what the rest of the simulation sees of it.

use crate::entropy::Dice;
use crate::network::Simulated;
use crate::workers::Turns;
use anyhow::{Result, bail};
use futures_util::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use weir_broker::{Broker, GroupConfig, Member, NodeId, Options, Peers, Timing};
use weir_log::simulated::Disk;
use weir_log::{Environment, Log, Store};
use weir_peer::{Identity, listen_on};
use weir_types::{Clock, GroupId};

/// The port that nodes listen on.
const PORT: u16 = 7_000;
/// How often a node tells how it is.
pub(crate) const TELL_EVERY: Duration = Duration::from_millis(3);
/// The beginning of time, in milliseconds: some day in 2027.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// What a node says that lost what it had acknowledged.
pub(crate) const DAMAGED: &str = "finds its log damaged";

/// Work for a node, given from outside.
pub(crate) type Job = Box<dyn FnOnce(Broker) -> BoxFuture<'static, ()> + Send>;

/// What faults turn.
#[derive(Default)]
pub(crate) struct Knobs {
    pub(crate) slow_disk_ms: AtomicU32,
    pub(crate) lost_permille: AtomicU32,
    pub(crate) twice_permille: AtomicU32,
    /// How far its clock is off, in milliseconds.
    pub(crate) skew_ms: AtomicI64,
}

/// How a node is, as it told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) up: bool,
    pub(crate) term: u64,
    pub(crate) leader: Option<NodeId>,
    pub(crate) last: u64,
    pub(crate) applied: u64,
    pub(crate) purged: u64,
    pub(crate) serving: bool,
    pub(crate) voters: Vec<NodeId>,
    /// Voters and learners.
    pub(crate) members: Vec<NodeId>,
}

/// A node, running or not.
pub(crate) struct Node {
    /// Its place among the hosts, from 1 on.
    pub(crate) host: u64,
    /// Its number in the site: another once it was set up anew.
    id: AtomicU64,
    pub(crate) disk: Disk,
    pub(crate) knobs: Arc<Knobs>,
    dir: Mutex<tempfile::TempDir>,
    under: PathBuf,
    seed: u64,
    starts: AtomicU32,
    view: Mutex<View>,
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    /// What it could not start for.
    failed: Mutex<Option<String>>,
}

impl Node {
    pub(crate) fn new(host: u64, seed: u64, under: &Path) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            host,
            id: AtomicU64::new(host),
            disk: Disk::default(),
            knobs: Arc::default(),
            dir: Mutex::new(tempfile::tempdir_in(under)?),
            under: under.to_owned(),
            seed,
            starts: AtomicU32::new(0),
            view: Mutex::default(),
            jobs: Mutex::default(),
            failed: Mutex::default(),
        }))
    }

    pub(crate) fn host(&self) -> String {
        format!("n{}", self.host)
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id.load(Ordering::Relaxed)
    }

    /// Nothing is left of it: it begins again under another number, with another key.
    pub(crate) fn set_up_anew(&self, id: NodeId) -> Result<()> {
        self.id.store(id, Ordering::Relaxed);
        self.disk.wipe();
        *lock(&self.dir) = tempfile::tempdir_in(&self.under)?;
        *lock(&self.failed) = None;
        *lock(&self.view) = View::default();
        Ok(())
    }

    fn dir(&self) -> PathBuf {
        lock(&self.dir).path().to_owned()
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::load_or_make(&self.dir())?)
    }

    /// How others reach it. Called where the simulation knows its hosts.
    pub(crate) fn member(&self) -> Result<Member> {
        Ok(Member {
            key: self.identity()?.fingerprint().to_string(),
            quic: format!("{}:{PORT}", turmoil::lookup(self.host())),
            ..Member::default()
        })
    }

    pub(crate) fn view(&self) -> View {
        lock(&self.view).clone()
    }

    pub(crate) fn failed(&self) -> Option<String> {
        lock(&self.failed).clone()
    }

    /// It is down: nothing of it is seen any more.
    pub(crate) fn gone(&self) {
        {
            let mut view = lock(&self.view);
            (view.up, view.serving, view.leader) = (false, false, None);
        }
        *lock(&self.jobs) = None;
    }

    /// Has the node do something. `None` when it is down, goes down meanwhile, or takes longer than `within`: whether it
    /// happened is then unknown.
    pub(crate) async fn ask<T, F>(
        &self,
        within: Duration,
        what: impl FnOnce(Broker) -> F + Send + 'static,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |broker| Box::pin(async move { drop(done.send(what(broker).await)) }));
        let sent = lock(&self.jobs).as_ref().map(|jobs| jobs.send(job).is_ok());
        sent.filter(|sent| *sent)?;
        tokio::time::timeout(within, answer).await.ok()?.ok()
    }

    /// As [`Node::ask`], without an answer.
    pub(crate) fn tell_to<F>(&self, what: impl FnOnce(Broker) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(jobs) = lock(&self.jobs).as_ref() {
            let _ = jobs.send(Box::new(move |broker| Box::pin(what(broker))));
        }
    }

    /// The node's software, from start to crash.
    pub(crate) async fn run(self: Arc<Self>, nodes: Arc<Vec<Arc<Node>>>) -> turmoil::Result {
        if let Err(error) = self.serve(&nodes).await {
            *lock(&self.failed) = Some(format!("{error:#}"));
            self.gone();
        }
        // A host whose software ends is not crashed: it waits for the next start.
        std::future::pending().await
    }

    async fn serve(&self, nodes: &[Arc<Node>]) -> Result<()> {
        if let Some(why) = self.failed().filter(|why| why.contains(DAMAGED)) {
            // As `site.json` has it: once it lost something it stays out.
            bail!("{why}");
        }
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice::new(self.seed, 1_000 * self.host + u64::from(start));
        let environment = Environment {
            workers: Arc::new(Turns {
                dice: Mutex::new(Dice::new(dice.roll(u64::MAX), 1)),
                knobs: Arc::clone(&self.knobs),
            }),
            store: Store::Simulated(self.disk.clone()),
        };
        let options = weir_log::Options {
            disk_reserve_bytes: Some(0),
            value_log_from_bytes: 4_000,
            value_file_bytes: 64 << 10,
            ..weir_log::Options::default()
        };
        let (log, recovered) = Log::open_in(&self.dir(), &options, environment)?;
        if !recovered.damage.is_none() {
            bail!("node {} {DAMAGED}: {}", self.id(), recovered.damage);
        }
        let identity = Arc::new(self.identity()?);
        let network = Simulated {
            socket: Arc::new(turmoil::net::UdpSocket::bind(("0.0.0.0", PORT)).await?),
            knobs: Arc::clone(&self.knobs),
            dice: Dice::new(dice.roll(u64::MAX), 2),
            seed: dice.roll(u64::MAX),
        };
        let listener = Arc::new(listen_on(&network, ([0, 0, 0, 0], PORT).into(), &identity)?);
        let peers = Peers::new(Arc::clone(&listener), identity);
        let keys: Result<Vec<String>> = nodes.iter().map(|n| Ok(n.member()?.key)).collect();
        let config = GroupConfig {
            id: GroupId(0),
            node: self.id(),
            member: self.member()?,
            found: self.id() == 1 && recovered.groups.is_empty(),
            timing: Timing::EDGE,
        };
        let clock = Arc::new(NodeClock {
            started: tokio::time::Instant::now(),
            at_start: turmoil::sim_elapsed().unwrap_or_default(),
            knobs: Arc::clone(&self.knobs),
        });
        let transport = Arc::new(peers.clone());
        let broker = Broker::open(log, &recovered, config, transport, clock, Options::default()).await?;
        if !broker.group().members().contains_key(&self.id()) {
            peers.trust(keys?);
        }
        tokio::spawn(accept(listener, peers, broker.clone()));
        tokio::spawn(keep(broker.clone()));
        let (jobs, mut asked) = mpsc::unbounded_channel::<Job>();
        *lock(&self.jobs) = Some(jobs);
        let mut tell = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                biased;
                job = asked.recv() => {
                    let Some(job) = job else { return Ok(()) };
                    tokio::spawn(job(broker.clone()));
                }
                _ = tell.tick() => self.tell(&broker),
            }
        }
    }

    fn tell(&self, broker: &Broker) {
        let status = broker.group().status();
        *lock(&self.view) = View {
            up: true,
            term: status.term,
            leader: status.leader,
            last: status.last,
            applied: status.applied,
            purged: status.purged,
            serving: status.serving,
            voters: broker.group().voters().into_iter().collect(),
            members: broker.group().members().into_keys().collect(),
        };
    }
}

/// Takes the connections of the other nodes.
async fn accept(listener: Arc<weir_peer::Listener>, peers: Peers, broker: Broker) {
    while let Some(incoming) = listener.accept().await {
        let (peers, broker) = (peers.clone(), broker.clone());
        tokio::spawn(async move {
            if let Ok(peer) = incoming.handshake().await {
                let admit = Arc::new(broker.clone());
                drop(peers.accept(peer, broker.group(), admit).await);
            }
        });
    }
}

/// What a node does by itself.
async fn keep(broker: Broker) {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        broker.promote_learners().await;
        broker.tick_groups().await;
    }
}

/// The node's time of day: the simulation's, and what it is off.
struct NodeClock {
    started: tokio::time::Instant,
    at_start: Duration,
    knobs: Arc<Knobs>,
}

impl Clock for NodeClock {
    fn now_ms(&self) -> i64 {
        let elapsed = self.at_start + self.started.elapsed();
        EPOCH_MS + elapsed.as_millis() as i64 + self.knobs.skew_ms.load(Ordering::Relaxed)
    }
}

pub(crate) fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
