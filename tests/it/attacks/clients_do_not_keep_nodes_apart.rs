//! However many clients connect and ask for nothing, the nodes of a site hear each other: one that falls silent is replaced.

use super::still_serves;
use crate::block_on;
use weir_peer::protocol::{Hello, MAGIC, VERSION, Welcome};
use weir_peer::{KnownNodes, Peer, read_frame, write_frame};
use weir_tests::for_ever;
use weir_tests::site::Site;
use weir_types::limits::CONNECTIONS_MAX;

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
fn a_site_elects_another_leader_beside_a_crowd_of_idle_clients() {
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
        let begun = std::time::Instant::now();
        while !one.iter().any(|http| serves(*http)) {
            assert!(
                begun.elapsed() < std::time::Duration::from_secs(20),
                "nobody leads"
            );
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        drop(crowd);
        let client = site.client().await.unwrap();
        still_serves(&client, "t").await;
    });
}
