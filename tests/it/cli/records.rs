//! Topics and records on the command line, in every format.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use weir_tests::Node;
use weir_tests::cli::{objects, text};

/// Runs a command that must succeed.
fn ok(node: &Node, args: &[&str], input: &str) -> Output {
    let output = node.cli(args, input).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    output
}

/// A node with topic `t` of three partitions, filled with 5,002 records in every format.
fn filled(dir: &Path) -> Node {
    let node = Node::start(dir, &[]).unwrap();
    ok(
        &node,
        &[
            "topic",
            "create",
            "t",
            "--partitions",
            "3",
            "--config",
            "retention.ms=-1",
        ],
        "",
    );
    let topics = objects(&ok(&node, &["topic", "list", "-o", "json"], ""));
    assert_eq!(topics[0]["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(topics[0]["config"]["retention.ms"], "-1");

    let lines: String = (0..2_500).map(|i| format!("line {i}\n")).collect();
    ok(&node, &["produce", "t"], &lines);
    let json: String = (0..2_500)
        .map(|i| format!("{{\"id\":\"k{}\",\"n\":{i}}}\n", i % 50))
        .collect();
    ok(
        &node,
        &[
            "produce",
            "t",
            "--format",
            "json",
            "--key-field",
            "id",
            "--idempotent",
        ],
        &json,
    );
    let csv = "time,n\n2026-01-01 00:00:00,1\n2026-01-02 00:00:00,2\n";
    ok(
        &node,
        &["produce", "t", "--format", "csv", "--time-field", "time"],
        csv,
    );

    node
}

#[test]
fn keys_keep_their_partition_and_order_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path());
    let all = objects(&ok(&node, &["consume", "t", "-o", "json"], ""));
    let values: BTreeSet<&str> = all.iter().map(|r| r["value"].as_str().unwrap()).collect();
    assert_eq!((all.len(), values.len()), (5_002, 5_002));
    // Order holds within a key, and a key stays on its partition.
    for key in 0..50 {
        let of_key: Vec<&Value> = all.iter().filter(|r| r["key"] == format!("k{key}")).collect();
        assert_eq!(of_key.len(), 50);
        assert!(of_key.iter().all(|r| r["partition"] == of_key[0]["partition"]));
        assert!(
            of_key
                .windows(2)
                .all(|w| w[0]["offset"].as_u64() < w[1]["offset"].as_u64())
        );
    }
}

#[test]
fn consume_stops_at_its_count_and_resumes_as_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path());
    assert_eq!(
        text(&ok(&node, &["consume", "t", "--count", "7"], ""))
            .lines()
            .count(),
        7
    );
    let first = ok(
        &node,
        &[
            "consume",
            "t",
            "--partition",
            "1",
            "--group",
            "g",
            "--count",
            "3",
            "-o",
            "json",
        ],
        "",
    );
    let second = ok(
        &node,
        &[
            "consume",
            "t",
            "--partition",
            "1",
            "--group",
            "g",
            "--count",
            "3",
            "-o",
            "json",
        ],
        "",
    );
    assert_eq!(
        objects(&first)[2]["offset"].as_u64().unwrap() + 1,
        objects(&second)[0]["offset"].as_u64().unwrap()
    );
}

#[test]
fn topic_commands_alter_describe_scrub_and_delete() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path());
    ok(
        &node,
        &[
            "topic",
            "alter",
            "t",
            "--partitions",
            "4",
            "--config",
            "priority=9",
        ],
        "",
    );
    let described = objects(&ok(&node, &["topic", "describe", "t", "-o", "json"], ""));
    assert_eq!(
        (
            described[0]["config"]["priority"].as_str(),
            described[0]["partitions"][3]["bytes"].as_u64()
        ),
        (Some("9"), Some(0))
    );
    let scrub = objects(&ok(&node, &["scrub", "-o", "json"], ""));
    assert_eq!(
        (
            scrub[0]["records"].as_u64(),
            scrub[0]["damaged"].as_array().unwrap().len()
        ),
        (Some(5_002), 0)
    );
    ok(&node, &["status"], "");
    assert!(text(&ok(&node, &["completions", "bash"], "")).contains("weir"));
    ok(&node, &["topic", "delete", "t"], "");
    assert_eq!(text(&ok(&node, &["topic", "list", "-o", "json"], "")), "");
    node.stop().unwrap();
}
