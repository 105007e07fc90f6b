//! Pipelines that count the records of topic `t`, and the check of their output: every record counts exactly
//! once.

use crate::eventually::eventually_async;
use crate::records::texts;
use crate::{Node, cli, for_ever, guest};
use serde_json::Value;
use std::collections::BTreeMap;
use weir_client::Client;

/// Counts records: module `counter`, output `counts`.
pub const PIPELINE: &str = r#"
name = "count"
source = "t"
outputs = { counts = "counts" }
stages = [{ module = "counter", grants = ["state"] }]
"#;

/// Counts records in windows: module `windowed`, with timers of event time and of the node's clock.
pub const WINDOWS: &str = r#"
name = "windows"
source = "t"
outputs = { counts = "counts", echo = "echo" }
stages = [{ module = "windowed", grants = ["state", "timers"] }]
"#;

/// A pipeline that counts the records of topic `t`.
#[derive(Clone, Copy, Debug)]
pub struct Counting {
    /// Place of the pipeline.
    pub at: At,
    /// Output of its module.
    pub output: Output,
}

/// Place of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In line: between the producer and the log.
    Inline,
    /// Behind the log: on stored records.
    Log,
}

/// Output of the counting module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For each record, the count so far.
    Records,
    /// For each window, its count, once the window has ended.
    Windows,
}

impl Counting {
    /// The in-line pipeline that counts records.
    pub const INLINE_RECORDS: Self = Self {
        at: At::Inline,
        output: Output::Records,
    };
    /// The in-line pipeline that counts windows.
    pub const INLINE_WINDOWS: Self = Self {
        at: At::Inline,
        output: Output::Windows,
    };
    /// The log pipeline that counts records.
    pub const LOG_RECORDS: Self = Self {
        at: At::Log,
        output: Output::Records,
    };

    /// Creates the topics and applies the pipeline.
    ///
    /// # Panics
    /// When the node refuses the module or the pipeline.
    pub async fn begin(self, client: &Client) {
        let (module, pipeline) = match self.output {
            Output::Records => ("counter", PIPELINE),
            Output::Windows => ("windowed", WINDOWS),
        };
        client.push_module(module, "1", &guest(module)).await.unwrap();
        for topic in ["t", "counts", "echo"] {
            // The load may have created topic `t`.
            let _ = client.create_topic(topic, 1, &for_ever()).await;
        }
        let pipeline = format!("{}{pipeline}", self.header());
        client.apply_pipeline(&pipeline).await.unwrap();
    }

    /// Returns the line of the pipeline file that says where the pipeline runs.
    pub fn header(self) -> &'static str {
        match self.at {
            At::Inline => "",
            At::Log => "at = \"log\"\n",
        }
    }

    /// Checks that `counts` holds, byte for byte, the output for the records in `t`; returns the number of
    /// outputs.
    ///
    /// # Panics
    /// When a record counts twice or not at all; the message begins with `when`.
    pub async fn judge(self, client: &Client, when: &str) -> usize {
        if self.at == At::Log {
            caught_up(client).await;
        }
        match self.output {
            Output::Records => judge_records(client, when).await,
            Output::Windows => judge_windows(client, when).await,
        }
    }
}

/// Waits until no pipeline behind the log lags.
///
/// # Panics
/// When a pipeline does not run, or lags for too long.
pub async fn caught_up(client: &Client) {
    eventually_async("pipelines have caught up", async || {
        let pipelines: Value = serde_json::to_value(client.pipelines().await.unwrap()).unwrap();
        let all = pipelines.as_array().unwrap();
        assert!(all.iter().all(|p| p["state"] == "running"), "{pipelines}");
        let lags = all.iter().any(|p| p["lag"] != 0);
        if lags { Err(pipelines) } else { Ok(()) }
    })
    .await;
}

/// Waits until every output for another replica group has arrived there.
///
/// # Panics
/// When an output does not arrive.
pub async fn outbox_empty(node: &Node) {
    eventually_async("outputs have arrived in their replica groups", async || {
        let status = cli::json(node, &["cluster", "status"]);
        let outbox = status["outbox"].as_array().unwrap();
        let is_empty = outbox.iter().all(|waiting| waiting["records"] == 0);
        if is_empty { Ok(()) } else { Err(status) }
    })
    .await;
}

/// Checks the counts of records; returns how many there are.
///
/// # Panics
/// When a count is wrong or missing.
pub async fn judge_records(client: &Client, when: &str) -> usize {
    let records = texts(client, "t").await;
    let said: Vec<String> = texts(client, "counts").await.into_iter().map(|r| r.1).collect();
    let (mut counts, mut sum) = (BTreeMap::<u64, u64>::new(), 0u64);
    let wanted: Vec<String> = records
        .into_iter()
        .map(|(_, value)| {
            let number: u64 = value.split(':').next().unwrap().parse().unwrap();
            let count = counts.entry(number % 7).or_default();
            *count += 1;
            sum = sum.wrapping_add(number);
            format!("{number} {} {count} {sum}", number % 7)
        })
        .collect();
    let first = wanted.iter().zip(&said).position(|(w, s)| w != s);
    assert_eq!(
        (wanted.len(), first.map(|i| (&wanted[i], &said[i]))),
        (said.len(), None),
        "{when}: the counts do not match the records"
    );
    wanted.len()
}

/// Checks the counts of windows; returns how many windows have ended.
///
/// Timers that were due at the stop of a node fire after its restart, without a record. Missing windows are
/// waited for; a wrong window fails at once.
async fn judge_windows(client: &Client, when: &str) -> usize {
    let records = texts(client, "t").await;
    let mut windows = BTreeMap::<(i64, u64), u64>::new();
    let mut numbers = Vec::new();
    for (timestamp, value) in &records {
        let number: u64 = value.split(':').next().unwrap().parse().unwrap();
        *windows
            .entry(((timestamp / 50 + 1) * 50, number % 7))
            .or_default() += 1;
        numbers.push(number);
    }
    let latest = records.last().map_or(i64::MIN, |(t, _)| *t);
    let over = windows.iter().filter(|((end, _), _)| *end <= latest);
    let wanted: Vec<_> = over
        .map(|((end, bucket), n)| (*end, format!("{end} {bucket} {n}")))
        .collect();
    eventually_async(&format!("{when}: all windows are counted"), async || {
        let said = texts(client, "counts").await;
        let mut echo: Vec<u64> = texts(client, "echo")
            .await
            .iter()
            .map(|(_, n)| n.parse().unwrap())
            .collect();
        echo.sort_unstable();
        if said == wanted && echo == numbers {
            return Ok(());
        }
        let first = wanted.iter().zip(&said).position(|(w, s)| w != s);
        let odd = numbers.iter().zip(&echo).position(|(w, s)| w != s);
        let found = format!(
            "windows {} of {}, first difference {:?}; numbers {} of {}, first difference {:?}",
            said.len(),
            wanted.len(),
            first.map(|i| (&wanted[i], &said[i])),
            echo.len(),
            numbers.len(),
            odd.map(|i| (numbers[i], echo[i])),
        );
        let is_wrong = first.is_some() || said.len() > wanted.len() || echo.len() > numbers.len();
        assert!(!is_wrong, "{when}: {found}");
        Err(found)
    })
    .await;
    wanted.len()
}
