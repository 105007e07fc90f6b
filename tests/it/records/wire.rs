//! Hostile bytes on the client port: a clear error, bounded memory, and everybody else is served.

use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use weir_client::{BatchBuilder, Codec, KnownNodes, Offset};
use weir_peer::protocol::{Hello, MAGIC, Reply, Request, VERSION, Welcome};
use weir_peer::{PeerStream, read_frame, write_frame};
use weir_tests::{DEADLINE, Node, block_on};
use weir_types::limits::FRAME_BYTES_MAX;

async fn greeted(addr: SocketAddr, hello: Hello) -> (weir_peer::Peer, Welcome) {
    let peer = weir_peer::connect(addr, &KnownNodes::forgetful()).await.unwrap();
    let mut stream = peer.open().await.unwrap();
    write_frame(&mut stream.tx, &hello, &[]).await.unwrap();
    let welcome = read_frame::<Welcome>(&mut stream.rx, 4 << 10)
        .await
        .unwrap()
        .unwrap()
        .head;
    (peer, welcome)
}

fn hello() -> Hello {
    Hello {
        magic: MAGIC,
        version: VERSION,
        client: "test".to_owned(),
    }
}

async fn answer(stream: &mut PeerStream) -> Result<Reply, String> {
    let frame = tokio::time::timeout(DEADLINE, read_frame::<Reply>(&mut stream.rx, FRAME_BYTES_MAX))
        .await
        .unwrap();
    frame
        .map_err(|e| e.to_string())?
        .map(|f| f.head)
        .ok_or_else(|| "closed".to_owned())
}

fn is_error(reply: Result<Reply, String>, words: &str) {
    match reply {
        Ok(Reply::Error(e)) => assert!(
            e.message.contains(words),
            "`{}` does not say `{words}`",
            e.message
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn malformed_frames_and_batches_are_refused_at_no_cost() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let (_peer, welcome) = greeted(
            node.quic,
            Hello {
                version: 99,
                ..hello()
            },
        )
        .await;
        assert!(welcome.error.unwrap().message.contains("version 1, not 99"));
        let (_peer, welcome) = greeted(
            node.quic,
            Hello {
                magic: *b"HTTP",
                ..hello()
            },
        )
        .await;
        assert!(welcome.error.unwrap().message.contains("not a Weir client"));

        let (peer, welcome) = greeted(node.quic, hello()).await;
        assert_eq!(welcome.error, None);
        let before = node.rss_mib().unwrap();
        // A length of four gigabytes, and a head longer than its frame.
        let mut stream = peer.open().await.unwrap();
        stream.tx.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        is_error(answer(&mut stream).await, "over the limit");
        let mut stream = peer.open().await.unwrap();
        stream
            .tx
            .write_all(&[0, 0, 0, 4, 0xff, 0xff, 1, 2])
            .await
            .unwrap();
        is_error(answer(&mut stream).await, "cut short");
        // Every first byte of a request, followed by nonsense.
        for first in 0..=255u8 {
            let mut stream = peer.open().await.unwrap();
            let head = [first, 0xff, 0xff, 0xff, 0xff, 0x7f];
            let mut frame = vec![0, 0, 0, 8, 0, 6];
            frame.extend(head);
            stream.tx.write_all(&frame).await.unwrap();
            let _ = stream.tx.finish();
            let _ = answer(&mut stream).await;
        }
        // Announced and never sent: as much is held as came.
        let mut half_open = Vec::new();
        for _ in 0..20 {
            let mut stream = peer.open().await.unwrap();
            stream
                .tx
                .write_all(&(FRAME_BYTES_MAX as u32).to_be_bytes())
                .await
                .unwrap();
            half_open.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let grown = node.rss_mib().unwrap() - before;
        assert!(grown < 32.0, "{grown} MiB for nothing");
        drop(half_open);

        let client = node.client().await.unwrap();
        client
            .create_topic("t", 1, &[("max.message.bytes".into(), "1000".into())])
            .await
            .unwrap();
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(0, None, Some(b"good"), weir_types::Headers::NONE);
        let good = builder.build(Offset::ZERO, None).unwrap().into_bytes();
        let mut stream = peer.open().await.unwrap();
        let mut send = async |batch: Vec<u8>| {
            let request = Request::Produce {
                topic: "t".to_owned(),
                partition: 0,
            };
            write_frame(&mut stream.tx, &request, &[Bytes::from(batch)])
                .await
                .unwrap();
            answer(&mut stream).await
        };
        let change = |at: usize, to: u8| {
            let mut bad = good.to_vec();
            bad[at] = to;
            bad
        };
        is_error(send(Vec::new()).await, "cut short");
        is_error(send(good[..70].to_vec()).await, "cut short");
        is_error(send(change(16, 1)).await, "magic 1");
        is_error(send(change(65, 99)).await, "checksum");
        is_error(send(change(8, 0x7f)).await, "over the limit");
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(0, None, Some(&[1; 2_000]), weir_types::Headers::NONE);
        is_error(
            send(builder.build(Offset::ZERO, None).unwrap().bytes().to_vec()).await,
            "max.message.bytes",
        );
        // Equal readings inflate up to the limit of a batch; more is a bomb.
        let zeros = |mib: usize| {
            let mut builder = BatchBuilder::new(Codec::Zstd);
            for _ in 0..mib {
                builder.push(0, None, Some(&vec![0; 1 << 20]), weir_types::Headers::NONE);
            }
            builder.build(Offset::ZERO, None).unwrap()
        };
        let even = send(zeros(15).bytes().to_vec()).await;
        assert!(matches!(even, Ok(Reply::Produced { .. })), "{even:?}");
        is_error(send(zeros(17).bytes().to_vec()).await, "inflates beyond");
        assert!(
            matches!(send(good.to_vec()).await, Ok(Reply::Produced { .. })),
            "a good one is taken on the same stream"
        );
    });
    assert!(!node.ended(), "{}", node.said());
}

#[test]
fn silent_connections_are_closed_and_block_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let mut silent = Vec::new();
        for _ in 0..60 {
            silent.push(
                weir_peer::connect(node.quic, &KnownNodes::forgetful())
                    .await
                    .unwrap(),
            );
        }
        // Half a handshake, sixty times: packets of nonsense from as many ports.
        for _ in 0..60 {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(&[0xc0; 1_200], node.quic).unwrap();
        }
        let client = node.client().await.unwrap();
        assert!(client.topics().await.unwrap().is_empty());
        // A silent connection is closed after five seconds.
        let gone = tokio::time::timeout(DEADLINE, silent[0].accept())
            .await
            .expect("still connected");
        assert!(gone.is_err());
        assert!(node.rss_mib().unwrap() < 100.0);
    });
}
