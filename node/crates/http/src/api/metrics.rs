//! Metrics in Prometheus' text format, version 0.0.4: a table for each kind of row, a line for each metric.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weir_admin::Services;
use weir_broker::{Broker, GroupStatus, Marks, Standing, Waiting, Why};
use weir_pipeline::{PipelineInfo, State as PipelineState};

/// Show metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(services): State<Arc<Services>>) -> impl IntoResponse {
    let mut text = Text::default();
    text.node(&services.broker);
    text.shares(&services.pipelines.standings());
    text.unserved(&services.broker);
    text.site(&services.broker.group().status());
    text.partitions(&services.broker);
    text.outbox(&services.broker.outbox());
    text.pipelines(services.pipelines.pipelines());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text.0)
}

/// A metric: its name, type and help, and its value of a row.
struct Metric<T: 'static> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&T) -> u64,
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Metric<T> {
    let kind = "counter";
    Metric {
        name,
        kind,
        help,
        value,
    }
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Metric<T> {
    let kind = "gauge";
    Metric {
        name,
        kind,
        help,
        value,
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

const NODE: [Metric<Broker>; 12] = [
    counter("weir_produce_requests_total", "Produce requests.", |b| {
        load(&b.metrics().produce_requests)
    }),
    counter(
        "weir_produce_errors_total",
        "Produce requests that were refused.",
        |b| load(&b.metrics().produce_errors),
    ),
    counter("weir_records_in_total", "Records taken in.", |b| {
        load(&b.metrics().records_in)
    }),
    counter("weir_bytes_in_total", "Bytes of record batches taken in.", |b| {
        load(&b.metrics().bytes_in)
    }),
    counter("weir_fetch_requests_total", "Fetch requests.", |b| {
        load(&b.metrics().fetch_requests)
    }),
    counter("weir_records_out_total", "Records read.", |b| {
        load(&b.metrics().records_out)
    }),
    counter("weir_bytes_out_total", "Bytes of record batches read.", |b| {
        load(&b.metrics().bytes_out)
    }),
    counter("weir_log_syncs_total", "Syncs of the log.", |b| {
        b.log().usage().syncs
    }),
    counter("weir_log_written_bytes_total", "Bytes handed to the log.", |b| {
        b.log().usage().written_bytes
    }),
    gauge("weir_disk_bytes", "Bytes of the database.", |b| {
        b.log().usage().disk_bytes
    }),
    gauge("weir_disk_free_bytes", "Bytes free on the disk.", |b| {
        b.log().usage().free_bytes
    }),
    gauge("weir_disk_reserve_bytes", "Bytes kept free.", |b| {
        b.log().usage().reserve_bytes
    }),
];

const REMOVED: Metric<u64> = counter(
    "weir_retention_removed_records_total",
    "Records that retention has removed, by reason.",
    |n| *n,
);

const SHARES: [Metric<Standing>; 3] = [
    gauge(
        "weir_share_used",
        "Amount in use of a share of the node's memory (bytes), connections or files.",
        |s| s.used,
    ),
    gauge("weir_share_max", "Amount in all of a share.", |s| s.max),
    counter(
        "weir_share_refused_total",
        "Requests that found a share used up.",
        |s| s.refused,
    ),
];

const UNSERVED: Metric<u64> = counter(
    "weir_kafka_unserved_total",
    "Kafka requests that are not served, by request, version and client software.",
    |n| *n,
);

const SITE: [Metric<GroupStatus>; 3] = [
    gauge(
        "weir_serving",
        "1 if the node leads and reaches most others, else 0.",
        |s| u64::from(s.serving),
    ),
    gauge("weir_term", "Term of the replica group.", |s| s.term),
    gauge(
        "weir_applied_entry",
        "Last entry of the replica group that is applied here.",
        |s| s.applied,
    ),
];

const LAG: Metric<u64> = gauge(
    "weir_replica_lag_entries",
    "Entries that a node is known not to have; on the node that leads.",
    |n| *n,
);

const PARTITIONS: [Metric<Marks>; 5] = [
    gauge(
        "weir_partition_log_start",
        "First offset that may still be there.",
        |m| m.log_start().get(),
    ),
    gauge(
        "weir_partition_committed_end",
        "First offset not yet committed.",
        |m| m.committed_end().get(),
    ),
    gauge("weir_partition_bytes", "Bytes of record batches.", Marks::bytes),
    counter(
        "weir_partition_lost_records_total",
        "Records lost or evicted.",
        Marks::lost,
    ),
    gauge(
        "weir_partition_damaged_ranges",
        "Ranges of records found damaged since the start, up to 64.",
        |m| m.damaged().len() as u64,
    ),
];

const OUTBOX: [Metric<Waiting>; 2] = [
    gauge(
        "weir_outbox_records",
        "Offsets of pipeline output that waits for a partition of another replica group.",
        |w| w.records,
    ),
    gauge("weir_outbox_bytes", "Bytes of batches of that output.", |w| {
        w.bytes
    }),
];

const PIPELINES: [Metric<PipelineInfo>; 13] = [
    counter("weir_pipeline_records_in_total", "Records that entered.", |p| {
        p.records_in
    }),
    counter("weir_pipeline_kept_total", "Records kept as they came.", |p| {
        p.kept
    }),
    counter("weir_pipeline_dropped_total", "Records dropped.", |p| p.dropped),
    counter("weir_pipeline_emitted_total", "Records made anew.", |p| p.emitted),
    counter(
        "weir_pipeline_dead_letters_total",
        "Records made dead letters.",
        |p| p.dead_letters,
    ),
    counter(
        "weir_pipeline_skipped_total",
        "Records dropped because a module failed on them.",
        |p| p.skipped,
    ),
    counter(
        "weir_pipeline_bad_times_total",
        "Records whose field of the event time has no time.",
        |p| p.bad_times,
    ),
    counter(
        "weir_pipeline_late_total",
        "Records that came after the watermark had passed their time.",
        |p| p.late,
    ),
    counter(
        "weir_pipeline_redated_total",
        "Records too far ahead of the node's clock, which were given its time.",
        |p| p.redated,
    ),
    counter(
        "weir_pipeline_failures_total",
        "Calls of modules that failed.",
        |p| p.failures,
    ),
    counter(
        "weir_pipeline_missed_total",
        "Offsets whose records were gone before the pipeline read them.",
        |p| p.missed,
    ),
    counter("weir_pipeline_timers_fired_total", "Timers that fired.", |p| {
        p.timers_fired
    }),
    counter("weir_pipeline_wasm_nanoseconds_total", "Time in modules.", |p| {
        p.wasm_ns
    }),
];

const ROUTED: Metric<u64> = counter("weir_pipeline_routed_total", "Records sent to an output.", |n| *n);

const PIPELINES_NOW: [Metric<PipelineInfo>; 4] = [
    gauge(
        "weir_pipeline_lag",
        "Offsets stored in the sources that the pipeline has not read yet.",
        |p| p.lag,
    ),
    gauge(
        "weir_pipeline_running",
        "1 while it works, 0 while it is paused or halted.",
        |p| u64::from(p.state == PipelineState::Running),
    ),
    gauge(
        "weir_pipeline_state_bytes",
        "Memory of the modules' state, of the partitions at work here.",
        |p| p.state_bytes,
    ),
    gauge(
        "weir_pipeline_timers",
        "Timers that modules have set, of the partitions at work here.",
        |p| p.timers,
    ),
];

/// Text of the metrics so far.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Writes a line; `labels` are written as they are.
    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// Writes metrics, each with a line for each row: the labels of the row, and the row.
    fn all<T>(&mut self, metrics: &[Metric<T>], rows: &[(String, &T)]) {
        for metric in metrics {
            self.head(metric.name, metric.kind, metric.help);
            for (labels, row) in rows {
                self.line(metric.name, labels, (metric.value)(row));
            }
        }
    }

    /// Writes a metric with a line for each of these labels and values.
    fn each(&mut self, metric: &Metric<u64>, rows: impl IntoIterator<Item = (String, u64)>) {
        self.head(metric.name, metric.kind, metric.help);
        for (labels, value) in rows {
            self.line(metric.name, &labels, (metric.value)(&value));
        }
    }

    fn node(&mut self, broker: &Broker) {
        self.all(&NODE, &[(String::new(), broker)]);
        let reasons = [(Why::Age, "age"), (Why::Size, "size"), (Why::Budget, "budget")];
        let removed = |(reason, word)| {
            let records = load(broker.metrics().removed(reason));
            (format!("reason=\"{word}\""), records)
        };
        self.each(&REMOVED, reasons.map(removed));
    }

    /// Writes the shares of the node's memory, connections and files.
    fn shares(&mut self, standings: &[Standing]) {
        let labels = |s: &Standing| format!("share=\"{}\",of=\"{}\"", s.share, s.resource.name());
        let rows: Vec<_> = standings.iter().map(|s| (labels(s), s)).collect();
        self.all(&SHARES, &rows);
    }

    fn unserved(&mut self, broker: &Broker) {
        let unserved = broker.metrics().unserved.all().into_iter();
        let rows = unserved.map(|(asked, n)| {
            let (request, version, client) = (escaped(&asked.request), asked.version, escaped(&asked.client));
            let labels = format!("request=\"{request}\",version=\"{version}\",client=\"{client}\"");
            (labels, n)
        });
        self.each(&UNSERVED, rows);
    }

    fn site(&mut self, status: &GroupStatus) {
        self.all(&SITE, &[(String::new(), status)]);
        let members = status.members.iter();
        self.each(
            &LAG,
            members.filter_map(|member| Some((format!("node=\"{}\"", member.id), member.lag?))),
        );
    }

    fn partitions(&mut self, broker: &Broker) {
        let mut all = Vec::new();
        for topic in broker.topics() {
            for index in 0..topic.partitions.len() as u32 {
                if let Some(marks) = broker.marks(topic.name.as_str(), index) {
                    let labels = format!("topic=\"{}\",partition=\"{index}\"", topic.name);
                    all.push((labels, marks));
                }
            }
        }
        let rows: Vec<_> = all
            .iter()
            .map(|(labels, marks)| (labels.clone(), &**marks))
            .collect();
        self.all(&PARTITIONS, &rows);
    }

    /// Writes the outboxes of the groups that this node leads.
    fn outbox(&mut self, waiting: &[Waiting]) {
        let labels = |w: &Waiting| {
            let (topic, partition, home) = (&w.topic, w.partition, w.home);
            format!("topic=\"{topic}\",partition=\"{partition}\",home=\"{home}\"")
        };
        let rows: Vec<_> = waiting.iter().map(|w| (labels(w), w)).collect();
        self.all(&OUTBOX, &rows);
    }

    fn pipelines(&mut self, all: Vec<PipelineInfo>) {
        // A canary counts for itself.
        let canaries = all.iter().filter_map(|p| {
            let mut canary = p.canary.as_deref()?.clone();
            canary.name.push_str("/canary");
            Some(canary)
        });
        let canaries: Vec<_> = canaries.collect();
        let all: Vec<_> = all.into_iter().chain(canaries).collect();
        let label = |p: &PipelineInfo| format!("pipeline=\"{}\"", p.name);
        let rows: Vec<_> = all.iter().map(|p| (label(p), p)).collect();
        self.all(&PIPELINES, &rows);
        let routed = all.iter().flat_map(|p| {
            let outputs = p.routed.iter();
            outputs.map(move |(output, n)| (format!("{},output=\"{}\"", label(p), escaped(output)), *n))
        });
        self.each(&ROUTED, routed);
        self.all(&PIPELINES_NOW, &rows);
        let name = "weir_module_metric";
        self.head(name, "untyped", "Instruments of modules, by stage and name.");
        for p in &all {
            for (metric, value) in &p.metrics {
                self.line(
                    name,
                    &format!("{},metric=\"{}\"", label(p), escaped(metric)),
                    value,
                );
            }
        }
    }
}

/// Escapes the value of a label, as the exposition format says.
fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
