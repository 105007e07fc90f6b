//! Records and administration over HTTP.

use serde_json::Value;
use std::path::Path;
use weir_tests::http::http;
use weir_tests::{Node, block_on, read_all};
use weir_types::{BatchBuilder, Codec, Offset, Record};

/// Whatever a record holds: an answer can be posted as read, as a whole or record by record.
#[test]
fn http_answers_can_be_posted_back() {
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

/// A node with topic `t`, which was created over HTTP.
fn node_with_topic(dir: &Path) -> Node {
    let node = Node::start(dir, &[]).unwrap();
    let topic = br#"{"name":"t","config":{"priority":"1"}}"#;
    assert_eq!(
        http(node.http, "POST", "/v1/topics", "application/json", topic).0,
        201
    );
    node
}

#[test]
fn records_are_produced_and_consumed_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with_topic(dir.path());
    let call = |method: &str, path: &str, kind: &str, body: &[u8]| http(node.http, method, path, kind, body);
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
}

#[test]
fn bad_requests_over_http_have_their_status() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with_topic(dir.path());
    let call = |method: &str, path: &str, kind: &str, body: &[u8]| http(node.http, method, path, kind, body);
    assert_eq!(
        call("POST", "/v1/topics", "application/json", br#"{"name":"t"}"#).0,
        409
    );
    for (query, kind, body) in [
        ("key=a%ffb", "text/plain", &b"x"[..]),
        ("key=a", "application/json", b"[{\"value\":1}]"),
        ("key=a", "application/x-ndjson", b"1"),
    ] {
        let path = format!("/v1/topics/t/records?{query}");
        assert_eq!(call("POST", &path, kind, body).0, 400, "{query}, {kind}");
    }
    // The content type of a plain `curl -d`.
    let form = "application/x-www-form-urlencoded";
    assert_eq!(call("POST", "/v1/topics/t/records", form, b"[]").0, 415);
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
}

#[test]
fn modules_pipelines_and_topics_are_managed_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with_topic(dir.path());
    let call = |method: &str, path: &str, kind: &str, body: &[u8]| http(node.http, method, path, kind, body);
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
fn http_names_the_stored_part_of_a_failed_request() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let call = |path: &str, body: &str| http(node.http, "POST", path, "application/json", body.as_bytes());
    let topic = r#"{"name":"t","partitions":2,"config":{"max.message.bytes":"1000"}}"#;
    assert_eq!(call("/v1/topics", topic).0, 201);
    // Keys of different partitions; the record of a single partition is too large.
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
