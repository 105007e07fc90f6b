//! A full disk: writes are refused in words, reads go on, and writes are taken again when there is room.

use weir_client::{BatchBuilder, Codec, ErrorKind, Offset};
use weir_tests::disk::Disk;
use weir_tests::{Node, block_on, eventually_async, read_all};

fn free_bytes(path: &std::path::Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[test]
fn full_disk_refuses_writes_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path(), 400) else {
        println!("SKIPPED: loop mounts are not permitted here, so no disk can be filled");
        return;
    };
    let mut node = Node::start_at(
        dir.path(),
        &disk.mount.join("data"),
        &[("WEIR_DISK_RESERVE_BYTES", "134217728")],
    )
    .unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .create_topic("t", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        let mut producer = client.producer().await.unwrap();
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(0, None, Some(&vec![7; 900_000]), weir_types::Headers::NONE);
        let batch = builder.build(Offset::ZERO, None).unwrap();
        let ballast = disk.mount.join("ballast");
        std::fs::write(&ballast, vec![1; 60 << 20]).unwrap();
        let mut acknowledged = 0;
        let refused = loop {
            match producer.send("t", 0, &batch).await.unwrap().done().await {
                Ok(_) => acknowledged += 1,
                Err(e) => break e,
            }
            assert!(acknowledged < 400, "the disk never fills");
        };
        assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
        assert!(refused.to_string().contains("disk is nearly full"), "{refused}");
        let (records, gaps) = read_all(&client, "t", 0, 1 << 20).await.unwrap();
        assert_eq!((records.len(), gaps.len()), (acknowledged, 0), "reads go on");
        std::fs::remove_file(&ballast).unwrap();
        eventually_async("the node accepts writes again", async || {
            producer.send("t", 0, &batch).await.unwrap().done().await
        })
        .await;
        let (records, gaps) = read_all(&client, "t", 0, 1 << 20).await.unwrap();
        assert_eq!((records.len(), gaps.len()), (acknowledged + 1, 0));
        // Fuller than any reserve: calls that free space are still accepted.
        let mut file = std::fs::File::create(&ballast).unwrap();
        while free_bytes(&disk.mount) > 10 << 20 {
            std::io::Write::write_all(&mut file, &[1; 256 << 10]).unwrap();
        }
        drop(file);
        let hour = [("retention.ms".to_owned(), "3600000".to_owned())];
        client.alter_topic("t", None, &hour).await.unwrap();
        client.delete_topic("t").await.unwrap();
        eventually_async("100 MiB are free", async || match free_bytes(&disk.mount) {
            free if free < 100 << 20 => Err(free),
            _ => Ok(()),
        })
        .await;
    });
    assert!(!node.ended(), "{}", node.said());
}

#[test]
fn node_starts_read_only_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path(), 200) else {
        println!("SKIPPED: loop mounts are not permitted here, so no disk can be filled");
        return;
    };
    let data = disk.mount.join("data");
    let env = [("WEIR_DISK_RESERVE_BYTES", "33554432")];
    let start = || Node::start_at(dir.path(), &data, &env);
    let mut node = start().unwrap();
    let records = 40;
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .create_topic("t", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        let mut producer = client.producer().await.unwrap();
        for n in 0..records {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(0, None, Some(&vec![n; 700_000]), weir_types::Headers::NONE);
            let batch = builder.build(Offset::ZERO, None).unwrap();
            producer.send("t", 0, &batch).await.unwrap().done().await.unwrap();
        }
    });
    let ballast = disk.mount.join("ballast");
    for is_killed in [true, false, true] {
        // Another program takes all there is.
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4_096]).is_ok() {}
        drop(file);
        match is_killed {
            true => node.kill().unwrap(),
            false => node.stop().unwrap(),
        }
        node = start().unwrap();
        assert!(node.said().contains("the disk is full"), "{}", node.said());
        block_on(async {
            let client = node.client().await.unwrap();
            let (read, gaps) = read_all(&client, "t", 0, 4 << 20).await.unwrap();
            assert_eq!((read.len(), gaps.len()), (usize::from(records), 0));
            let mut producer = client.producer().await.unwrap();
            let batch = BatchBuilder::new(Codec::None);
            let mut batch = batch.clone();
            batch.push(0, None, Some(b"one more"), weir_types::Headers::NONE);
            let batch = batch.build(Offset::ZERO, None).unwrap();
            let refused = producer
                .send("t", 0, &batch)
                .await
                .unwrap()
                .done()
                .await
                .unwrap_err();
            assert!(refused.to_string().contains("disk is nearly full"), "{refused}");
        });
        assert!(!node.ended(), "{}", node.said());
        std::fs::remove_file(&ballast).unwrap();
        // With room again, the next start keeps some.
        node.stop().unwrap();
        node = start().unwrap();
    }
}
