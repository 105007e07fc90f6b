//! Numbers in Prometheus' text format, version 0.0.4.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use weir_admin::Services;
use weir_broker::{Marks, Standing, Waiting, Why};
use weir_pipeline::{PipelineInfo, State as PipelineState};

/// Show metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(services): State<Arc<Services>>) -> impl IntoResponse {
    let mut out = String::new();
    node(&mut out, &services);
    shares(&mut out, &services);
    unserved(&mut out, &services);
    site(&mut out, &services);
    topics(&mut out, &services);
    outbox(&mut out, &services);
    pipelines(&mut out, &services.pipelines.pipelines());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], out)
}

/// A label's value, as the text format of Prometheus wants it (exposition formats, version 0.0.4).
fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// What the node shares out, and how much of it is taken.
fn shares(out: &mut String, services: &Services) {
    let standings = services.pipelines.standings();
    let mut all = |name: &str, kind: &str, help: &str, value: fn(&Standing) -> u64| {
        head(out, name, kind, help);
        for s in &standings {
            let (share, of) = (s.share, s.resource.name());
            let _ = writeln!(out, "{name}{{share=\"{share}\",of=\"{of}\"}} {}", value(s));
        }
    };
    all(
        "weir_share_used",
        "gauge",
        "What is taken of a share of the node's memory (bytes), connections or files.",
        |s| s.used,
    );
    all("weir_share_max", "gauge", "What there is of a share.", |s| s.max);
    all(
        "weir_share_refused_total",
        "counter",
        "Requests that found a share used up.",
        |s| s.refused,
    );
}

/// Requests that are not served.
fn unserved(out: &mut String, services: &Services) {
    let name = "weir_kafka_unserved_total";
    head(
        out,
        name,
        "counter",
        "Kafka requests that are not served, by request, version and client software.",
    );
    for (asked, n) in services.broker.metrics().unserved.all() {
        let (request, version, client) = (escaped(&asked.request), asked.version, escaped(&asked.client));
        let _ = writeln!(
            out,
            "{name}{{request=\"{request}\",version=\"{version}\",client=\"{client}\"}} {n}"
        );
    }
}

fn node(out: &mut String, services: &Services) {
    let m = services.broker.metrics();
    let usage = services.broker.log().usage();
    let load = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    for (name, kind, help, value) in [
        (
            "weir_produce_requests_total",
            "counter",
            "Produce requests.",
            load(&m.produce_requests),
        ),
        (
            "weir_produce_errors_total",
            "counter",
            "Produce requests that were refused.",
            load(&m.produce_errors),
        ),
        (
            "weir_records_in_total",
            "counter",
            "Records taken in.",
            load(&m.records_in),
        ),
        (
            "weir_bytes_in_total",
            "counter",
            "Bytes of record batches taken in.",
            load(&m.bytes_in),
        ),
        (
            "weir_fetch_requests_total",
            "counter",
            "Fetch requests.",
            load(&m.fetch_requests),
        ),
        (
            "weir_records_out_total",
            "counter",
            "Records read.",
            load(&m.records_out),
        ),
        (
            "weir_bytes_out_total",
            "counter",
            "Bytes of record batches read.",
            load(&m.bytes_out),
        ),
        (
            "weir_log_syncs_total",
            "counter",
            "Syncs of the log.",
            usage.syncs,
        ),
        (
            "weir_log_written_bytes_total",
            "counter",
            "Bytes handed to the log.",
            usage.written_bytes,
        ),
        (
            "weir_disk_bytes",
            "gauge",
            "Bytes of the database.",
            usage.disk_bytes,
        ),
        (
            "weir_disk_free_bytes",
            "gauge",
            "Bytes free on the disk.",
            usage.free_bytes,
        ),
        (
            "weir_disk_reserve_bytes",
            "gauge",
            "Bytes kept free.",
            usage.reserve_bytes,
        ),
    ] {
        head(out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
    let name = "weir_retention_removed_records_total";
    head(
        out,
        name,
        "counter",
        "Records that retention has removed, by why.",
    );
    for (why, word) in [(Why::Age, "age"), (Why::Size, "size"), (Why::Budget, "budget")] {
        let _ = writeln!(out, "{name}{{reason=\"{word}\"}} {}", load(m.removed(why)));
    }
}

fn site(out: &mut String, services: &Services) {
    let status = services.broker.group().status();
    for (name, kind, help, value) in [
        (
            "weir_serving",
            "gauge",
            "1 if the node leads and reaches most others, else 0.",
            u64::from(status.serving),
        ),
        ("weir_term", "gauge", "Term of the replica group.", status.term),
        (
            "weir_applied_entry",
            "gauge",
            "Last entry of the replica group that is applied here.",
            status.applied,
        ),
    ] {
        head(out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
    let name = "weir_replica_lag_entries";
    head(
        out,
        name,
        "gauge",
        "Entries that a node is known not to have; on the node that leads.",
    );
    for member in status.members {
        if let Some(lag) = member.lag {
            let _ = writeln!(out, "{name}{{node=\"{}\"}} {lag}", member.id);
        }
    }
}

fn topics(out: &mut String, services: &Services) {
    let mut rows = Vec::new();
    for topic in services.broker.topics() {
        for index in 0..topic.partitions.len() as u32 {
            if let Some(marks) = services.broker.marks(topic.name.as_str(), index) {
                rows.push((
                    format!("{{topic=\"{}\",partition=\"{index}\"}}", topic.name),
                    marks,
                ));
            }
        }
    }
    type Value = fn(&Marks) -> u64;
    let values: [(&str, &str, &str, Value); 5] = [
        (
            "weir_partition_log_start",
            "gauge",
            "First offset that may still be there.",
            |m| m.log_start().get(),
        ),
        (
            "weir_partition_committed_end",
            "gauge",
            "First offset not yet committed.",
            |m| m.committed_end().get(),
        ),
        (
            "weir_partition_bytes",
            "gauge",
            "Bytes of record batches.",
            Marks::bytes,
        ),
        (
            "weir_partition_lost_records_total",
            "counter",
            "Records lost or evicted.",
            Marks::lost,
        ),
        (
            "weir_partition_damaged_ranges",
            "gauge",
            "Ranges of records found damaged since the start, up to 64.",
            |m| m.damaged().len() as u64,
        ),
    ];
    for (name, kind, help, value) in values {
        head(out, name, kind, help);
        for (labels, marks) in &rows {
            let _ = writeln!(out, "{name}{labels} {}", value(marks));
        }
    }
}

/// Name, what it is, and its value.
type OfWaiting = (&'static str, &'static str, fn(&Waiting) -> u64);

/// Of groups that this node leads.
fn outbox(out: &mut String, services: &Services) {
    let waiting = services.broker.outbox();
    let numbers: [OfWaiting; 2] = [
        (
            "weir_outbox_records",
            "Offsets that pipelines made for a partition of another replica group and that wait for it.",
            |w| w.records,
        ),
        ("weir_outbox_bytes", "Bytes of batches that they are.", |w| {
            w.bytes
        }),
    ];
    for (name, help, value) in numbers {
        head(out, name, "gauge", help);
        for w in &waiting {
            let (topic, partition, home) = (&w.topic, w.partition, w.home);
            let labels = format!("topic=\"{topic}\",partition=\"{partition}\",home=\"{home}\"");
            let _ = writeln!(out, "{name}{{{labels}}} {}", value(w));
        }
    }
}

fn pipelines(out: &mut String, all: &[PipelineInfo]) {
    // What is tried counts for itself.
    let tried = all.iter().filter_map(|p| {
        let mut tried = p.canary.as_deref()?.clone();
        tried.name.push_str("/canary");
        Some(tried)
    });
    let all: Vec<_> = all.iter().cloned().chain(tried).collect();
    let all = &all[..];
    /// Name, what it is, and where it comes from.
    type OfPipeline = (&'static str, &'static str, fn(&PipelineInfo) -> u64);
    let counters: [OfPipeline; 13] = [
        ("weir_pipeline_records_in_total", "Records that entered.", |p| {
            p.records_in
        }),
        ("weir_pipeline_kept_total", "Records kept as they came.", |p| {
            p.kept
        }),
        ("weir_pipeline_dropped_total", "Records dropped.", |p| p.dropped),
        ("weir_pipeline_emitted_total", "Records made anew.", |p| p.emitted),
        (
            "weir_pipeline_dead_letters_total",
            "Records made dead letters.",
            |p| p.dead_letters,
        ),
        (
            "weir_pipeline_skipped_total",
            "Records dropped because a module failed on them.",
            |p| p.skipped,
        ),
        (
            "weir_pipeline_bad_times_total",
            "Records whose field of the event time says none.",
            |p| p.bad_times,
        ),
        (
            "weir_pipeline_late_total",
            "Records that came after the watermark had passed their time.",
            |p| p.late,
        ),
        (
            "weir_pipeline_redated_total",
            "Records that were further ahead of the node's time than they may be, and were given it.",
            |p| p.redated,
        ),
        (
            "weir_pipeline_failures_total",
            "Calls of modules that failed.",
            |p| p.failures,
        ),
        (
            "weir_pipeline_missed_total",
            "Offsets whose records were gone before it came to them.",
            |p| p.missed,
        ),
        ("weir_pipeline_timers_fired_total", "Timers that were due.", |p| {
            p.timers_fired
        }),
        ("weir_pipeline_wasm_nanoseconds_total", "Time in modules.", |p| {
            p.wasm_ns
        }),
    ];
    for (name, help, value) in counters {
        head(out, name, "counter", help);
        for p in all {
            let _ = writeln!(out, "{name}{{pipeline=\"{}\"}} {}", p.name, value(p));
        }
    }
    head(
        out,
        "weir_pipeline_routed_total",
        "counter",
        "Records sent to an output.",
    );
    for p in all {
        for (output, n) in &p.routed {
            let _ = writeln!(
                out,
                "weir_pipeline_routed_total{{pipeline=\"{}\",output=\"{}\"}} {n}",
                p.name,
                escaped(output)
            );
        }
    }
    let gauges: [OfPipeline; 4] = [
        (
            "weir_pipeline_lag",
            "Offsets that are stored in its sources and that it has not come to.",
            |p| p.lag,
        ),
        (
            "weir_pipeline_running",
            "1 when it works, 0 when it is paused or halted.",
            |p| u64::from(p.state == PipelineState::Running),
        ),
        (
            "weir_pipeline_state_bytes",
            "Memory that what its modules remember takes, of the partitions at work.",
            |p| p.state_bytes,
        ),
        (
            "weir_pipeline_timers",
            "Timers that its modules have set, of the partitions at work.",
            |p| p.timers,
        ),
    ];
    for (name, help, value) in gauges {
        head(out, name, "gauge", help);
        for p in all {
            let _ = writeln!(out, "{name}{{pipeline=\"{}\"}} {}", p.name, value(p));
        }
    }
    head(
        out,
        "weir_module_metric",
        "untyped",
        "Instruments of modules, by stage and name.",
    );
    for p in all {
        for (metric, value) in &p.metrics {
            let _ = writeln!(
                out,
                "weir_module_metric{{pipeline=\"{}\",metric=\"{}\"}} {value}",
                p.name,
                escaped(metric)
            );
        }
    }
}
