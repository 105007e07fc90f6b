//! Building the layers bottom-up, running them, and taking them down top-down.

use crate::ballast::Ballast;
use crate::heap;
use crate::keep::{self, EXIT_POISONED};
use crate::listeners::Listeners;
use crate::means;
use crate::settings::Settings;
use crate::site::{self, Place};
use crate::starts;
use crate::tasks::{Tasks, keep_room, tick_groups};
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use weir_admin::{Services, Start};
use weir_broker::{Broker, GroupConfig, Hook, Means, Member, Peers, QuotaConfig, Started};
use weir_log::{Log, Recovered};
use weir_peer::Identity;
use weir_pipeline::Pipelines;
use weir_runtime::{CompileBy, Runtime, RuntimeOptions};
use weir_types::SystemClock;

/// Time for a node that stands alone to become the leader: its disk takes a few syncs for that.
const ALONE_WITHIN: Duration = Duration::from_secs(30);
/// Time for requests under way when the node stops.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The first start of a node: options that have no meaning later.
#[derive(Debug)]
pub(crate) struct FirstStart {
    /// Address of a node of the site to join, and a token.
    pub(crate) join: Option<(String, String)>,
    /// Joins as a vote that keeps no records.
    pub(crate) witness: bool,
}

/// Runs a node until a signal stops it.
///
/// # Errors
///
/// Whatever keeps the node from starting, with the file, address or option.
pub(crate) async fn serve(data: &Path, settings: Settings, first: FirstStart) -> Result<()> {
    let begun = Instant::now();
    // A file that grows beyond a limit of the system is an error of that file, and told; without a handler it would be the end.
    let xfsz = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    let _beyond = tokio::signal::unix::signal(xfsz)?;
    crate::ownership::keep_to_ourselves();
    crate::ownership::take(data)?;
    let ballast = Ballast::of(data);
    let is_full = ballast.let_go_if_full()?;
    let known = site::load(data)?;
    let witness = role(data, known.as_ref(), &first)?;
    let opening = Opening {
        data,
        options: log_options(&settings, witness),
        known,
    };
    // Before anything else can fail: the log is whole again at the next start, and would not tell.
    let (opening, opened) = opening.log()?;
    let identity = Arc::new(Identity::load_or_make(data)?);
    let listeners = Listeners::bind(&settings, &identity, witness).await?;
    let member = Member {
        witness,
        ..member(&settings, &identity, &listeners)
    };
    let peers = Peers::new(Arc::clone(&listeners.quic), Arc::clone(&identity));
    let run = random_key()?.first_chunk().copied().unwrap_or_default();
    let opened = opening.confirmed(opened, &peers, &member, run).await?;
    report(&opened.recovered, &opened.log);
    weir_log::repair_is_noted(data)?;
    opened.log.on_poison(|reason| {
        // Whatever was under way has an unknown outcome; only a fresh start finds out.
        hint!("error: the log stopped: {reason}; restart to recover");
        std::process::exit(EXIT_POISONED);
    });
    let mut place = match (opened.known, first.join) {
        (Some(place), _) => place,
        (None, None) => {
            let members = weir_broker::members_in(&opened.log, site::GROUP);
            let own = identity.fingerprint().to_string();
            site::found(data, site_name(&identity), &own, &members)?
        }
        (None, Some(_)) if !opened.recovered.groups.is_empty() => bail!(
            "`{}` has records of its own: a node joins a site with an empty directory",
            data.display()
        ),
        (None, Some((addr, token))) => site::join(data, &peers, &addr, &token, &member).await?,
    };
    let (broker, recovered) =
        open_broker(opened.log, opened.recovered, &place, &member, &peers, &settings).await?;
    let pipelines = open_pipelines(&broker, data)?;
    let services = Arc::new(Services {
        broker: broker.clone(),
        pipelines: pipelines.clone(),
        start: Start {
            version: env!("CARGO_PKG_VERSION"),
            identity: identity.fingerprint().to_string(),
            begun,
            lost: recovered.damage.lost.clone(),
            notes: recovered.damage.notes.clone(),
        },
    });

    broker.starts().remember(&place.others_started);
    let site_id = place.site.clone();
    // Another, if this node was let in again.
    let start = opened.start.filter(|start| start.node == place.node);
    let start = start.unwrap_or_else(|| starts::count(data, &mut place, &member, run));
    if !is_full {
        ballast.take_if_room();
    }
    let offsets_retention = Duration::from_secs(settings.offsets_retention_minutes.0 * 60);
    let mut tasks = Tasks::default();
    tasks.spawn(stop_when_replaced(broker.clone(), peers.clone(), start));
    tasks.spawn(heap::give_back(broker.clone()));
    tasks.spawn(tick_groups(broker.clone()));
    tasks.spawn(keep_room(broker.clone(), ballast, offsets_retention));
    let (watching, dir) = (broker.clone(), data.to_owned());
    tasks.spawn(async move { keep::keep(watching, dir, place, member).await });
    let on_node = on_node(&broker, &peers);
    tasks.spawn(weir_quic::serve(
        Arc::clone(&listeners.quic),
        Arc::clone(&services),
        on_node,
    ));
    if let Some(listener) = listeners.kafka {
        let kafka = kafka_settings(&settings, site_id, data);
        tasks.spawn(weir_kafka::serve(listener, broker.clone(), kafka));
    }
    let stop = Arc::new(Notify::new());
    let stopping = Arc::clone(&stop);
    let names = settings.http_names.0.iter().chain(&settings.host.0);
    let http = weir_http::Settings {
        names: names.cloned().collect(),
    };
    let stopped = Box::pin(async move { stopping.notified().await });
    let http = tokio::spawn(weir_http::serve(listeners.http, services, http, stopped));
    let kafka = listeners
        .kafka_addr
        .map_or_else(|| "off".to_owned(), |addr| addr.to_string());
    tracing::info!(
        quic = %listeners.quic_addr,
        http = %listeners.http_addr,
        %kafka,
        data = %data.display(),
        took_ms = begun.elapsed().as_millis() as u64,
        "ready"
    );

    stop_signal().await?;
    tracing::info!("stopping");
    drop(tasks);
    listeners.quic.close().await;
    stop.notify_one();
    // Requests that wait for records would hold the shutdown up for as long as they like.
    let _ = tokio::time::timeout(LAST_ANSWERS_WITHIN, http).await;
    let closing = std::thread::spawn(move || {
        pipelines.close();
        broker.close();
    });
    let _ = closing.join();
    tracing::info!("stopped");
    Ok(())
}

/// Returns true for a witness. The role is fixed when the node joins; `first` decides before.
fn role(data: &Path, known: Option<&Place>, first: &FirstStart) -> Result<bool> {
    let witness = known.map_or(first.witness, |place| place.witness);
    if first.witness && !witness {
        bail!(
            "`{}` is a node that keeps records: a witness joins with an empty directory",
            data.display()
        );
    }
    if witness && known.is_none() && first.join.is_none() {
        bail!("a witness judges between others: it needs `--join HOST:PORT --token TOKEN`");
    }
    Ok(witness)
}

fn log_options(settings: &Settings, witness: bool) -> weir_log::Options {
    weir_log::Options {
        cache_bytes: settings.cache_bytes.0,
        memtable_bytes: settings.memtable_bytes.0,
        journal_bytes: settings.journal_bytes.0,
        value_log_from_bytes: settings.value_log_from_bytes.0 as usize,
        value_file_bytes: settings.value_file_bytes.0,
        disk_reserve_bytes: settings.disk_reserve_bytes.given(),
        headers_only: witness,
        only_whole: false,
    }
}

/// The log on its way to being open: alone, then with the consent of the other nodes.
struct Opening<'a> {
    data: &'a Path,
    options: weir_log::Options,
    known: Option<Place>,
}

/// An open log, and the place of the node in its site so far.
struct Opened {
    log: Log,
    recovered: Recovered,
    known: Option<Place>,
    /// The start that was counted, where other nodes had to be asked.
    start: Option<Started>,
}

impl Opening<'_> {
    /// Opens the log. Returns `None` when the damage is too large for a member of a site: the node has to rejoin.
    fn log(mut self) -> Result<(Self, Option<(Log, Recovered)>)> {
        let opened = Log::open(self.data, &self.options);
        let opened = match &mut self.known {
            Some(place) => site::admit(self.data, place, opened)?,
            None => Some(opened?),
        };
        Ok((self, opened))
    }

    /// Asks the other nodes whether this directory is the newest of the node, and rejoins where it is not.
    async fn confirmed(
        mut self,
        opened: Option<(Log, Recovered)>,
        peers: &Peers,
        member: &Member,
        run: [u8; 16],
    ) -> Result<Opened> {
        let data = self.data;
        let mut start = None;
        let opened = match &mut self.known {
            Some(place) if place.members > 1 => {
                let start = start.insert(starts::count(data, place, member, run));
                starts::confirm(data, place, peers, start, opened).await?
            }
            _ => opened,
        };
        let (log, recovered) = match opened {
            Some(opened) => opened,
            None => {
                if let Some(place) = &mut self.known {
                    *place = site::rejoin(data, peers, place, member).await?;
                }
                Log::open(data, &self.options)?
            }
        };
        Ok(Opened {
            log,
            recovered,
            known: self.known,
            start,
        })
    }
}

/// Opens the broker on `log`. A node that stands alone leads when this returns, or its disk is slow.
async fn open_broker(
    log: Log,
    recovered: Recovered,
    place: &Place,
    member: &Member,
    peers: &Peers,
    settings: &Settings,
) -> Result<(Broker, Recovered)> {
    let options = weir_broker::Options {
        linger: Duration::from_millis(settings.linger_ms.0),
        disk_budget_bytes: settings.disk_budget_bytes.given(),
        quotas: QuotaConfig {
            produce_bytes_per_s: settings.produce_bytes_per_s.given(),
            fetch_bytes_per_s: settings.fetch_bytes_per_s.given(),
        },
        group_initial_delay: group_initial_delay(settings),
        means: Means {
            files: means::files(),
            modules_bytes: settings
                .modules_memory_bytes
                .given()
                .unwrap_or_else(|| means::memory() / 2),
        },
    };
    // A founder that has entries is a member as any other.
    let is_new = place.founder && !place.active;
    let founders = is_new.then(|| (place.node, member.clone()));
    let group = GroupConfig {
        id: site::GROUP,
        node: place.node,
        member: member.clone(),
        founders: founders.into_iter().collect(),
        timing: settings.timing.timing(),
    };
    let clock = Arc::new(SystemClock);
    let broker = Broker::open(log, &recovered, group, Arc::new(peers.clone()), clock, options).await?;
    if !broker.group().members().contains_key(&place.node) {
        // The node does not know the members yet.
        peers.trust(place.others.values().map(|m| m.key.clone()));
    }
    if broker.group().members().len() <= 1 && place.founder {
        broker.serving_within(ALONE_WITHIN).await;
    }
    Ok((broker, recovered))
}

/// Opens the pipelines, and puts the in-line ones before the log.
fn open_pipelines(broker: &Broker, data: &Path) -> Result<Pipelines> {
    let runtime = Runtime::new(RuntimeOptions {
        cache_dir: Some(data.join("cache")),
        compile: CompileBy::Child(std::env::current_exe()?, vec!["compile-component".to_owned()]),
        random: random_key,
        memory: Arc::clone(&broker.ledger().modules),
    })?;
    let pipelines = Pipelines::open(broker.clone(), runtime, data.join("modules"))?;
    broker.set_hook(Arc::new(pipelines.clone()) as Arc<dyn Hook>);
    Ok(pipelines)
}

/// Connections of other nodes, which come in at the QUIC port among all others.
fn on_node(broker: &Broker, peers: &Peers) -> weir_quic::OnNode {
    let (known, members) = (peers.clone(), broker.clone());
    let places = broker.clone();
    let (serving, peers) = (broker.clone(), peers.clone());
    weir_quic::OnNode {
        is_member: Box::new(move |key| known.knows(key, members.group())),
        is_at: Box::new(move |from| places.has_node_at(from)),
        serve: Box::new(move |peer| {
            let (broker, peers) = (serving.clone(), peers.clone());
            Box::pin(async move { peers.accept(peer, Arc::new(broker)).await })
        }),
    }
}

fn kafka_settings(settings: &Settings, cluster_id: String, data: &Path) -> weir_kafka::Settings {
    weir_kafka::Settings {
        advertise: settings.advertise.0.clone(),
        cluster_id,
        data_dir: data.display().to_string(),
        auto_create: settings.auto_create_topics.0,
        default_partitions: settings.default_partitions.0 as u32,
        group_initial_delay: group_initial_delay(settings),
        offsets_retention_ms: settings.offsets_retention_minutes.0 as i64 * 60_000,
    }
}

fn group_initial_delay(settings: &Settings) -> Duration {
    Duration::from_millis(settings.group_initial_rebalance_delay_ms.0)
}

/// Tells the other nodes of this start, and ends the process when one of them knows a newer start of the same node.
async fn stop_when_replaced(broker: Broker, peers: Peers, start: Started) {
    let reason = starts::keep_telling(&broker, &peers, start).await;
    hint!(
        "error: {reason}: a node has one directory and one process, and this one stops. Start it from its newest \
         directory, or from an empty one with `--join`"
    );
    std::process::exit(EXIT_POISONED);
}

async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    // The terminal of the node is gone. Under `nohup` the node goes on.
    let mut hangup = match ignores_hangup() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let hung_up = async {
        match &mut hangup {
            Some(hangup) => drop(hangup.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = tokio::signal::ctrl_c() => Ok(result?),
        _ = terminate.recv() => Ok(()),
        () = hung_up => Ok(()),
    }
}

/// Returns true if this process ignores SIGHUP, by the mask in `/proc`: the first bit stands for signal 1.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

fn report(recovered: &Recovered, log: &Log) {
    let Recovered {
        clean,
        unapplied,
        torn_bytes,
        frames_repaired,
        ..
    } = recovered;
    tracing::info!(
        clean,
        unapplied,
        torn_bytes,
        frames_repaired,
        epoch = log.epoch(),
        "log is open"
    );
    if !recovered.damage.is_none() {
        tracing::error!("the log was damaged: {}", recovered.damage);
    }
}

/// How others reach this node.
fn member(settings: &Settings, identity: &Identity, listeners: &Listeners) -> Member {
    let host = |bound: SocketAddr| match (&settings.host.0, bound.ip().is_unspecified()) {
        (Some(host), _) => host.clone(),
        (None, false) => bound.ip().to_string(),
        (None, true) => site::own_address().map_or_else(|| bound.ip().to_string(), |ip| ip.to_string()),
    };
    let at = |bound: SocketAddr| {
        let host = host(bound);
        match host.contains(':') {
            true => format!("[{host}]:{}", bound.port()),
            false => format!("{host}:{}", bound.port()),
        }
    };
    Member {
        key: identity.fingerprint().to_string(),
        quic: at(listeners.quic_addr),
        http: at(listeners.http_addr),
        kafka: match (&settings.advertise.0, listeners.kafka_addr) {
            (Some((host, port)), Some(_)) => format!("{host}:{port}"),
            (None, Some(bound)) => at(bound),
            (_, None) => String::new(),
        },
        rack: settings.rack.0.clone(),
        witness: false,
    }
}

/// What sites, and Kafka clusters, are told apart by: 22 characters, as Kafka's own, of the founder's fingerprint.
fn site_name(identity: &Identity) -> String {
    let fingerprint = identity.fingerprint().to_string();
    fingerprint
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(22)
        .collect()
}

fn random_key() -> std::io::Result<[u8; 32]> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(key)
}
