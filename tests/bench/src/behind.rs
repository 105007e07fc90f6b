//! Pipelines behind the log, candidates beside them, and modules that are compiled meanwhile.

use crate::node::Node;
use crate::produce::{flood, of_all_keys, paced, send_all};
use crate::{Setup, Table, quantile};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Client, Codec, KnownNodes, Offset};
use weir_runtime::{Runtime, RuntimeOptions};

/// Bytes that a module of size is made of: a function each few hundred.
const LARGE_BYTES: usize = 1 << 20;

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        published(setup, table).await?;
        filtered(setup, table).await?;
        windowed(setup, table).await?;
        compiled(setup, table).await
    })?;
    cached(setup, table)
}

/// eKuiper's published figure: `temperature > 50` over 90 bytes of JSON, on a single core.
async fn published(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start_on_a_core(setup)?;
    let client = node.client().await?;
    client.create_topic("t", 1, &[]).await?;
    let module = std::fs::read(setup.modules.join("weir_module_threshold.wasm"))?;
    client.push_module("threshold", "1", &module).await?;
    let pipeline = "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"threshold\"\n\
                    config = { field = \"temperature\", limit = 50 }\n";
    client.apply_pipeline(pipeline).await?;
    let mut builder = BatchBuilder::new(Codec::None);
    for n in 0..1_000_u64 {
        let (t, h) = (n * 7 % 100, n * 3 % 100);
        let value = format!(
            "{{\"deviceid\":\"dev-{n:05}\",\"temperature\":{t}.50,\"humidity\":{h}.25,\"ts\":1700000{n:06},\"ok\":1}}"
        );
        builder.push(0, None, Some(value.as_bytes()), weir_types::Headers::NONE);
    }
    let payload = builder.build(Offset::ZERO, None)?;
    let batches = 4_000 / setup.less;
    let begun = Instant::now();
    send_all(&client, std::iter::repeat_n(&payload, batches as usize)).await?;
    table.add(
        "temperature > 50 in-line, 90 B of JSON, the node on one core",
        batches as f64 * 1_000.0 / begun.elapsed().as_secs_f64(),
        "records/s",
        format!("synced; RSS {:.0} MiB", node.rss_mib()?),
    );
    client.close().await;
    Ok(())
}

const HOT: &str = "name = \"hot\"\nat = \"log\"\nsource = \"t\"\noutputs = { main = \"hot\" }\n[[stages]]\n\
                   module = \"threshold\"\nconfig = { field = \"temperature\", limit = 60 }\n";

/// Measures a filter over stored records, and the cost of a candidate.
async fn filtered(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    for topic in ["t", "hot"] {
        client.create_topic(topic, 1, &[]).await?;
    }
    let module = std::fs::read(setup.modules.join("weir_module_threshold.wasm"))?;
    client.push_module("threshold", "1", &module).await?;
    let batches = 2_000 / setup.less;
    flood(&client, "t", 1_000, 128, batches).await?;
    let rate = caught_up(&client, HOT, batches * 1_000).await?;
    table.add(
        "filter behind the log, 128 B, batches of 1,000",
        rate,
        "records/s",
        "",
    );
    for (what, toml) in [
        (
            "shadow of a filter alone",
            HOT.replace("\"hot\"\nat", "\"other\"\nat"),
        ),
        ("shadow of a filter beside the one that works", HOT.to_owned()),
    ] {
        let told = client
            .shadow_pipeline(&toml, "start", Duration::ZERO, |_| {})
            .await?;
        let rate = (told.candidate.records as f64, told.seconds);
        table.add(
            what,
            rate.0 / rate.1,
            "records/s",
            format!("{} differences", told.differences),
        );
    }
    client.close().await;
    Ok(())
}

/// Measures the mean of each second of a thousand keys, with a single entry for state, outputs and place.
async fn windowed(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    for topic in ["t", "means"] {
        client.create_topic(topic, 1, &[]).await?;
    }
    let module = std::fs::read(setup.modules.join("weir_module_downsample.wasm"))?;
    client.push_module("downsample", "1", &module).await?;
    let batches = (0..1_000 / setup.less)
        .map(of_all_keys)
        .collect::<Result<Vec<_>>>()?;
    send_all(&client, &batches).await?;
    let records = batches.iter().map(|batch| u64::from(batch.count())).sum();
    let pipeline = "name = \"p\"\nat = \"log\"\nsource = \"t\"\noutputs = { main = \"means\" }\n[[stages]]\n\
                    module = \"downsample\"\ngrants = [\"state\", \"timers\"]\nconfig = { field = \"v\", every_ms = 1000 }\n";
    let rate = caught_up(&client, pipeline, records).await?;
    table.add(
        "means of windows of a second behind the log, 1,000 keys",
        rate,
        "records/s",
        format!("peak RSS {:.0} MiB", node.peak_rss_mib()?),
    );
    client.close().await;
    Ok(())
}

/// Records a second until a pipeline that is applied now has seen all there is.
async fn caught_up(client: &Client, pipeline: &str, records: u64) -> Result<f64> {
    client.apply_pipeline(pipeline).await?;
    let begun = Instant::now();
    let before = seen(client).await?.0;
    loop {
        let (seen, lag, state) = seen(client).await?;
        if lag == 0 {
            return Ok((records - before.min(records)) as f64 / begun.elapsed().as_secs_f64());
        }
        if state != "running" || begun.elapsed() > Duration::from_secs(120) {
            bail!("it is {state} after {seen} records");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn seen(client: &Client) -> Result<(u64, u64, String)> {
    let pipelines: Value = serde_json::to_value(client.pipelines().await?)?;
    let pipeline = pipelines.get(0).context("no pipeline")?;
    let number = |field: &str| pipeline[field].as_u64().unwrap_or(0);
    let state = pipeline["state"].as_str().unwrap_or_default().to_owned();
    Ok((number("records_in"), number("lag"), state))
}

/// Turns of each measurement: the p99 of a single run is fifty records, with or without a slow fsync.
const TURNS: usize = 3;

/// Measures the latency of a stream beside the compilation of a module of a megabyte, and the load time of a
/// compiled module.
async fn compiled(setup: &Setup, table: &mut Table) -> Result<()> {
    // The client shares the cores with the node here: its waits for a core are not the node's.
    weir_pipeline::Priority::Prompt.ask();
    let node = Node::start(setup, &[])?;
    let client = node.client().await?;
    client.create_topic("good", 1, &[]).await?;
    let threshold = std::fs::read(setup.modules.join("weir_module_threshold.wasm"))?;
    client.push_module("threshold", "1", &threshold).await?;
    let good = "name = \"good\"\nsource = \"good\"\n[[stages]]\nmodule = \"threshold\"\n\
                config = { field = \"temperature\", limit = 60 }\n";
    client.apply_pipeline(good).await?;
    let count = 5_000 / setup.less;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    let mut pushed = Vec::new();
    for turn in 0..TURNS {
        let mut times = paced(&client, "good", count).await?;
        alone.push(quantile(&mut times, 0.99));
        // Each module differs: the node keeps compiled modules.
        let modules: Vec<_> = (0..count / 250)
            .map(|n| large(&threshold, (turn * 100) as u32 + n as u32))
            .collect();
        let pushing = Pushing::start(node.addr(), format!("large-{turn}"), modules);
        let mut times = paced(&client, "good", count).await?;
        pushed.extend(pushing.stop()?);
        beside.push(quantile(&mut times, 0.99));
        ratios.push(beside[turn] / alone[turn]);
    }
    for numbers in [&mut alone, &mut beside, &mut ratios] {
        numbers.sort_by(f64::total_cmp);
    }
    let ms = pushed.iter().map(Duration::as_secs_f64).sum::<f64>() * 1e3 / pushed.len() as f64;
    let note = format!("median of {TURNS}");
    table.add(
        "p99 of single records through a filter",
        alone[TURNS / 2],
        "ms",
        &note,
    );
    table.add(
        "the same while modules of 1.0 MiB are compiled",
        beside[TURNS / 2],
        "ms",
        format!(
            "{:.2} of it ({:.2} to {:.2}); {} modules, {ms:.0} ms each",
            ratios[TURNS / 2],
            ratios[0],
            ratios[TURNS - 1],
            pushed.len(),
        ),
    );
    client.close().await;
    Ok(())
}

/// A client that pushes modules in sequence, on a thread of its own, so that uploads do not disturb the
/// measurement.
struct Pushing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

impl Pushing {
    fn start(addr: SocketAddr, name: String, modules: Vec<Vec<u8>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let push = async move {
            let client = Client::connect(addr, &KnownNodes::forgetful(), "pusher").await?;
            let mut pushed = Vec::new();
            for (n, module) in modules.iter().enumerate() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let begun = Instant::now();
                client.push_module(&name, &(n + 1).to_string(), module).await?;
                pushed.push(begun.elapsed());
            }
            client.close().await;
            Ok(pushed)
        };
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(push)
        });
        Self { stop, thread }
    }

    /// Returns the time of each push, after the last.
    fn stop(self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        let pushed = self.thread.join();
        pushed.unwrap_or_else(|_| Err(anyhow!("the client that pushes panicked")))
    }
}

/// Measures the load of a compiled module from the cache.
fn cached(setup: &Setup, table: &mut Table) -> Result<()> {
    let dir = tempfile::tempdir_in(&setup.dir)?;
    let options = || RuntimeOptions {
        cache_dir: Some(dir.path().to_owned()),
        random: || Ok([7; 32]),
        ..RuntimeOptions::plain()
    };
    let threshold = std::fs::read(setup.modules.join("weir_module_threshold.wasm"))?;
    let module = large(&threshold, 0);
    let component = weir_runtime::componentize(&module)?;
    Runtime::new(options())?.load(&component)?;
    let mut took = Vec::new();
    for _ in 0..20 {
        let runtime = Runtime::new(options())?;
        let begun = Instant::now();
        runtime.load(&component)?;
        took.push(begun.elapsed());
    }
    let worst = quantile(&mut took, 1.0);
    let median = quantile(&mut took, 0.5);
    let note = format!("the longest of 20: {worst:.1}");
    table.add(
        "loading the module of that size from the cache",
        median,
        "ms",
        note,
    );
    Ok(())
}

/// Returns `module` with unused functions, of about [`LARGE_BYTES`] in all, each with an `n` of its own.
fn large(module: &[u8], n: u32) -> Vec<u8> {
    // A function without parameters that returns a number (the binary format's section 5 on types).
    const TYPE: [u8; 4] = [0x60, 0, 1, 0x7f];
    let mut body = vec![0];
    for k in 0..60_u32 {
        // i32.const, and i32.add from the second on.
        body.push(0x41);
        leb(&mut body, (n * 61 + k) % 0x2000);
        if k > 0 {
            body.push(0x6a);
        }
    }
    body.push(0x0b);
    let mut sized = Vec::new();
    leb(&mut sized, body.len() as u32);
    sized.extend(body);
    let count = LARGE_BYTES.saturating_sub(module.len()) / sized.len();
    let (mut out, mut rest) = (module[..8].to_vec(), &module[8..]);
    let mut own_type = 0;
    while let Some((id, after)) = rest.split_first() {
        let mut content = after;
        let size = read_leb(&mut content) as usize;
        let (section, behind) = content.split_at(size);
        rest = behind;
        let (mut items, mut added) = (section, Vec::new());
        match id {
            1 => added.push(TYPE.to_vec()),
            3 => added = vec![vec![own_type]; count],
            10 => added = vec![sized.clone(); count],
            _ => {}
        }
        let mut content = Vec::new();
        if !added.is_empty() {
            let before = read_leb(&mut items);
            if *id == 1 {
                own_type = before as u8;
            }
            leb(&mut content, before + added.len() as u32);
        }
        content.extend_from_slice(items);
        added.iter().for_each(|item| content.extend_from_slice(item));
        out.push(*id);
        leb(&mut out, content.len() as u32);
        out.extend(content);
    }
    out
}

fn leb(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_leb(from: &mut &[u8]) -> u32 {
    let (mut n, mut shift) = (0, 0);
    while let Some((byte, rest)) = from.split_first() {
        *from = rest;
        n |= u32::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    n
}
