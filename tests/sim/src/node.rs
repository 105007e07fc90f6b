//! A node: its remains after a crash, the software on its host, and its view from the rest of the simulation.

use crate::counting::Counting;
use crate::entropy::Dice;
use crate::knobs::Knobs;
use crate::network::Simulated;
use crate::workers::Turns;
use anyhow::{Result, bail};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use weir_broker::{Broker, Group, GroupConfig, Member, NodeId, Options, Peers, Timing, Turned};
use weir_log::simulated::Disk;
use weir_log::{Environment, Log, Store};
use weir_peer::{Identity, listen_on};
use weir_types::{Clock, GroupId};

/// Topic of the numbered records.
pub(crate) const TOPIC: &str = "t";
pub(crate) const PARTITIONS: u32 = 2;
/// The port that nodes listen on.
const PORT: u16 = 7_000;
/// Interval of a node's views.
pub(crate) const TELL_EVERY: Duration = Duration::from_millis(3);
/// The beginning of time, in milliseconds: some day in 2027.
const EPOCH_MS: i64 = 1_800_000_000_000;

const GROUP: GroupId = GroupId(0);
/// Tells the dice of identities from those of other purposes.
const IDENTITY: u64 = 77;
/// The message of a node that needs a restart.
pub(crate) const STOPPED: &str = "stopped by itself";
/// Self-checks of a node per check for expired records: more often than on a real node.
const RETAIN_EVERY: u32 = 8;
/// Free space that a node keeps on its disk: a dozen requests.
const RESERVE_BYTES: u64 = 64 << 10;
/// Interval at which a node that lost records asks to rejoin.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Work for a node, given from outside.
pub(crate) type Job = Box<dyn FnOnce(Broker) -> BoxFuture<'static, ()> + Send>;

/// View of a node, as last published.
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
    /// They are being changed.
    pub(crate) changing: bool,
    /// Voters and learners.
    pub(crate) members: Vec<NodeId>,
    /// Whether the node serves, by partition.
    pub(crate) serves: Vec<bool>,
    /// Its replica groups beside the site's.
    pub(crate) groups: BTreeMap<u16, View>,
    /// Partitions that move between groups.
    pub(crate) moves: usize,
    /// The node has all its replicas.
    pub(crate) in_place: bool,
}

/// A node, running or not.
pub(crate) struct Node {
    /// Its place among the hosts, from 1 on.
    pub(crate) host: u64,
    /// Number in the site: a new number after each new set-up.
    id: AtomicU64,
    pub(crate) disk: Disk,
    pub(crate) knobs: Arc<Knobs>,
    dir: Mutex<tempfile::TempDir>,
    under: PathBuf,
    seed: u64,
    /// The node is a witness: a voter without records.
    pub(crate) witness: bool,
    starts: AtomicU32,
    view: Mutex<View>,
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    /// Reason of a failed start.
    failed: Mutex<Option<String>>,
    /// The node lost acknowledged records, and has not rejoined yet: the mark in `site.json`.
    damaged: AtomicBool,
}

impl Node {
    pub(crate) fn new(host: u64, seed: u64, witness: bool, under: &Path) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            host,
            id: AtomicU64::new(host),
            disk: Disk::default(),
            knobs: Arc::default(),
            dir: Mutex::new(tempfile::tempdir_in(under)?),
            under: under.to_owned(),
            seed,
            witness,
            starts: AtomicU32::new(0),
            view: Mutex::default(),
            jobs: Mutex::default(),
            failed: Mutex::default(),
            damaged: AtomicBool::new(false),
        }))
    }

    pub(crate) fn host(&self) -> String {
        format!("n{}", self.host)
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id.load(Ordering::Relaxed)
    }

    /// Erases the node: its next start is under another number, with another key.
    pub(crate) fn set_up_anew(&self, id: NodeId) -> Result<()> {
        self.id.store(id, Ordering::Relaxed);
        self.disk.wipe();
        *lock(&self.dir) = tempfile::tempdir_in(&self.under)?;
        *lock(&self.failed) = None;
        *lock(&self.view) = View::default();
        Ok(())
    }

    pub(crate) fn dir(&self) -> PathBuf {
        lock(&self.dir).path().to_owned()
    }

    /// The node's key follows from the seed; key generation would ask the kernel instead.
    fn identity(&self) -> Result<Identity> {
        let dir = self.dir();
        if !dir.join("identity.key").exists() {
            let mut dice = Dice::new(self.seed, IDENTITY << 32 | self.id());
            // RFC 8410, section 7.
            let mut key = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
            key.extend((0..32).map(|_| dice.roll(256) as u8));
            let pair = rcgen::KeyPair::try_from(&key[..])?;
            let certificate = rcgen::CertificateParams::new(vec!["weir".to_owned()])?.self_signed(&pair)?;
            std::fs::write(dir.join("identity.crt"), certificate.der())?;
            let path = dir.join("identity.key");
            std::fs::write(&path, key)?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        }
        Ok(Identity::load_or_make(&dir)?)
    }

    /// Sets the addresses of the nodes. Called where the simulation knows its hosts.
    pub(crate) fn member(&self) -> Result<Member> {
        Ok(Member {
            key: self.identity()?.fingerprint().to_string(),
            quic: format!("{}:{PORT}", turmoil::lookup(self.host())),
            witness: self.witness,
            ..Member::default()
        })
    }

    pub(crate) fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// The supervisor has seen the reason of the end.
    pub(crate) fn looked_after(&self) {
        *lock(&self.failed) = None;
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> Option<String> {
        lock(&self.failed).clone()
    }

    /// Marks the node as down: its view is gone.
    pub(crate) fn gone(&self) {
        {
            let mut view = lock(&self.view);
            (view.up, view.serving, view.leader) = (false, false, None);
            view.serves.clear();
        }
        *lock(&self.jobs) = None;
    }

    /// Runs a call on the node. `None` when the node is down, goes down meanwhile, or takes longer than
    /// `within`: the outcome is then unknown.
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
        // A host whose software ends has not crashed: the host waits for the next start.
        std::future::pending().await
    }

    async fn serve(&self, nodes: &[Arc<Node>]) -> Result<()> {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice::new(self.seed, 1_000 * self.host + u64::from(start));
        let threads = dice.roll(u64::MAX);
        let environment = |stream| Environment {
            workers: Arc::new(Turns {
                dice: Mutex::new(Dice::new(threads, stream)),
                knobs: Arc::clone(&self.knobs),
            }),
            store: Store::Simulated(self.disk.clone()),
        };
        let options = weir_log::Options {
            disk_reserve_bytes: Some(RESERVE_BYTES),
            value_log_from_bytes: 4_000,
            value_file_bytes: 64 << 10,
            headers_only: self.witness,
            only_whole: false,
            ..weir_log::Options::default()
        };
        let (mut log, mut recovered) = Log::open_in(&self.dir(), &options, environment(1))?;
        if !recovered.damage.is_none() {
            tracing::warn!(node = self.id(), damage = %recovered.damage, "something is missing");
            self.damaged.store(true, Ordering::Relaxed);
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
        if self.is_damaged() {
            // Never closed: that would wait for its thread, which is a task here.
            drop(log);
            self.rejoin(&peers, nodes).await?;
            (log, recovered) = Log::open_in(&self.dir(), &options, environment(3))?;
        }
        let config = GroupConfig {
            id: GROUP,
            node: self.id(),
            member: self.member()?,
            founders: match self.id() == 1 && recovered.groups.is_empty() {
                true => BTreeMap::from([(1, self.member()?)]),
                false => BTreeMap::new(),
            },
            timing: Timing::EDGE,
        };
        let clock = Arc::new(NodeClock {
            started: tokio::time::Instant::now(),
            at_start: turmoil::sim_elapsed().unwrap_or_default(),
            knobs: Arc::clone(&self.knobs),
        });
        let transport = Arc::new(peers.clone());
        let broker = Broker::open(log, &recovered, config, transport, clock, Options::default()).await?;
        broker.set_hook(Counting::start(broker.clone(), Dice::new(dice.roll(u64::MAX), 4)));
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
                _ = tell.tick() => {
                    if let Some(why) = broker.groups().iter().find_map(Group::stopped) {
                        bail!("{STOPPED}: {why}");
                    }
                    // As a real node ends.
                    if let Some(why) = broker.log().poisoned() {
                        bail!("{STOPPED}: {why}");
                    }
                    self.tell(&broker);
                }
            }
        }
    }

    /// As the real node's `site::rejoin`.
    async fn rejoin(&self, peers: &Peers, nodes: &[Arc<Node>]) -> Result<()> {
        let own = self.member()?;
        let members: Result<BTreeMap<NodeId, Member>> =
            nodes.iter().map(|n| Ok((n.id(), n.member()?))).collect();
        let members = members?;
        let id = loop {
            match peers.rejoin(&members, &own).await {
                Ok((id, _)) => break id,
                Err(Turned::Away(why)) => bail!("node {} is not let in again: {why}", self.id()),
                Err(Turned::Back(_)) => tokio::time::sleep(ASK_AGAIN).await,
            }
        };
        weir_log::set_aside(&self.dir(), "set-aside")?;
        std::fs::remove_dir_all(self.dir().join("set-aside"))?;
        self.disk.wipe();
        self.id.store(id, Ordering::Relaxed);
        self.damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn tell(&self, broker: &Broker) {
        let groups = broker.groups().into_iter();
        let others = groups.filter(|group| group.id() != GROUP);
        let topic = broker.topic(TOPIC);
        let partitions = topic.iter().flat_map(|t| &t.partitions);
        *lock(&self.view) = View {
            serves: partitions.map(|id| broker.serves(*id)).collect(),
            groups: others.map(|group| (group.id().0, view_of(&group))).collect(),
            moves: broker.moves().len(),
            in_place: self.witness || broker.is_in_place(),
            ..view_of(broker.group())
        };
    }
}

fn view_of(group: &Group) -> View {
    let status = group.status();
    View {
        up: true,
        term: status.term,
        leader: status.leader,
        last: status.last,
        applied: status.applied,
        purged: status.purged,
        serving: status.serving,
        voters: group.voters().into_iter().collect(),
        changing: group.is_changing(),
        members: group.members().into_keys().collect(),
        ..View::default()
    }
}

/// Takes the connections of the other nodes.
async fn accept(listener: Arc<weir_peer::Listener>, peers: Peers, broker: Broker) {
    while let Some(incoming) = listener.accept().await {
        let (peers, broker) = (peers.clone(), broker.clone());
        tokio::spawn(async move {
            if let Ok(peer) = incoming.handshake().await {
                drop(peers.accept(peer, Arc::new(broker)).await);
            }
        });
    }
}

/// Background work of a node.
async fn keep(broker: Broker) {
    for tick in 0u32.. {
        tokio::time::sleep(Duration::from_millis(250)).await;
        broker.raise_level().await;
        if tick.is_multiple_of(RETAIN_EVERY) {
            broker.make_way_if_full().await;
            broker.retain().await;
        }
        broker.promote_learners().await;
        broker.tick_groups().await;
    }
}

/// Time of day of the node: the simulation's, plus the error of the clock.
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

    fn steady_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

pub(crate) fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
