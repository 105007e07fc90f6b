//! Append through the log, beside the same bytes in a plain file with the same syncs.

use crate::{Setup, Table, quantile};
use anyhow::Result;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use weir_broker::{Broker, Framing, GroupConfig, Member, NodeId, Options, Principal, Timing};
use weir_log::{Entry, Log, Op};
use weir_types::{Batch, BatchBuilder, Codec, GroupId, Offset, PartitionId, SystemClock, Term};

/// Bytes a sync, for both.
const SYNC_BYTES: usize = 512 << 10;

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let dir = tempfile::tempdir_in(&setup.dir)?;
    let total = (256 << 20) / setup.less as usize;
    let payload = batch(SYNC_BYTES / 136, 128, 0);
    let rounds = total / payload.bytes().len();
    // In turns, twice, because the machine is not always the same.
    let (mut plain, mut through) = (0.0, 0.0);
    for turn in 0..2 {
        plain += file(&dir.path().join(format!("plain{turn}")), payload.bytes(), rounds)?;
        through += append(&dir.path().join(format!("log{turn}")), &payload, rounds)?;
    }
    let (plain, through) = (plain / 2.0, through / 2.0);
    table.add("plain file, 512 KiB a sync", plain, "MiB/s", "");
    let ratio = 100.0 * through / plain;
    table.add(
        "append through the log, 512 KiB a sync",
        through,
        "MiB/s",
        format!("{ratio:.0} % of the plain file"),
    );
    let mut syncs = sync_times(&dir.path().join("sync"))?;
    table.add("one sync of 4 KiB, p50", quantile(&mut syncs, 0.5), "ms", "");

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    for (bytes, records) in [
        (128, 1),
        (128, 100),
        (128, 1_000),
        (1_024, 1),
        (1_024, 100),
        (1_024, 1_000),
    ] {
        let all =
            (if records == 1 { 50_000 } else { 1_000_000 } * 128 / bytes as u64 / setup.less).max(1_000);
        let dir = tempfile::tempdir_in(&setup.dir)?;
        let rate = runtime.block_on(broker(dir.path(), batch(records, bytes, 0), all / records as u64))?;
        table.add(
            format!("in-process produce, {bytes} B, batches of {records}"),
            rate * records as f64,
            "records/s",
            "synced",
        );
    }
    Ok(())
}

/// A batch of `records` records of `bytes` bytes that do not compress to nothing.
pub(crate) fn batch(records: usize, bytes: usize, seed: u64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    for i in 0..records {
        let mut value = format!(
            "{{\"id\":\"m{:03}\",\"temperature\":{}.{},\"pad\":\"",
            i % 100,
            i % 120,
            i % 10
        )
        .into_bytes();
        while value.len() + 2 < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            value.push(b'a' + (state >> 59) as u8 % 26);
        }
        value.extend_from_slice(b"\"}");
        let key = format!("m{:03}", i % 100);
        builder.push(
            i as i64,
            Some(key.as_bytes()),
            Some(&value),
            weir_types::Headers::NONE,
        );
    }
    builder
        .build(Offset::ZERO, None)
        .unwrap_or_else(|e| panic!("a batch of the bench: {e}"))
}

fn file(path: &Path, payload: &[u8], rounds: usize) -> Result<f64> {
    let mut file = File::create(path)?;
    // As the journal is: sized ahead.
    file.set_len((payload.len() * rounds) as u64)?;
    let begun = Instant::now();
    for _ in 0..rounds {
        file.write_all(payload)?;
        file.sync_data()?;
    }
    Ok(mib(payload.len() * rounds, begun.elapsed()))
}

fn append(dir: &Path, payload: &Batch, rounds: usize) -> Result<f64> {
    let (log, _) = Log::open(dir, &weir_log::Options::default())?;
    let (done, flushed) = mpsc::channel();
    // Stamped before: the proposer's copy is not the log's.
    let stamped: Vec<Batch> = (0..rounds as u64)
        .map(|n| payload.clone().at(Offset::new(1 + n * u64::from(payload.span()))))
        .collect();
    let begun = Instant::now();
    for (batch, index) in stamped.into_iter().zip(1..) {
        let ops = vec![Op::Append {
            partition: PartitionId(1),
            batch,
        }];
        let entry = Entry {
            group: GroupId(0),
            index,
            term: Term(1),
            lazy: false,
            ops,
        };
        let header = Arc::new(entry.header());
        let done = done.clone();
        log.append(entry, move |r| done.send(r).unwrap_or_default())?;
        // A sync for each entry, as with the file: without group commit.
        flushed.recv()??;
        log.apply(header);
    }
    let rate = mib(payload.bytes().len() * rounds, begun.elapsed());
    log.close();
    Ok(rate)
}

fn sync_times(path: &Path) -> Result<Vec<Duration>> {
    let mut file = File::create(path)?;
    file.set_len(4 << 20)?;
    let mut times = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        file.write_all(&[7; 4_096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

async fn broker(dir: &Path, payload: Batch, batches: u64) -> Result<f64> {
    let (log, recovered) = Log::open(dir, &weir_log::Options::default())?;
    let config = GroupConfig {
        id: GroupId(0),
        node: 1,
        member: Member::default(),
        founders: [(1, Member::default())].into(),
        timing: Timing::EDGE,
    };
    let (alone, clock) = (Arc::new(Alone), Arc::new(SystemClock));
    let broker = Broker::open(log, &recovered, config, alone, clock, Options::default()).await?;
    broker.serving_within(Duration::from_secs(10)).await;
    let who = Principal::anonymous("bench");
    broker.create_topic(&who, "t", 1, &[]).await?;
    let begun = Instant::now();
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..batches {
        waiting.push_back(
            broker
                .produce(&who, "t", 0, payload.clone(), Framing::Merge)
                .await?,
        );
        if waiting.len() >= 1_024
            && let Some(first) = waiting.pop_front()
        {
            first.await?;
        }
    }
    for producing in waiting {
        producing.await?;
    }
    let rate = batches as f64 / begun.elapsed().as_secs_f64();
    tokio::task::block_in_place(|| broker.close());
    Ok(rate)
}

fn mib(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()
}

/// The transport of a node that has no others.
struct Alone;

impl weir_broker::Transport for Alone {
    fn open(
        &self,
        node: NodeId,
        _: Member,
    ) -> futures_util::future::BoxFuture<'static, std::io::Result<weir_broker::Channel>> {
        Box::pin(async move { Err(std::io::Error::other(format!("there is no node {node}"))) })
    }

    fn suspect(&self, _: NodeId) {}
}
