//! A terminal that is closed ends a node in good order, and a reader that has seen enough ends a command
//! without a word.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use weir_tests::{Node, eventually, weir};

fn signal(node: &Node, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(node.pid() as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn hangup_stops_a_node_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), &[]).unwrap();
    node.cli(&["topic", "create", "t"], "").unwrap();
    signal(&node, rustix::process::Signal::HUP);
    eventually("the node ends", || node.ended());
    assert!(node.said().contains("stopped"), "{}", node.said());
    // The shutdown was orderly.
    let again = Node::start(dir.path(), &[]).unwrap();
    assert!(again.said().contains("clean=true"), "{}", again.said());
}

#[test]
fn node_under_nohup_ignores_a_hangup() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("nohup");
    command.arg(weir());
    let mut node = Node::start_by(command, dir.path()).unwrap();
    signal(&node, rustix::process::Signal::HUP);
    node.cli(&["topic", "create", "t"], "").unwrap();
    assert!(!node.ended());
}

/// The end of a pipe that nobody reads.
fn closed() -> OwnedFd {
    let (read, write) = rustix::pipe::pipe().unwrap();
    drop(read);
    write
}

#[test]
fn commands_end_quietly_on_a_closed_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    node.cli(&["topic", "create", "t", "--partitions", "3"], "")
        .unwrap();
    node.cli(&["produce", "t"], "a\nb\n").unwrap();
    let wasm = dir.path().join("threshold.wasm");
    std::fs::write(&wasm, weir_tests::module("threshold")).unwrap();
    let wasm = wasm.to_str().unwrap();
    node.cli(&["module", "push", wasm], "").unwrap();
    let pipeline = dir.path().join("p.toml");
    let text = "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"threshold\"\nconfig = { field = \"t\", limit = 1 }\n";
    std::fs::write(&pipeline, text).unwrap();
    let pipeline = pipeline.to_str().unwrap();
    node.cli(&["pipeline", "apply", pipeline], "").unwrap();
    let mut commands = vec![
        vec!["--help"],
        vec!["completions", "bash"],
        vec!["completions", "zsh"],
        vec!["serve", "--print-config"],
        vec!["status"],
        vec!["scrub"],
        vec!["topic", "list"],
        vec!["topic", "describe", "t"],
        vec!["topic", "alter", "t", "--config", "priority=3"],
        vec!["topic", "create", "u"],
        vec!["topic", "delete", "u"],
        vec!["consume", "t"],
        vec!["module", "list"],
        vec!["module", "describe", "threshold"],
        vec!["module", "push", wasm],
        vec![
            "module",
            "test",
            wasm,
            "--input",
            pipeline,
            "--set",
            "field=t;limit=1",
        ],
        vec!["pipeline", "list"],
        vec!["pipeline", "describe", "p"],
        vec!["pipeline", "plan", pipeline],
        vec!["pipeline", "history", "p"],
        vec!["pipeline", "pause", "p"],
        vec!["pipeline", "resume", "p"],
        vec!["pipeline", "remove", "p"],
        vec!["cluster", "status"],
        vec!["cluster", "invite"],
        vec!["cluster", "rebalance"],
    ];
    let with_json: Vec<Vec<&str>> = commands
        .iter()
        .filter(|args| !matches!(args[0], "--help" | "completions" | "serve"))
        .map(|args| [&args[..], &["-o", "json"]].concat())
        .collect();
    commands.extend(with_json);
    for args in commands {
        let output = Command::new(weir())
            .args(&args)
            .env("WEIR_NODE", node.quic.to_string())
            .env("WEIR_KNOWN_NODES", dir.path().join("known"))
            .stdin(Stdio::null())
            .stdout(closed())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !said.contains("panicked") && !said.contains("Broken pipe"),
            "{args:?}: {said}"
        );
        assert_ne!(output.status.code(), Some(101), "{args:?}");
        // And with nobody to complain to either.
        let mut silent = Command::new(weir());
        silent
            .args(&args)
            .env("WEIR_NODE", "127.0.0.1:1")
            .env("HOME", dir.path());
        silent.stdin(Stdio::null()).stdout(closed()).stderr(closed());
        if args[0] != "consume" && args[0] != "cluster" && !args.contains(&"scrub") {
            continue;
        }
        assert_ne!(silent.status().unwrap().code(), Some(101), "{args:?}");
    }
}
