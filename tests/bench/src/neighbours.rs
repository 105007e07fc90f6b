//! A pipeline beside another whose module misbehaves.

use crate::node::Node;
use crate::produce::paced;
use crate::{Setup, Table, quantile};
use anyhow::Result;
use weir_client::Offset;

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(setup, table))
}

/// Measures a pipeline beside a hostile neighbour, in the same run on the same node.
async fn measure(setup: &Setup, table: &mut Table) -> Result<()> {
    // The client shares the cores with the node here: its waits for a core are not the node's.
    weir_pipeline::Priority::Prompt.ask();
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
             limits = {{ deadline_ms = 20 }}\n[[stages]]\nmodule = \"hostile\"\ngrants = [\"state\", \"timers\"]\nconfig = {{ mode = \"{mode}\" }}\n"
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
                // A halted or skipped batch is an answer, too: the module must be kept busy.
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
