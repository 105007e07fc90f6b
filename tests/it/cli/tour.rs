//! What a user does, through the real binary: every command, its output for programs, its exit codes, its errors.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Output;
use weir_tests::http::http;
use weir_tests::{Node, block_on, read_all};
use weir_types::{BatchBuilder, Codec, Offset, Record};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn objects(output: &Output) -> Vec<Value> {
    text(output)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn records_go_in_and_come_out_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let ok = |args: &[&str], input: &str| {
        let output = node.cli(args, input).unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    };
    ok(
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
    let topics = objects(&ok(&["topic", "list", "-o", "json"], ""));
    assert_eq!(topics[0]["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(topics[0]["config"]["retention.ms"], "-1");

    let lines: String = (0..2_500).map(|i| format!("line {i}\n")).collect();
    ok(&["produce", "t"], &lines);
    let json: String = (0..2_500)
        .map(|i| format!("{{\"id\":\"k{}\",\"n\":{i}}}\n", i % 50))
        .collect();
    ok(
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
    ok(&["produce", "t", "--format", "csv", "--time-field", "time"], csv);

    let all = objects(&ok(&["consume", "t", "-o", "json"], ""));
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
    assert_eq!(
        text(&ok(&["consume", "t", "--count", "7"], "")).lines().count(),
        7
    );
    let first = ok(
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

    ok(
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
    let described = objects(&ok(&["topic", "describe", "t", "-o", "json"], ""));
    assert_eq!(
        (
            described[0]["config"]["priority"].as_str(),
            described[0]["partitions"][3]["bytes"].as_u64()
        ),
        (Some("9"), Some(0))
    );
    let scrub = objects(&ok(&["scrub", "-o", "json"], ""));
    assert_eq!(
        (
            scrub[0]["records"].as_u64(),
            scrub[0]["damaged"].as_array().unwrap().len()
        ),
        (Some(5_002), 0)
    );
    ok(&["status"], "");
    assert!(text(&ok(&["completions", "bash"], "")).contains("weir"));
    ok(&["topic", "delete", "t"], "");
    assert_eq!(text(&ok(&["topic", "list", "-o", "json"], "")), "");
    node.stop().unwrap();
}

#[test]
fn nothing_is_missing_at_any_fetch_size_or_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let check = |node: &Node| {
        block_on(async {
            let client = node.client().await.unwrap();
            for max_bytes in [1, 4_000, 1 << 20] {
                let (records, gaps) = read_all(&client, "t", 0, max_bytes).await.unwrap();
                assert!(gaps.is_empty());
                assert_eq!(records.len(), 20_000);
                assert!(
                    records
                        .iter()
                        .enumerate()
                        .all(|(i, (offset, _))| i as u64 == *offset)
                );
            }
        });
    };
    node.cli(&["topic", "create", "t"], "").unwrap();
    let lines: String = (0..20_000)
        .map(|i| format!("{i} {}\n", "x".repeat(i % 2_000)))
        .collect();
    assert!(node.cli(&["produce", "t"], &lines).unwrap().status.success());
    check(&node);
    node.stop().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    assert!(node.said().contains("clean=true"), "{}", node.said());
    check(&node);
}

#[test]
fn a_pipeline_is_applied_paused_resumed_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let module = dir.path().join("weir_module_threshold.wasm");
    std::fs::write(&module, weir_tests::module("threshold")).unwrap();
    let file = dir.path().join("p.toml");
    let spec = "name = \"p\"\nsource = \"t\"\n[outputs]\nalerts = \"alerts\"\n[[stages]]\nmodule = \"threshold\"\n\
                config = { field = \"t\", limit = 10, then = \"alerts\", else = \"keep\" }\n";
    std::fs::write(&file, spec).unwrap();
    let (module, file) = (module.to_str().unwrap(), file.to_str().unwrap());
    let run = |node: &Node, args: &[&str], input: &str| node.cli(args, input).unwrap();
    for topic in ["t", "alerts"] {
        run(&node, &["topic", "create", topic], "");
    }
    let early = run(&node, &["pipeline", "apply", file], "");
    assert!(String::from_utf8_lossy(&early.stderr).contains("no module `threshold`"));
    assert!(run(&node, &["module", "push", module], "").status.success());
    assert!(run(&node, &["pipeline", "apply", file], "").status.success());
    let records = "{\"t\":5}\n{\"t\":50}\nrubbish\n{\"t\":7}\n";
    assert!(run(&node, &["produce", "t"], records).status.success());
    assert_eq!(text(&run(&node, &["consume", "t"], "")), "{\"t\":5}\n{\"t\":7}\n");
    assert_eq!(text(&run(&node, &["consume", "alerts"], "")), "{\"t\":50}\n");
    let dead = objects(&run(&node, &["consume", "t.dead", "-o", "json"], ""));
    let header = |name: &str| {
        let headers = dead[0]["headers"].as_array().unwrap();
        headers
            .iter()
            .find(|h| h["name"] == name)
            .map(|h| h["value"].as_str().unwrap().to_owned())
            .unwrap()
    };
    assert_eq!(dead[0]["value"], "rubbish");
    assert_eq!(
        (header("weir.source.topic"), header("weir.source.partition")),
        ("t".to_owned(), "0".to_owned())
    );
    assert_eq!(header("weir.source.offset").parse::<u64>().unwrap(), 2);
    assert_eq!(
        (header("weir.error").as_str(), header("weir.attempts").as_str()),
        ("no number at `t`", "1")
    );
    let modules = objects(&run(&node, &["module", "list", "-o", "json"], ""));
    assert_eq!(header("weir.module"), modules[0]["digest"].as_str().unwrap());
    assert_eq!(header("weir.module.name"), "threshold@0.1.0");

    assert!(run(&node, &["pipeline", "pause", "p"], "").status.success());
    let refused = run(&node, &["produce", "t"], "{\"t\":1}\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("paused"));
    node.stop().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let listed = objects(&run(&node, &["pipeline", "list", "-o", "json"], ""));
    assert_eq!(
        (listed[0]["state"].as_str(), listed[0]["revision"].as_u64()),
        (Some("paused"), Some(1))
    );
    assert!(run(&node, &["pipeline", "resume", "p"], "").status.success());
    assert!(run(&node, &["produce", "t"], "{\"t\":99}\n").status.success());
    assert_eq!(
        text(&run(&node, &["consume", "alerts"], "")),
        "{\"t\":50}\n{\"t\":99}\n"
    );
    let used = run(&node, &["module", "remove", "threshold"], "");
    assert!(String::from_utf8_lossy(&used.stderr).contains("used by pipeline `p`"));
    assert!(run(&node, &["pipeline", "remove", "p"], "").status.success());
    assert!(
        run(&node, &["module", "remove", "threshold"], "")
            .status
            .success()
    );
}

#[test]
fn errors_say_what_to_do_and_exit_codes_tell_usage_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let case = |args: &[&str], code: i32, words: &str| {
        let output = node.cli(args, "x\n").unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} does not say `{words}`: {said}");
    };
    case(&["produce", "nowhere"], 1, "weir topic list");
    case(&["topic", "create", "a b"], 1, "use 1 to 249 letters");
    case(
        &["topic", "create", "t", "--config", "retention=1"],
        1,
        "retention.ms",
    );
    case(
        &["topic", "create", "t", "--config", "durability=maybe"],
        1,
        "sync or lazy",
    );
    case(&["topic", "create", "t", "--config", "nonsense"], 2, "key=value");
    case(&["topic", "create"], 2, "Usage");
    case(&["frobnicate"], 2, "Usage");
    case(&["serve"], 2, "--data DIR");
    case(&["scrub", "--repair"], 2, "--data DIR");
    case(&["produce", "t", "--key-field", "k"], 2, "--format json");
    case(&["pipeline", "apply", "/nowhere.toml"], 1, "/nowhere.toml");
    case(&["pipeline", "pause", "nothing"], 1, "no pipeline `nothing`");
    for args in [
        &["--node", "127.0.0.1:1", "topic", "list"],
        &["topic", "list", "--node", "127.0.0.1:1"],
    ] {
        case(args, 1, "is `weir serve` running there?");
    }
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "name = \"p\"\nsource = \"t\"\nstages = []\nonerror = 1\n").unwrap();
    case(
        &["pipeline", "apply", file.to_str().unwrap()],
        1,
        "unknown field `onerror`",
    );
    let second = std::process::Command::new(weir_tests::weir())
        .arg("serve")
        .arg("--data")
        .arg(dir.path().join("data"))
        .output();
    let said = String::from_utf8_lossy(&second.unwrap().stderr).into_owned();
    assert!(said.contains("in use by another process"), "{said}");
}

#[test]
fn the_demo_streams_every_reading_and_accounts_for_each() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let output = std::process::Command::new(weir_tests::target().join("debug/machine-temperature"))
        .args(["--node", &node.quic.to_string(), "--modules"])
        .arg(weir_tests::target().join("wasm32-unknown-unknown/release"))
        .arg("--example")
        .arg(weir_tests::root().join("examples/machine-temperature"))
        .output()
        .unwrap();
    let (said, failed) = (
        text(&output),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{said}{failed}");
    let count = |name: &str| -> u64 {
        let line = said
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_else(|| panic!("no `{name}` in\n{said}"));
        line[name.len()..]
            .split_whitespace()
            .find_map(|w| w.parse().ok())
            .unwrap()
    };
    assert_eq!(count("readings in"), 22_695);
    assert_eq!(
        count("kept") + count("dropped") + count("routed to `alerts`") + count("dead letters"),
        22_695
    );
    assert!(count("  inside labelled windows") > count("  outside"));
}

/// Whatever a record holds: what was read can be sent as it is, all of the answer or each record of it.
#[test]
fn what_http_gives_can_be_posted_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let bytes = |text: &[u8]| Some(bytes::Bytes::copy_from_slice(text));
    let header = |name: &str, value: Option<bytes::Bytes>| (name.to_owned(), value);
    let records = [
        Record {
            key: bytes(&[0xff, 0]),
            value: bytes(b"{\"id\": 12345678901234567890123, \"v\":1.10}"),
            timestamp: 1_700_000_000_001,
            headers: vec![
                header("x", bytes(b"1")),
                header("x", bytes(b"2")),
                header("", None),
                header("raw", bytes(&[0xfe])),
                header("\u{e4}", bytes(b"")),
            ],
        },
        Record {
            key: bytes(b""),
            value: None,
            timestamp: 0,
            headers: Vec::new(),
        },
        Record {
            key: None,
            value: bytes(&[0x80]),
            timestamp: -1,
            headers: Vec::new(),
        },
        Record {
            key: bytes(b"\"quoted\\"),
            value: bytes(b"\"a text\""),
            timestamp: 5,
            headers: Vec::new(),
        },
    ];
    block_on(async {
        let client = node.client().await.unwrap();
        for topic in ["t", "u", "v"] {
            client.create_topic(topic, 1, &[]).await.unwrap();
        }
        let mut builder = BatchBuilder::new(Codec::None);
        records.iter().for_each(|record| builder.push_record(record));
        let batch = builder.build(Offset::ZERO, None).unwrap();
        let mut producer = client.producer().await.unwrap();
        producer.send("t", 0, &batch).await.unwrap().done().await.unwrap();
    });
    let read = |topic: &str| http(node.http, "GET", &format!("/v1/topics/{topic}/records"), "", b"").1;
    let post = |topic: &str, body: &serde_json::Value| {
        let (path, body) = (format!("/v1/topics/{topic}/records"), body.to_string());
        http(node.http, "POST", &path, "application/json", body.as_bytes())
    };
    let first = read("t");
    assert_eq!(first["records"].as_array().unwrap().len(), records.len());
    let (status, told) = post("u", &first);
    assert_eq!(status, 200, "{told}");
    for record in first["records"].as_array().unwrap() {
        let (status, told) = post("v", &serde_json::json!([record]));
        assert_eq!(status, 200, "{told}");
    }
    block_on(async {
        let client = node.client().await.unwrap();
        for topic in ["t", "u", "v"] {
            let (read, _) = read_all(&client, topic, 0, 1 << 20).await.unwrap();
            let read: Vec<_> = read.into_iter().map(|(_, record)| record).collect();
            assert_eq!(read, records, "{topic}");
        }
    });
    node.stop().unwrap();
}

#[test]
fn http_takes_and_gives_records_and_manages() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let call = |method: &str, path: &str, kind: &str, body: &[u8]| http(node.http, method, path, kind, body);
    let (status, _) = call(
        "POST",
        "/v1/topics",
        "application/json",
        br#"{"name":"t","config":{"priority":"1"}}"#,
    );
    assert_eq!(status, 201);
    assert_eq!(
        call("POST", "/v1/topics", "application/json", br#"{"name":"t"}"#).0,
        409
    );
    let array = br#"[{"key":"k","value":{"n":1},"headers":{"h":"x"},"timestamp":7},{"value":null},{"value_base64":"/wA="}]"#;
    let (status, body) = call("POST", "/v1/topics/t/records", "application/json", array);
    assert_eq!((status, body["records"].as_u64()), (200, Some(3)));
    assert_eq!(
        call(
            "POST",
            "/v1/topics/t/records",
            "application/x-ndjson",
            b"1\n\"b\"\r\n\n{}"
        )
        .1["records"],
        3
    );
    assert_eq!(
        call("POST", "/v1/topics/t/records?key=raw", "text/plain", b"one\ntwo").1["partitions"][0]["base_offset"],
        6
    );
    for (query, kind, body) in [
        ("key=a%ffb", "text/plain", &b"x"[..]),
        ("key=a", "application/json", b"[{\"value\":1}]"),
        ("key=a", "application/x-ndjson", b"1"),
    ] {
        let path = format!("/v1/topics/t/records?{query}");
        assert_eq!(call("POST", &path, kind, body).0, 400, "{query}, {kind}");
    }
    // What `curl -d` sends by itself.
    let form = "application/x-www-form-urlencoded";
    assert_eq!(call("POST", "/v1/topics/t/records", form, b"[]").0, 415);
    let (_, body) = call("GET", "/v1/topics/t/records?offset=0", "", b"");
    let records = body["records"].as_array().unwrap();
    assert_eq!(records.len(), 7);
    assert_eq!(
        (records[0]["key"].as_str(), records[0]["timestamp"].as_i64()),
        (Some("k"), Some(7))
    );
    assert_eq!(records[0]["headers"][0]["value"], "x");
    assert!(records[1]["value"].is_null());
    assert_eq!(records[2]["value_base64"], "/wA=");
    assert_eq!(
        (records[4]["value"].as_str(), records[6]["key"].as_str()),
        (Some("\"b\""), Some("raw"))
    );
    let (status, body) = call(
        "POST",
        "/v1/topics/t/records",
        "application/x-ndjson",
        b"1\nnot json",
    );
    assert_eq!(status, 400, "{body}");
    assert!(body.to_string().contains("line 2 is not JSON"), "{body}");
    for (path, want) in [
        ("/v1/topics/none", 404),
        ("/v1/topics/t/records?offset=99", 416),
        ("/v1/topics/t/records?offset=x", 400),
    ] {
        assert_eq!(call("GET", path, "", b"").0, want, "{path}");
    }
    assert_eq!(
        call(
            "POST",
            "/v1/topics/t/records",
            "application/json",
            b"[{\"valeu\":1}]"
        )
        .0,
        400
    );
    assert_eq!(
        call("POST", "/v1/topics/t/records", "text/plain", &vec![b'x'; 5 << 20]).0,
        413
    );
    assert_eq!(
        call("POST", "/v1/topics/t/records", "text/plain", &vec![b'x'; 9 << 20]).0,
        413
    );
    assert_eq!(
        call(
            "PUT",
            "/v1/modules/threshold/1",
            "application/wasm",
            &weir_tests::module("threshold")
        )
        .0,
        201
    );
    let pipeline =
        "name=\"p\"\nsource=\"t\"\n[[stages]]\nmodule=\"threshold\"\nconfig={field=\"t\",limit=1}\n";
    assert_eq!(
        call("PUT", "/v1/pipelines", "application/toml", pipeline.as_bytes()).0,
        200
    );
    assert_eq!(call("DELETE", "/v1/topics/t", "", b"").0, 400);
    assert_eq!(call("DELETE", "/v1/pipelines/p", "", b"").0, 204);
    let (_, openapi) = call("GET", "/v1/openapi.json", "", b"");
    assert!(openapi["paths"]["/v1/topics/{topic}/records"]["post"].is_object());
    assert_eq!(
        (
            call("GET", "/health/live", "", b"").0,
            call("GET", "/health/ready", "", b"").0
        ),
        (200, 200)
    );
    assert_eq!(call("DELETE", "/v1/topics/t", "", b"").0, 204);
}

#[test]
fn an_http_request_that_is_stored_in_part_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let call = |path: &str, body: &str| http(node.http, "POST", path, "application/json", body.as_bytes());
    let topic = r#"{"name":"t","partitions":2,"config":{"max.message.bytes":"1000"}}"#;
    assert_eq!(call("/v1/topics", topic).0, 201);
    // Keys that lie in different partitions; what goes with one of them is too large.
    let offset = |body: &Value| body["partitions"][0]["partition"].as_u64();
    let place = |key: &str| {
        offset(
            &call(
                "/v1/topics/t/records",
                &format!(r#"[{{"key":"{key}","value":1}}]"#),
            )
            .1,
        )
    };
    let other = (0..)
        .map(|n| format!("k{n}"))
        .find(|k| place(k) != place("small"))
        .unwrap();
    let large = "x".repeat(2_000);
    let both = format!(r#"[{{"key":"small","value":2}},{{"key":"{other}","value":"{large}"}}]"#);
    let (status, body) = call("/v1/topics/t/records", &both);
    assert_eq!(status, 413);
    let stored = body["error"]["stored"].as_array().unwrap();
    assert_eq!(stored.len(), 1, "{body}");
    assert_eq!(stored[0]["partition"].as_u64(), place("small"));
    assert_eq!(stored[0]["records"], 1);
}
