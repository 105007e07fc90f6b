//! The arrows between crates are those of the design, and the heavy dependencies stay behind their walls.

use std::collections::BTreeMap;
use std::process::Command;

/// Allowed dependencies of each crate: crates of the workspace, and packages that only some crates may name.
/// `node/docs/architecture/README.md` draws them.
const ARROWS: [(&str, &[&str]); 16] = [
    ("weir-types", &[]),
    ("weir-log", &["weir-types", "fjall"]),
    ("weir-peer", &["weir-types", "quinn"]),
    ("weir-runtime", &["weir-types", "wasmtime"]),
    (
        "weir-replica",
        &["weir-types", "weir-log", "weir-peer", "openraft"],
    ),
    ("weir-broker", &["weir-types", "weir-log", "weir-replica"]),
    ("weir-pipeline", &["weir-types", "weir-broker", "weir-runtime"]),
    ("weir-api", &[]),
    (
        "weir-admin",
        &["weir-types", "weir-broker", "weir-pipeline", "weir-api"],
    ),
    (
        "weir-http",
        &[
            "weir-types",
            "weir-broker",
            "weir-pipeline",
            "weir-admin",
            "weir-api",
        ],
    ),
    ("weir-kafka", &["weir-types", "weir-broker"]),
    (
        "weir-quic",
        &[
            "weir-types",
            "weir-broker",
            "weir-pipeline",
            "weir-admin",
            "weir-peer",
        ],
    ),
    ("weir-client", &["weir-types", "weir-api", "weir-peer"]),
    ("weir-testkit", &["weir-types", "weir-runtime"]),
    ("weir-sdk", &[]),
    // Joins all, but reaches nothing heavy by itself.
    (
        "weir-node",
        &[
            "weir-types",
            "weir-log",
            "weir-peer",
            "weir-runtime",
            "weir-replica",
            "weir-broker",
            "weir-pipeline",
            "weir-api",
            "weir-admin",
            "weir-http",
            "weir-kafka",
            "weir-quic",
            "weir-client",
            "weir-testkit",
        ],
    ),
];
const WALLED: [&str; 4] = ["fjall", "openraft", "quinn", "wasmtime"];
/// What a pure core must not have.
const IMPURE: [(&str, &str); 4] = [
    ("weir-types", "tokio"),
    ("weir-api", "tokio"),
    ("weir-log", "tokio"),
    ("weir-runtime", "tokio"),
];

#[test]
fn crates_depend_as_designed() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(weir_tests::root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let drawn: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let uses = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["kind"].is_null());
        let uses: Vec<&str> = uses.map(|d| d["name"].as_str().unwrap()).collect();
        let Some(may) = drawn.get(name) else {
            let host = package["manifest_path"]
                .as_str()
                .unwrap()
                .contains("/node/crates/");
            assert!(!host, "{name} is not drawn");
            continue;
        };
        seen += 1;
        for used in uses {
            let ours = used.starts_with("weir-") || WALLED.contains(&used);
            assert!(
                !ours || may.contains(&used),
                "{name} -> {used} is an arrow that the design does not draw"
            );
            assert!(!IMPURE.contains(&(name, used)), "{name} must not use {used}");
        }
    }
    assert_eq!(seen, ARROWS.len(), "a drawn crate is gone");
}
