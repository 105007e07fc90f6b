//! End to end: over QUIC to a node of its own, acknowledged after the sync, the client on the same machine.

use crate::log::batch;
use crate::node::Node;
use crate::{Setup, Table, quantile};
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use weir_client::{Client, Offset, Piece, Sent};

/// Bytes of batches under way.
const WINDOW_BYTES: usize = 4 << 20;
const WINDOW_BATCHES_MAX: usize = 512;

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for (bytes, records) in [
            (128, 1),
            (128, 100),
            (128, 1_000),
            (1_024, 1),
            (1_024, 100),
            (1_024, 1_000),
        ] {
            let all = if records == 1 { 50_000 } else { 1_000_000 } * 128 / bytes as u64 / setup.less;
            let node = Node::start(setup, &[])?;
            let client = node.client().await?;
            client.create_topic("t", 1, &[]).await?;
            let batches = (all / records as u64).max(10);
            let rate = flood(&client, "t", records, bytes, batches).await? * records as f64;
            let what = format!("produce over QUIC, {bytes} B, batches of {records}");
            if (bytes, records) == (128, 1_000) {
                let (device, payload) = (node.written_bytes()?, (batches * records as u64) as f64 * 128.0);
                table.add(
                    what,
                    rate,
                    "records/s",
                    format!("peak RSS {:.0} MiB", node.peak_rss_mib()?),
                );
                table.add("bytes to the device per payload byte", device / payload, "", "");
                fetch(&client, batches * records as u64, table).await?;
            } else {
                table.add(what, rate, "records/s", "");
            }
            client.close().await;
        }
        filtered(setup, table).await?;
        singles(setup, table).await
    })
}

/// Batches a second, all acknowledged.
pub(crate) async fn flood(
    client: &Client,
    topic: &str,
    records: usize,
    bytes: usize,
    batches: u64,
) -> Result<f64> {
    let payload = batch(records, bytes, 1);
    let window = (WINDOW_BYTES / payload.bytes().len()).clamp(4, WINDOW_BATCHES_MAX);
    let mut producer = client.producer().await?;
    let mut waiting: VecDeque<Sent> = VecDeque::new();
    let begun = Instant::now();
    for _ in 0..batches {
        waiting.push_back(producer.send(topic, 0, &payload).await?);
        if waiting.len() >= window
            && let Some(first) = waiting.pop_front()
        {
            first.done().await?;
        }
    }
    for sent in waiting {
        sent.done().await?;
    }
    Ok(batches as f64 / begun.elapsed().as_secs_f64())
}

async fn fetch(client: &Client, want: u64, table: &mut Table) -> Result<()> {
    let mut fetcher = client.fetcher().await?;
    let (mut from, mut records) = (Offset::ZERO, 0);
    let begun = Instant::now();
    loop {
        let fetched = fetcher.fetch("t", 0, from, 1 << 20, Duration::ZERO).await?;
        for piece in fetched.pieces {
            match piece {
                Piece::Batch(batch) => records += u64::from(batch.count()),
                Piece::Gap(gap) => bail!("records are missing: {gap:?}"),
            }
        }
        if fetched.next == fetched.committed_end {
            break;
        }
        from = fetched.next;
    }
    if records != want {
        bail!("{records} records of {want} came back");
    }
    table.add(
        "fetch over QUIC, 128 B",
        records as f64 / begun.elapsed().as_secs_f64(),
        "records/s",
        "all came back",
    );
    Ok(())
}

async fn filtered(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    client.create_topic("t", 1, &[]).await?;
    let module = std::fs::read(setup.modules.join("weir_module_threshold.wasm"))?;
    client.push_module("threshold", "1", &module).await?;
    let pipeline = "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"threshold\"\n\
                    config = { field = \"temperature\", limit = 60 }\n";
    client.apply_pipeline(pipeline).await?;
    table.add("RSS with one pipeline, idle", node.rss_mib()?, "MiB", "");
    let rate = flood(&client, "t", 1_000, 128, 1_000 / setup.less).await? * 1_000.0;
    let peak = node.peak_rss_mib()?;
    table.add(
        "the same through an in-line filter",
        rate,
        "records/s",
        format!("peak RSS {peak:.0} MiB"),
    );
    client.close().await;
    Ok(())
}

/// One record every millisecond.
async fn singles(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    client.create_topic("t", 1, &[]).await?;
    let mut times = paced(&client, "t", 10_000 / setup.less).await?;
    for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        table.add(
            format!("single records at 1,000/s, acknowledged, {name}"),
            quantile(&mut times, q),
            "ms",
            "",
        );
    }
    client.close().await;
    Ok(())
}

/// Times from sending to acknowledgement of `count` records, a millisecond apart.
pub(crate) async fn paced(client: &Client, topic: &str, count: u64) -> Result<Vec<Duration>> {
    let mut producer = client.producer().await?;
    let payload = batch(1, 128, 1);
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut waiting = Vec::new();
    for _ in 0..count {
        ticks.tick().await;
        let begun = Instant::now();
        let sent = producer.send(topic, 0, &payload).await?;
        waiting.push(tokio::spawn(
            async move { sent.done().await.map(|_| begun.elapsed()) },
        ));
    }
    let mut times = Vec::new();
    for task in waiting {
        times.push(task.await??);
    }
    Ok(times)
}
