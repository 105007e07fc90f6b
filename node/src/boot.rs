//! Building the layers bottom-up, running them, and taking them down top-down.

use crate::ballast::Ballast;
use crate::config::Config;
use crate::heap;
use crate::keep::{self, EXIT_POISONED};
use crate::means;
use crate::site;
use crate::starts;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use weir_broker::{Broker, GroupConfig, Hook, Means, Member, NamedGap, Peers, QuotaConfig, Why};
use weir_log::{Log, Recovered};
use weir_peer::Identity;
use weir_pipeline::{Pipelines, Services};
use weir_runtime::{CompileBy, Runtime, RuntimeOptions};
use weir_types::{PartitionId, SystemClock, TopicName};

/// Of those looks, how many to one for whether another node should lead because this one's disk is full.
const MAKE_WAY_EVERY: u32 = 3;
/// And how long until it hands over again: where all disks are full, the lead goes round no faster.
const MAKE_WAY_AGAIN: Duration = Duration::from_secs(60);
/// How often old records are looked for; Kafka looks every five minutes.
const RETAIN_EVERY: u32 = 30;
/// How often the disk budget is looked at: a second of the fastest load fits in the slack of one eviction or two.
const BUDGET_EVERY: Duration = Duration::from_secs(1);
/// A node that stands alone is ready when it leads: its disk takes a few syncs for that.
const ALONE_WITHIN: Duration = Duration::from_secs(30);
/// How often sessions and rebalances of consumer groups are looked at: a tenth of what a client notices.
const GROUPS_EVERY: Duration = Duration::from_millis(100);

/// Runs a node until it is told to stop.
pub(crate) async fn serve(data: &Path, config: Config) -> Result<()> {
    let begun = Instant::now();
    // A file that grows beyond a limit of the system is an error of that file, and told; without a handler it would be the end.
    let xfsz = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    let _beyond = tokio::signal::unix::signal(xfsz)?;
    crate::ownership::keep_to_ourselves();
    crate::ownership::take(data)?;
    let ballast = Ballast::of(data);
    let is_full = ballast.let_go_if_full()?;
    let mut known = site::load(data)?;
    let witness = known.as_ref().map_or(config.witness, |place| place.witness);
    if config.witness && !witness {
        bail!(
            "`{}` is a node that keeps records: a witness joins with an empty directory",
            data.display()
        );
    }
    if witness && known.is_none() && config.join.is_none() {
        bail!("a witness judges between others: it needs `--join HOST:PORT --token TOKEN`");
    }
    let log_options = weir_log::Options {
        cache_bytes: config.cache_bytes,
        memtable_bytes: config.memtable_bytes,
        journal_bytes: config.journal_bytes,
        value_log_from_bytes: config.value_log_from_bytes,
        value_file_bytes: config.value_file_bytes,
        disk_reserve_bytes: config.disk_reserve_bytes,
        headers_only: witness,
        only_whole: false,
    };
    let opened = Log::open(data, &log_options);
    // Before anything else can fail: the log is whole again at the next start, and would not tell.
    let opened = match &mut known {
        Some(place) => site::admit(data, place, opened)?,
        None => Some(opened?),
    };
    let options = weir_broker::Options {
        linger: config.linger,
        disk_budget_bytes: config.disk_budget_bytes,
        quotas: QuotaConfig {
            produce_bytes_per_s: config.produce_bytes_per_s,
            fetch_bytes_per_s: config.fetch_bytes_per_s,
        },
        group_initial_delay: config.group_initial_delay,
        means: Means {
            files: means::files(),
            modules_bytes: config.modules_memory_bytes.unwrap_or_else(|| means::memory() / 2),
        },
    };
    let identity = Arc::new(Identity::load_or_make(data)?);
    let listener = Arc::new(weir_peer::listen(config.quic, &identity)?);
    let quic_addr = listener.local_addr().unwrap_or(config.quic);
    let http_listener = tokio::net::TcpListener::bind(config.http).await;
    let http_listener = http_listener.with_context(|| format!("cannot listen on {}", config.http))?;
    let http_addr = http_listener.local_addr()?;
    let kafka_listener = match config.kafka.filter(|_| !witness) {
        Some(addr) => {
            let bound = tokio::net::TcpListener::bind(addr).await;
            Some(bound.with_context(|| {
                format!("cannot listen on {addr} for Kafka clients; `--kafka off` starts without")
            })?)
        }
        None => None,
    };
    let kafka_bound = kafka_listener.as_ref().map(|l| l.local_addr()).transpose()?;
    let kafka_addr = kafka_bound.map_or_else(|| "off".to_owned(), |a| a.to_string());
    let member = Member {
        witness,
        ..member(&config, &identity, quic_addr, http_addr, kafka_bound)
    };
    let peers = Peers::new(Arc::clone(&listener), Arc::clone(&identity));
    let run = random_key()?.first_chunk().copied().unwrap_or_default();
    let mut told = None;
    let opened = match &mut known {
        Some(place) if place.members > 1 => {
            let told = told.insert(starts::count(data, place, &member, run));
            starts::confirm(data, place, &peers, told, opened).await?
        }
        _ => opened,
    };
    let (log, recovered) = match opened {
        Some(opened) => opened,
        None => {
            if let Some(place) = &mut known {
                *place = site::rejoin(data, &peers, place, &member).await?;
            }
            Log::open(data, &log_options)?
        }
    };
    report(&recovered, &log);
    weir_log::repair_is_noted(data)?;
    log.on_poison(|reason| {
        // Whatever was under way has an unknown outcome; only a fresh start finds out.
        hint!("error: the log stopped: {reason}; restart to recover");
        std::process::exit(EXIT_POISONED);
    });
    let mut place = match (known, &config.join) {
        (Some(place), _) => place,
        (None, None) => {
            let members = weir_broker::members_in(&log, site::GROUP);
            let own = identity.fingerprint().to_string();
            site::found(data, site_name(&identity), &own, &members)?
        }
        (None, Some(_)) if !recovered.groups.is_empty() => bail!(
            "`{}` has records of its own: a node joins a site with an empty directory",
            data.display()
        ),
        (None, Some((addr, token))) => site::join(data, &peers, addr, token, &member).await?,
    };
    let group = GroupConfig {
        id: site::GROUP,
        node: place.node,
        member: member.clone(),
        // Once it has entries, it is as any other.
        founders: match place.founder && !place.active {
            true => BTreeMap::from([(place.node, member.clone())]),
            false => BTreeMap::new(),
        },
        timing: config.timing,
    };
    let clock = Arc::new(SystemClock);
    let broker = Broker::open(log, &recovered, group, Arc::new(peers.clone()), clock, options).await?;
    if !broker.group().members().contains_key(&place.node) {
        // It is not so far yet that it knows the members itself.
        peers.trust(place.others.values().map(|m| m.key.clone()));
    }
    if broker.group().members().len() <= 1 && place.founder {
        broker.serving_within(ALONE_WITHIN).await;
    }
    let runtime = Runtime::new(RuntimeOptions {
        cache_dir: Some(data.join("cache")),
        compile: CompileBy::Child(std::env::current_exe()?, vec!["compile-component".to_owned()]),
        random: random_key,
        memory: Arc::clone(&broker.ledger().modules),
    })?;
    let pipelines = Pipelines::open(broker.clone(), runtime, data.join("modules"))?;
    broker.set_hook(Arc::new(pipelines.clone()) as Arc<dyn Hook>);
    let closing_pipelines = pipelines.clone();
    let status = status(&broker, &pipelines, &recovered, &identity, begun);
    let services = Arc::new(Services {
        broker: broker.clone(),
        pipelines,
        status,
    });

    let stop = Arc::new(Notify::new());
    broker.starts().remember(&place.others_started);
    let peers_to_tell = peers.clone();
    let (serving, peers) = (broker.clone(), peers);
    let (known, members, places) = (peers.clone(), broker.clone(), broker.clone());
    let on_node = weir_quic::OnNode {
        is_member: Box::new(move |key| known.knows(key, members.group())),
        is_at: Box::new(move |from| places.has_node_at(from)),
        serve: Box::new(move |peer| {
            let (broker, peers) = (serving.clone(), peers.clone());
            Box::pin(async move { peers.accept(peer, Arc::new(broker)).await })
        }),
    };
    let quic = tokio::spawn(weir_quic::serve(
        Arc::clone(&listener),
        Arc::clone(&services),
        on_node,
    ));
    let site_id = place.site.clone();
    // Another, if this node was let in again.
    let told = told.filter(|told| told.node == place.node);
    let told = told.unwrap_or_else(|| starts::count(data, &mut place, &member, run));
    let (telling, told_peers) = (broker.clone(), peers_to_tell);
    let telling = tokio::spawn(async move {
        let what = starts::keep_telling(&telling, &told_peers, told).await;
        hint!(
            "error: {what}: a node has one directory and one process, and this one stops. Start it from its newest \
             directory, or from an empty one with `--join`"
        );
        std::process::exit(EXIT_POISONED);
    });
    let (watching, dir) = (broker.clone(), data.to_owned());
    let site_task = tokio::spawn(async move { keep::keep(watching, dir, place, member).await });
    let stopping = Arc::clone(&stop);
    let settings = weir_http::Settings {
        names: config.http_names.iter().chain(&config.host).cloned().collect(),
    };
    let http = tokio::spawn(weir_http::serve(http_listener, services, settings, async move {
        stopping.notified().await
    }));
    let offsets_retention_ms = config.offsets_retention.as_millis() as i64;
    let kafka = kafka_listener.map(|listener| {
        let settings = weir_kafka::Settings {
            advertise: config.advertise.clone(),
            cluster_id: site_id,
            data_dir: data.display().to_string(),
            auto_create: config.auto_create_topics,
            default_partitions: config.default_partitions,
            group_initial_delay: config.group_initial_delay,
            offsets_retention_ms,
        };
        tokio::spawn(weir_kafka::serve(listener, broker.clone(), settings))
    });
    let ticking = broker.clone();
    let groups = tokio::spawn(async move {
        loop {
            let pause = if ticking.tick_groups().await {
                GROUPS_EVERY
            } else {
                GROUPS_EVERY * 10
            };
            tokio::time::sleep(pause).await;
        }
    });
    let giving_back = tokio::spawn(heap::give_back(broker.clone()));
    let retaining = broker.clone();
    if !is_full {
        ballast.take_if_room();
    }
    let retain = tokio::spawn(async move {
        let mut made_way: Option<Instant> = None;
        for tick in 1u32.. {
            tokio::time::sleep(BUDGET_EVERY).await;
            ballast.let_go_if_nothing_is_left();
            retaining.keep_within_budget().await;
            let may_again = made_way.is_none_or(|at| at.elapsed() > MAKE_WAY_AGAIN);
            if tick % MAKE_WAY_EVERY == 0 && may_again && retaining.make_way_if_full().await {
                made_way = Some(Instant::now());
            }
            if tick % RETAIN_EVERY == 0 {
                retaining.retain().await;
                ballast.take_if_room();
                retaining.expire_offsets(offsets_retention_ms).await;
            }
        }
    });
    let took_ms = begun.elapsed().as_millis() as u64;
    tracing::info!(quic = %quic_addr, http = %http_addr, kafka = %kafka_addr, data = %data.display(), took_ms, "ready");

    stop_signal().await?;
    tracing::info!("stopping");
    retain.abort();
    giving_back.abort();
    site_task.abort();
    telling.abort();
    groups.abort();
    if let Some(kafka) = kafka {
        kafka.abort();
    }
    quic.abort();
    listener.close().await;
    stop.notify_one();
    // Requests that wait for records would hold the shutdown up for as long as they like.
    let _ = tokio::time::timeout(Duration::from_secs(2), http).await;
    let closing = std::thread::spawn(move || {
        closing_pipelines.close();
        broker.close();
    });
    let _ = closing.join();
    tracing::info!("stopped");
    Ok(())
}

async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    // The terminal that it was started from is gone. Under `nohup` it is to go on.
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

/// Whether whoever started this process has it ignore SIGHUP, by the mask that Linux shows: its first bit stands for signal 1.
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

fn status(
    broker: &Broker,
    pipelines: &Pipelines,
    recovered: &Recovered,
    identity: &Identity,
    begun: Instant,
) -> weir_pipeline::NodeStatus {
    let (broker, pipelines) = (broker.clone(), pipelines.clone());
    let damage = recovered.damage.clone();
    let fingerprint = identity.fingerprint().to_string();
    Box::new(move || {
        let usage = broker.log().usage();
        let topics = broker.topics();
        let states: Vec<Value> = pipelines
            .pipelines()
            .iter()
            .map(|p| json!({ "name": p.name, "source": p.source, "state": p.state, "records_in": p.records_in }))
            .collect();
        let shares: Vec<Value> = pipelines
            .standings()
            .iter()
            .map(|s| json!({ "share": s.share, "of": s.resource.name(), "used": s.used, "max": s.max, "refused": s.refused }))
            .collect();
        let named: BTreeMap<PartitionId, (TopicName, u32)> = topics
            .iter()
            .flat_map(|topic| {
                let named = (0..).map(|index| (topic.name.clone(), index));
                topic.partitions.iter().copied().zip(named)
            })
            .collect();
        let lost = damage.lost.iter().map(|(p, gap)| NamedGap::of(&named, *p, gap));
        let lost: Vec<NamedGap> = lost.collect();
        let marks = named.keys().filter_map(|p| Some((*p, broker.log().marks(*p)?)));
        let damaged: Vec<NamedGap> = marks
            .flat_map(|(p, marks)| {
                let ranges = marks.damaged().into_iter();
                ranges
                    .map(|gap| NamedGap::of(&named, p, &gap))
                    .collect::<Vec<_>>()
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "identity": fingerprint,
            "site": broker.site(),
            "level": broker.level(),
            "group": broker.group().status(),
            "groups": broker.replica_groups(),
            "serving": broker.is_serving(),
            "uptime_s": begun.elapsed().as_secs(),
            "epoch": broker.log().epoch(),
            "topics": topics.len(),
            "partitions": topics.iter().map(|t| t.partitions.len()).sum::<usize>(),
            "lazy_topics": topics
                .iter()
                .filter(|t| t.config.durability == weir_broker::Durability::Lazy)
                .map(|t| t.name.to_string())
                .collect::<Vec<_>>(),
            "disk_bytes": usage.disk_bytes,
            "disk_free_bytes": usage.free_bytes,
            "disk_reserve_bytes": usage.reserve_bytes,
            "accepting": usage.free_bytes >= usage.reserve_bytes && broker.log().poisoned().is_none(),
            "removed": {
                "age": broker.metrics().removed(Why::Age).load(Ordering::Relaxed),
                "size": broker.metrics().removed(Why::Size).load(Ordering::Relaxed),
                "budget": broker.metrics().removed(Why::Budget).load(Ordering::Relaxed),
            },
            "syncs": usage.syncs,
            "written_bytes": usage.written_bytes,
            "shares": shares,
            "pipelines": states,
            "damaged": damaged,
            "lost_at_start": lost,
            "notes_at_start": damage.notes,
        })
    })
}

/// How others reach this node.
fn member(
    config: &Config,
    identity: &Identity,
    quic: SocketAddr,
    http: SocketAddr,
    kafka: Option<SocketAddr>,
) -> Member {
    let host = |bound: SocketAddr| match (&config.host, bound.ip().is_unspecified()) {
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
        quic: at(quic),
        http: at(http),
        kafka: match (&config.advertise, kafka) {
            (Some((host, port)), Some(_)) => format!("{host}:{port}"),
            (None, Some(bound)) => at(bound),
            (_, None) => String::new(),
        },
        rack: config.rack.clone(),
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
