//! Throughput and latency of the Kafka port with librdkafka, beside the figures of librdkafka's own
//! in-process mock broker: the ceiling of the client itself.

use crate::node::Node;
use crate::{Setup, Table, quantile};
use anyhow::{Result, bail};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(60);

pub(crate) fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    for (bytes, all) in [(128, 3_000_000), (1_024, 400_000)] {
        let all = all / setup.less;
        let mock = MockCluster::new(1)?;
        mock.create_topic("t", 1, 1)?;
        let ceiling = produce(&mock.bootstrap_servers(), bytes, all)?;
        drop(mock);
        let node = Node::start(setup, &[])?;
        let bootstrap = node.kafka().to_string();
        let rate = produce(&bootstrap, bytes, all)?;
        table.add(
            format!("Kafka: produce through librdkafka, {bytes} B, acks=all"),
            rate,
            "records/s",
            format!(
                "{:.0} % of librdkafka's own mock broker, {ceiling:.0}",
                rate / ceiling * 100.0
            ),
        );
        // The mock broker keeps only its last 5 MB: no ceiling of reads.
        let rate = consume(&bootstrap, all)?;
        table.add(
            format!("Kafka: consume through librdkafka, {bytes} B"),
            rate,
            "records/s",
            "",
        );
        if bytes == 128 {
            table.add(
                "Kafka: peak RSS of the node then",
                node.peak_rss_mib()?,
                "MiB",
                "",
            );
        }
    }
    singles(setup, table)?;
    idle_consumers(setup, table)
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

/// When each record was acknowledged.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<String>>,
    times: Mutex<Vec<Duration>>,
}

impl ClientContext for Deliveries {}
impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Option<Instant>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        if let Err((e, _)) = result
            && let Ok(mut failed) = self.failed.lock()
        {
            *failed = Some(e.to_string());
        }
        if let Some(sent) = *sent
            && let Ok(mut times) = self.times.lock()
        {
            times.push(sent.elapsed());
        }
    }
}

/// Records a second, all acknowledged.
fn produce(bootstrap: &str, bytes: usize, all: u64) -> Result<f64> {
    let producer: BaseProducer<Deliveries> = config(bootstrap)
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("batch.num.messages", "10000")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "262144")
        .create_with_context(Deliveries::default())?;
    let mut value = vec![b'x'; bytes];
    let begun = Instant::now();
    for i in 0..all {
        if let Some(head) = value.first_chunk_mut::<8>() {
            *head = i.to_le_bytes();
        }
        let mut record = BaseRecord::<(), _, _>::with_opaque_to("t", Box::new(None))
            .payload(&value)
            .partition(0);
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(1));
        }
        if i % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(WAIT)?;
    let took = begun.elapsed();
    if let Ok(failed) = producer.context().failed.lock()
        && let Some(error) = failed.as_ref()
    {
        bail!("not delivered: {error}");
    }
    Ok(all as f64 / took.as_secs_f64())
}

fn consume(bootstrap: &str, all: u64) -> Result<f64> {
    let consumer: BaseConsumer = config(bootstrap)
        .set("group.id", "bench")
        .set("fetch.message.max.bytes", "4194304")
        .set("queued.max.messages.kbytes", "262144")
        // Without these settings, the client pauses for a second whenever the records of a tenth of a second
        // are queued.
        .set("queued.min.messages", "1000000")
        .set("fetch.queue.backoff.ms", "5")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let (mut got, begun) = (0, Instant::now());
    while got < all {
        match consumer.poll(Duration::from_secs(5)) {
            Some(message) => {
                let message = message?;
                got += u64::from(message.payload().is_some());
            }
            None => bail!("{got} of {all} records came back"),
        }
    }
    Ok(got as f64 / begun.elapsed().as_secs_f64())
}

/// A record every millisecond.
fn singles(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start(setup, &[])?;
    let producer: BaseProducer<Deliveries> = config(&node.kafka().to_string())
        .set("acks", "all")
        .set("linger.ms", "0")
        .create_with_context(Deliveries::default())?;
    let value = [b'x'; 128];
    let begun = Instant::now();
    let count = 10_000 / setup.less;
    for i in 0..count {
        let due = begun + Duration::from_millis(i);
        while Instant::now() < due {
            producer.poll(Duration::from_micros(200));
        }
        // The first pays for the connection and the topic.
        let sent = (i > count / 20).then(Instant::now);
        let record = BaseRecord::<(), _, _>::with_opaque_to("t", Box::new(sent)).payload(&value);
        producer.send(record).map_err(|(e, _)| e)?;
    }
    producer.flush(WAIT)?;
    let mut times = producer
        .context()
        .times
        .lock()
        .map(|t| t.clone())
        .unwrap_or_default();
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        table.add(
            format!("Kafka: single records at 1,000/s, acknowledged, {name}"),
            quantile(&mut times, q),
            "ms",
            "",
        );
    }
    Ok(())
}

/// Measures the cost of a hundred waiting consumers.
fn idle_consumers(setup: &Setup, table: &mut Table) -> Result<()> {
    let node = Node::start(setup, &[])?;
    let bootstrap: SocketAddr = node.kafka();
    produce(&bootstrap.to_string(), 128, 1)?;
    let consumers: Vec<BaseConsumer> = (0..100)
        .map(|_| {
            let consumer: BaseConsumer = config(&bootstrap.to_string()).set("group.id", "idle").create()?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("t", 0, Offset::End)?;
            consumer.assign(&list)?;
            anyhow::Ok(consumer)
        })
        .collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_secs(3));
    let (before, begun) = (node.cpu_seconds()?, Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let used = (node.cpu_seconds()? - before) / begun.elapsed().as_secs_f64();
    table.add(
        "Kafka: 100 idle consumers with long polls",
        used * 100.0,
        "% a core",
        "",
    );
    drop(consumers);
    Ok(())
}
