//! A crowd of idle clients does not keep the nodes of a site apart: a silent leader is replaced.

use std::time::{Duration, Instant};
use weir_peer::protocol::{Hello, MAGIC, VERSION, Welcome};
use weir_peer::{KnownNodes, Peer, read_frame, write_frame};
use weir_tests::records::still_serves;
use weir_tests::site::Site;
use weir_tests::{DEADLINE, block_on, for_ever, within};
use weir_types::limits::{CONNECTIONS_MAX, CONNECTIONS_NEW_MAX};

/// A client that says hello, and nothing else.
async fn idle(addr: std::net::SocketAddr) -> Option<Peer> {
    let peer = weir_peer::connect(addr, &KnownNodes::forgetful()).await.ok()?;
    let mut stream = peer.open().await.ok()?;
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
        client: "idle".to_owned(),
    };
    write_frame(&mut stream.tx, &hello, &[]).await.ok()?;
    read_frame::<Welcome>(&mut stream.rx, 4 << 10)
        .await
        .ok()
        .flatten()?;
    Some(peer)
}

#[test]
fn site_elects_a_leader_beside_idle_clients() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let leader = site.leader().unwrap();
    let followers: Vec<_> = (1..=3).filter(|n| *n != leader).collect();
    block_on(async {
        let client = site.client().await.unwrap();
        client.create_topic("t", 1, &for_ever()).await.unwrap();
        let mut crowd = Vec::new();
        for number in &followers {
            let quic = site.node(*number).unwrap().quic;
            let mut taken = 0;
            for _ in 0..CONNECTIONS_MAX / 2 + 40 {
                if let Some(peer) = idle(quic).await {
                    taken += 1;
                    crowd.push(peer);
                }
            }
            assert!(taken <= CONNECTIONS_MAX / 2, "{taken}");
        }
        site.kill(leader).unwrap();
        // From the same address no client gets in any more; the nodes do.
        let one = followers.iter().map(|n| site.node(*n).unwrap().http);
        let serves = |http| {
            let ready = format!("GET /v1/status HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n");
            let mut stream = std::net::TcpStream::connect(http).unwrap();
            std::io::Write::write_all(&mut stream, ready.as_bytes()).unwrap();
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
            answer.contains("\"serving\":true")
        };
        let one: Vec<_> = one.collect();
        within(Duration::from_secs(20), "another node leads", || {
            one.iter().any(|http| serves(*http))
        });
        drop(crowd);
        let client = site.client().await.unwrap();
        still_serves(&client, "t").await;
    });
}

#[test]
fn site_elects_a_leader_beside_silent_handshakes() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let leader = site.leader().unwrap();
    let followers: Vec<_> = (1..=3).filter(|n| *n != leader).collect();
    let addresses: Vec<_> = followers.iter().map(|n| site.node(*n).unwrap().quic).collect();
    block_on(async {
        let client = site.client().await.unwrap();
        client.create_topic("t", 1, &for_ever()).await.unwrap();
        // As many as may be at that stage, from ten addresses; each that is shown out comes again.
        let mut crowd = tokio::task::JoinSet::new();
        for last in 2..12u8 {
            for to in &addresses[..1] {
                for _ in 0..CONNECTIONS_NEW_MAX / 8 {
                    let (from, to) = ((std::net::Ipv4Addr::new(127, 0, 0, last), 0).into(), *to);
                    crowd.spawn(async move {
                        loop {
                            let peer = weir_peer::connect_from(from, to, &KnownNodes::forgetful()).await;
                            match peer {
                                Ok(silent) => drop(silent.accept().await),
                                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                            }
                        }
                    });
                }
            }
        }
        let at = site.node(leader).unwrap().quic;
        site.kill(leader).unwrap();
        // Somebody else is turned away, and at the same time whoever comes from where a node was gets in.
        let (mut shown, begun) = (0, Instant::now());
        while shown < 3 {
            assert!(begun.elapsed() < DEADLINE, "the crowd is too small");
            let come_from = |from: std::net::SocketAddr| {
                let to = addresses[0];
                async move { weir_peer::connect_from(from, to, &KnownNodes::forgetful()).await }
            };
            let (stranger, node) = tokio::join!(come_from(([127, 0, 0, 99], 0).into()), come_from(at));
            if stranger.is_err() {
                // The connection before may still hold the address on a busy machine; but the node must not
                // be refused.
                let refused = node.as_ref().is_err_and(|e| e.to_string().contains("refused"));
                assert!(!refused, "{:?}", node.err());
                shown += usize::from(node.is_ok());
            }
            drop(node);
        }
        let leads =
            |status: &serde_json::Value| status["leader"].as_u64().is_some_and(|now| now != leader as u64);
        site.until("another leads", leads).unwrap();
        // The old leader returns: both others must accept its connections.
        site.start(leader).unwrap();
        drop(crowd);
        let client = site.client().await.unwrap();
        still_serves(&client, "t").await;
    });
}
