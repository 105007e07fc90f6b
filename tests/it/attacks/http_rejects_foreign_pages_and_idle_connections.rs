//! HTTP rejects requests of foreign web pages, and closes idle and slow connections before they take the
//! place of others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use weir_tests::records::still_serves;
use weir_tests::{DEADLINE, Node, block_on, eventually, for_ever};

/// Status and body of the answer to these lines.
fn ask(node: &Node, lines: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(node.http).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), answer)
}

#[test]
fn http_quota_is_per_address_and_not_per_name() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[("WEIR_PRODUCE_BYTES_PER_S", "100000")]).unwrap();
    assert!(node.cli(&["topic", "create", "t"], "").unwrap().status.success());
    let (body, begun) = ("x".repeat(100_000), Instant::now());
    for n in 0..4 {
        let head = format!("host: localhost\r\nuser-agent: other-{n}\r\ncontent-type: text/plain\r\n");
        let length = format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let (status, answer) = ask(
            &node,
            &format!("POST /v1/topics/t/records HTTP/1.1\r\n{head}{length}{body}"),
        );
        assert_eq!(status, 200, "{answer}");
    }
    // A second's worth at once; the third waits for the second, and the fourth for that.
    assert!(
        begun.elapsed() > Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn requests_of_foreign_hosts_and_origins_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), &[], &[("WEIR_HTTP_NAMES", "gw.plant.example")]).unwrap();
    let close = "connection: close\r\n\r\n";
    let get = |more: &str| ask(&node, &format!("GET /v1/topics HTTP/1.1\r\n{more}{close}"));
    for own in ["localhost", "127.0.0.1:7480", "[::1]", "gw.plant.example"] {
        assert_eq!(get(&format!("host: {own}\r\n")).0, 200, "{own}");
    }
    for (status, more) in [
        (403, "host: evil.example\r\n"),
        (403, "host: localhost\r\norigin: http://evil.example\r\n"),
        (403, "host: localhost\r\norigin: null\r\n"),
        (403, "host: localhost\r\nsec-fetch-site: cross-site\r\n"),
        (400, "host: localhost\r\nhost: localhost\r\n"),
        (400, ""),
    ] {
        let (got, answer) = get(more);
        assert_eq!(got, status, "{more}: {answer}");
        assert!(answer.contains("\"error\""), "{answer}");
    }
    // Requests with effects, as a page sends them without a preflight.
    for path in [
        "/v1/topics/t/records",
        "/v1/pipelines/p/reset",
        "/v1/pipelines/p/pause",
        "/v1/canary",
        "/v1/shadow",
    ] {
        let page = "host: localhost\r\norigin: http://evil.example\r\ncontent-type: text/plain\r\ncontent-length: 1\r\n";
        let (status, answer) = ask(&node, &format!("POST {path} HTTP/1.1\r\n{page}{close}x"));
        assert_eq!(status, 403, "{path}: {answer}");
    }
    let metrics = ask(
        &node,
        &format!("GET /metrics HTTP/1.1\r\nhost: evil.example\r\n{close}"),
    );
    assert_eq!(metrics.0, 403);
}

#[test]
fn idle_connections_are_closed_and_others_served() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client.create_topic("t", 1, &for_ever()).await.unwrap();
    });
    let before = node.rss_mib().unwrap();
    let mut idle = Vec::new();
    let mut refused = 0;
    for n in 0..1_200 {
        let Ok(mut stream) = TcpStream::connect(node.http) else {
            break;
        };
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET /v1/topics HTTP/1.1\r\nhost: local");
        }
        stream.set_nonblocking(true).unwrap();
        idle.push(stream);
    }
    block_on(async { still_serves(&node.client().await.unwrap(), "t").await });
    let during = node.rss_mib().unwrap();
    assert!(during < 256.0, "{before} MiB before, {during} MiB beside them");
    // Each is told that there is no place, or told off for taking its time, and all are gone soon.
    eventually("all idle connections are closed", || {
        idle.retain_mut(|stream| {
            let mut answer = [0; 512];
            match stream.read(&mut answer) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => true,
                Ok(n) if n > 0 => {
                    refused += u32::from(answer.starts_with(b"HTTP/1.1 503"));
                    true
                }
                _ => false,
            }
        });
        if idle.is_empty() { Ok(()) } else { Err(idle.len()) }
    });
    assert!(refused > 0, "nobody was refused");
    let (status, _) = ask(
        &node,
        "GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(status, 200);
}
