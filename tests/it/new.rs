//! `weir module new`: the project that it makes, as its README says to use it.

use crate::block_on;
use std::path::Path;
use std::process::Command;
use weir_tests::{Node, read_all, weir};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}\n{told}");
    String::from_utf8(output.stdout).unwrap() + &told
}

#[test]
fn a_new_module_builds_passes_its_case_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(weir())
        .args(["module", "new", "rate-limit"])
        .current_dir(dir.path()));
    let project = dir.path().join("rate-limit");
    let target = weir_tests::target().join("new");
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .args(args)
            .current_dir(&project)
            .env("CARGO_TARGET_DIR", &target);
        run(&mut command)
    };
    assert!(cargo(&["test"]).contains("tests::cases ... ok"));
    cargo(&["build", "--release", "--target", "wasm32-unknown-unknown"]);
    let file = target.join("wasm32-unknown-unknown/release/rate_limit.wasm");
    let file = file.to_str().unwrap();
    let told = run(Command::new(weir())
        .args(["module", "test", file, "cases"])
        .current_dir(&project));
    assert!(
        told.contains("1 cases, 0 failed; every output and dead letters seen"),
        "{told}"
    );

    let of_node = tempfile::tempdir().unwrap();
    let node = Node::start(of_node.path(), &[]).unwrap();
    let cli = |args: &[&str], input: &str| {
        let output = node.cli(args, input).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {told}");
    };
    cli(
        &[
            "module",
            "push",
            file,
            "--name",
            "rate-limit",
            "--version",
            "0.1.0",
        ],
        "",
    );
    cli(&["topic", "create", "readings"], "");
    let pipeline = project.join("pipeline.toml");
    cli(&["pipeline", "apply", pipeline.to_str().unwrap()], "");
    cli(
        &["produce", "readings"],
        "{\"temperature\":55}\n{\"temperature\":40}\n",
    );
    block_on(async {
        let client = node.client().await.unwrap();
        let (records, _) = read_all(&client, "readings", 0, 1 << 20).await.unwrap();
        let values: Vec<_> = records.iter().map(|(_, r)| r.value.as_deref().unwrap()).collect();
        assert_eq!(values, [br#"{"temperature":55,"count":1}"#]);
    });
    node.stop().unwrap();
}

#[test]
fn a_name_that_is_none_or_taken_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("taken")).unwrap();
    for (name, words) in [
        ("taken", "`taken` is there already"),
        ("../up", "no name for a module"),
        ("9x", "no name for a module"),
        ("", "no name for a module"),
    ] {
        let mut command = Command::new(weir());
        let output = command
            .args(["module", "new", name])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(words), "{name}: {told}");
    }
    assert_eq!(
        Path::new(dir.path()).read_dir().unwrap().count(),
        1,
        "nothing is made"
    );
}
