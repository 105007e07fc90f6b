//! End to end: over QUIC to a node of its own, acknowledged after the sync, the client on the same machine.

use crate::log::batch;
use crate::node::Node;
use crate::{Setup, Table, quantile};
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use weir_client::{Batch, BatchBuilder, Client, Codec, Offset, Piece, Sent};

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
        windowed(setup, table).await?;
        fired(setup, table).await?;
        swapped(setup, table).await?;
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

/// Sends batches to `t`, some of them under way at a time, until all are acknowledged.
pub(crate) async fn send_all(client: &Client, batches: impl IntoIterator<Item = &Batch>) -> Result<()> {
    let mut producer = client.producer().await?;
    let mut waiting: VecDeque<Sent> = VecDeque::new();
    for batch in batches {
        waiting.push_back(producer.send("t", 0, batch).await?);
        if waiting.len() >= 32
            && let Some(first) = waiting.pop_front()
        {
            first.done().await?;
        }
    }
    for sent in waiting {
        sent.done().await?;
    }
    Ok(())
}

/// Keys among which records are spread where a module remembers them.
const KEYS: u64 = 1_000;

/// Builds a batch with a record for each key, a tenth of a second after the batch before.
pub(crate) fn of_all_keys(n: u64) -> Result<Batch> {
    let mut builder = BatchBuilder::new(Codec::None);
    for i in 0..KEYS {
        let key = format!("sensor-{:04}", (i * 617) % KEYS);
        let value = format!("{{\"v\":{}.5}}", (n * 31 + i) % 97);
        builder.push(
            (n * 100) as i64,
            Some(key.as_bytes()),
            Some(value.as_bytes()),
            weir_types::Headers::NONE,
        );
    }
    Ok(builder.build(Offset::ZERO, None)?)
}

/// The mean of each second of a thousand keys: each record changes its key's state, each tenth batch ends a
/// thousand windows.
async fn windowed(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    client.create_topic("t", 1, &[]).await?;
    let module = std::fs::read(setup.modules.join("weir_module_downsample.wasm"))?;
    client.push_module("downsample", "1", &module).await?;
    let pipeline = "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"downsample\"\ngrants = [\"state\", \"timers\"]\n\
                    config = { field = \"v\", every_ms = 1000 }\n";
    client.apply_pipeline(pipeline).await?;
    let batches = (0..1_000 / setup.less)
        .map(of_all_keys)
        .collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    send_all(&client, &batches).await?;
    table.add(
        format!("means of windows of a second, {KEYS} keys, batches of {KEYS}"),
        batches.len() as f64 * KEYS as f64 / begun.elapsed().as_secs_f64(),
        "records/s",
        format!("peak RSS {:.0} MiB", node.peak_rss_mib()?),
    );
    client.close().await;
    Ok(())
}

/// A million timers, due at once.
async fn fired(setup: &Setup, table: &mut Table) -> Result<()> {
    let timers = 1_000_000 / setup.less;
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    client.create_topic("t", 1, &[]).await?;
    let module = std::fs::read(setup.hostile.with_file_name("alarm.wasm"))?;
    client.push_module("alarm", "1", &module).await?;
    let pipeline = "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"alarm\"\ngrants = [\"timers\"]\n\
                    [limits]\nstate_bytes = 100663296\n";
    client.apply_pipeline(pipeline).await?;
    let mut producer = client.producer().await?;
    let mut send = async |from: u64, to: u64, at: i64| -> Result<()> {
        let mut builder = BatchBuilder::new(Codec::None);
        for n in from..to {
            let key = format!("k{n:08}");
            builder.push(at, Some(key.as_bytes()), None, weir_types::Headers::NONE);
        }
        let batch = builder.build(Offset::ZERO, None)?;
        Ok(producer.send("t", 0, &batch).await?.done().await.map(drop)?)
    };
    let before = node.rss_mib()?;
    let begun = Instant::now();
    for from in (0..timers).step_by(1_000) {
        send(from, from + 1_000, from as i64).await?;
    }
    let rate = timers as f64 / begun.elapsed().as_secs_f64();
    let each = (node.rss_mib()? - before) * 1_048_576.0 / timers as f64;
    table.add(
        format!("timers set, to {timers} pending"),
        rate,
        "timers/s",
        format!("{each:.0} bytes of the node's memory each, with what the store keeps of them"),
    );
    let begun = Instant::now();
    send(timers, timers + 1, 20_000_000_000).await?;
    loop {
        let told: serde_json::Value = serde_json::to_value(client.pipelines().await?)?;
        let pipeline = told.get(0).ok_or_else(|| anyhow::anyhow!("no pipeline"))?;
        if pipeline["timers_fired"].as_u64() >= Some(timers) {
            break;
        }
        if pipeline["state"] != "running" {
            bail!("it stopped: {told}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    table.add(
        "timers fired, with an entry a thousand, synced",
        timers as f64 / begun.elapsed().as_secs_f64(),
        "timers/s",
        "",
    );
    client.close().await;
    Ok(())
}

/// A hundred records every millisecond through a module that counts them, while another revision of its
/// pipeline is applied again and again.
async fn swapped(setup: &Setup, table: &mut Table) -> Result<()> {
    const SWAPS: u32 = 20;
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    for topic in ["t", "counts"] {
        client.create_topic(topic, 1, &[]).await?;
    }
    let module = std::fs::read(setup.hostile.with_file_name("counter.wasm"))?;
    client.push_module("counter", "1", &module).await?;
    let revision = |n: u32| {
        format!(
            "name = \"p\"\nsource = \"t\"\noutputs = {{ counts = \"counts\" }}\n[[stages]]\nmodule = \"counter\"\n\
             grants = [\"state\"]\nconfig = {{ mark = \"{n}\" }}\n"
        )
    };
    client.apply_pipeline(&revision(0)).await?;
    let mut builder = BatchBuilder::new(Codec::None);
    for n in 0..100 {
        let value = format!("{n}");
        builder.push(0, None, Some(value.as_bytes()), weir_types::Headers::NONE);
    }
    let batch = builder.build(Offset::ZERO, None)?;
    let mut times = Vec::new();
    let mut count = 0;
    for swaps in [0, SWAPS] {
        let applier = node.client().await?;
        let applying = tokio::spawn(async move {
            for n in 1..=swaps {
                tokio::time::sleep(Duration::from_millis(100)).await;
                applier.apply_pipeline(&revision(n)).await?;
            }
            applier.close().await;
            Ok::<_, anyhow::Error>(())
        });
        let sent = paced_with(&client, "t", u64::from(SWAPS) * 120, &batch).await?;
        applying.await??;
        count += sent.len() * 100;
        times.push(sent);
    }
    let end = async |topic: &'static str| -> Result<u64> {
        let mut fetcher = client.fetcher().await?;
        let fetched = fetcher.fetch(topic, 0, Offset::ZERO, 1, Duration::ZERO).await?;
        Ok(fetched.committed_end.get())
    };
    let (kept, counted) = (end("t").await?, end("counts").await?);
    if (kept, counted) != (count as u64, count as u64) {
        bail!("{count} records sent, {kept} stored and {counted} counted");
    }
    let [without, with] = times.as_mut_slice() else {
        bail!("no times")
    };
    table.add(
        format!("100,000 records/s, {SWAPS} swaps of a pipeline with state: longest to acknowledge"),
        quantile(with, 1.0),
        "ms",
        format!(
            "without swaps {:.1}; none lost, none doubled",
            quantile(without, 1.0)
        ),
    );
    client.close().await;
    Ok(())
}

/// A record every millisecond.
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
    paced_with(client, topic, count, &batch(1, 128, 1)).await
}

/// The same, of batches.
async fn paced_with(client: &Client, topic: &str, count: u64, payload: &Batch) -> Result<Vec<Duration>> {
    let mut producer = client.producer().await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut waiting = Vec::new();
    for _ in 0..count {
        ticks.tick().await;
        let begun = Instant::now();
        let sent = producer.send(topic, 0, payload).await?;
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
