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
        singles(setup, table).await?;
        neighbours(setup, table).await
    })
}

/// Batches a second, all acknowledged.
async fn flood(client: &Client, topic: &str, records: usize, bytes: usize, batches: u64) -> Result<f64> {
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
async fn paced(client: &Client, topic: &str, count: u64) -> Result<Vec<Duration>> {
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

/// What a pipeline notices of a hostile neighbour, in the same run on the same node.
async fn neighbours(setup: &Setup, table: &mut Table) -> Result<()> {
    // The client shares the cores with the node here: what it waits for them is not the node's doing.
    weir_pipeline::Slice::Short.ask();
    let count = 10_000 / setup.less;
    for (mode, what) in [
        ("loop-on-bad", "loops"),
        ("trap-on-bad", "traps"),
        ("memory", "grows memory"),
        ("log-flood", "floods logs"),
        ("short-routes", "returns lies"),
    ] {
        let node = Node::start(setup, &[])?;
        let client = node.client().await?;
        let threshold = std::fs::read(setup.modules.join("weir_module_threshold.wasm"))?;
        client.push_module("threshold", "1", &threshold).await?;
        client
            .push_module("hostile", "1", &std::fs::read(&setup.hostile)?)
            .await?;
        for topic in ["good", "bad"] {
            client.create_topic(topic, 1, &[]).await?;
        }
        let good = "name = \"good\"\nsource = \"good\"\n[[stages]]\nmodule = \"threshold\"\n\
                    config = { field = \"temperature\", limit = 60 }\n";
        client.apply_pipeline(good).await?;
        let bad = format!(
            "name = \"bad\"\nsource = \"bad\"\non_error = {{ policy = \"skip\" }}\n\
             limits = {{ deadline_ms = 20 }}\n[[stages]]\nmodule = \"hostile\"\nconfig = {{ mode = \"{mode}\" }}\n"
        );
        client.apply_pipeline(&bad).await?;
        let mut alone = paced(&client, "good", count).await?;
        let neighbour = node.client().await?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let busy = tokio::spawn(async move {
            let mut builder = weir_client::BatchBuilder::new(weir_client::Codec::None);
            for i in 0..20 {
                let value = if i == 7 { "bad" } else { "fine" };
                builder.push(0, None, Some(value.as_bytes()), weir_types::Headers::NONE);
            }
            let payload = builder.build(Offset::ZERO, None)?;
            let mut producer = neighbour.producer().await?;
            let mut answered = 0u64;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                // A halted or skipped batch is an answer as well: what counts is that it keeps the module at it.
                let _ = producer.send("bad", 0, &payload).await?.done().await;
                answered += 1;
            }
            anyhow::Ok(answered)
        });
        let mut beside = paced(&client, "good", count).await?;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let answered = busy.await??;
        let (before, after) = (quantile(&mut alone, 0.99), quantile(&mut beside, 0.99));
        table.add(
            format!("p99 beside a pipeline that {what}"),
            after / before,
            "times",
            format!("{before:.2} ms alone, {after:.2} ms beside {answered} bad batches"),
        );
        client.close().await;
    }
    Ok(())
}
