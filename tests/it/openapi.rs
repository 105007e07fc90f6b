//! All that HTTP answers is in its OpenAPI document, and none of it is an error of the node: a stranger's
//! tool makes requests of the document, right and wrong ones, by a seed.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use weir_tests::{DEADLINE, Node, module, target};

/// Requests for each operation and kind of input.
const EXAMPLES: &str = "25";
/// All of the run: the requests that make an operation fail are found in the first of it.
const SECONDS: &str = "45";

const PIPELINE: &str = "\
name = \"hot\"
source = \"machines\"
[[stages]]
module = \"threshold\"
config = { field = \"temperature\", is = \">\", limit = 100, then = \"keep\", else = \"drop\" }
";

#[test]
fn every_answer_is_documented_and_none_is_a_fault_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let document = document(&node);
    assert!(
        document.contains(&format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"))),
        "it is of another release"
    );
    let tool = target().join("clients/schemathesis");
    if !tool.join(".installed").exists() {
        eprintln!(
            "SKIPPED: schemathesis is not installed; `cargo verify` installs it where its registry can be reached"
        );
        return;
    }
    let (file, wasm, pipeline) = (
        dir.path().join("openapi.json"),
        dir.path().join("threshold.wasm"),
        dir.path().join("hot.toml"),
    );
    std::fs::write(&file, document).unwrap();
    std::fs::write(&wasm, module("threshold")).unwrap();
    std::fs::write(&pipeline, PIPELINE).unwrap();
    for (args, input) in [
        (vec!["topic", "create", "machines"], ""),
        (
            vec![
                "module",
                "push",
                wasm.to_str().unwrap(),
                "--name",
                "threshold",
                "--version",
                "0.1.0",
            ],
            "",
        ),
        (vec!["pipeline", "apply", pipeline.to_str().unwrap()], ""),
        (vec!["produce", "machines"], "{\"temperature\":200}\n"),
    ] {
        let done = node.cli(&args, input).unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
    }
    let tested = Command::new("python3")
        .args(["-m", "schemathesis.cli", "run"])
        .arg(&file)
        .args(["--url", &format!("http://{}", node.http)])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            EXAMPLES,
            "--max-time",
            SECONDS,
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
            "--warnings",
            "off",
            "--request-timeout",
            "70",
        ])
        .env("PYTHONPATH", &tool)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(
        tested.status.success() && said.contains("No issues found"),
        "{}: {said}\n{}\nnode:\n{}",
        tested.status,
        String::from_utf8_lossy(&tested.stderr),
        node.said()
    );
    let after = node.cli(&["status"], "").unwrap();
    assert!(after.status.success(), "{after:?}");
}

#[test]
fn each_documented_path_is_asked_with_the_documented_methods_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let document: serde_json::Value = serde_json::from_str(&document(&node)).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let documented: BTreeSet<String> = operations.as_object().unwrap().keys().cloned().collect();
        let asked = path.replace(['{', '}'], "");
        let answer = ask(&node, "TRACE", &asked);
        assert!(answer.starts_with("HTTP/1.1 405 "), "{path}: {answer}");
        let allowed = answer.lines().find_map(|line| line.strip_prefix("allow: "));
        let allowed = allowed.unwrap_or_default().to_lowercase();
        let allowed = allowed.split(',').filter(|method| *method != "head");
        assert_eq!(
            allowed.map(str::to_owned).collect::<BTreeSet<_>>(),
            documented,
            "{path}"
        );
    }
}

/// The document as a client gets it.
fn document(node: &Node) -> String {
    let answer = ask(node, "GET", "/v1/openapi.json");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// An answer with its head.
fn ask(node: &Node, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(node.http).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
