//! Reads at any fetch size.

use weir_tests::{Node, block_on, read_all};

#[test]
fn fetch_returns_every_record_at_any_size() {
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
