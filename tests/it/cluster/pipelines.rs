//! Modules and pipelines on all nodes of a site.

use weir_tests::site::Site;
use weir_tests::{block_on, eventually_async};

#[test]
fn pipelines_are_ready_on_every_node_and_run_on_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let count_of = |topic: &str| {
        block_on(async {
            let client = site.client().await.unwrap();
            weir_tests::read_all(&client, topic, 0, 1 << 20)
                .await
                .unwrap()
                .0
                .len()
        })
    };
    block_on(async {
        let client = site.client().await.unwrap();
        client
            .create_topic("t", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        client
            .push_module("threshold", "1.0", &weir_tests::module("threshold"))
            .await
            .unwrap();
        let toml = r#"
            name = "hot"
            source = "t"
            [[stages]]
            module = "threshold"
            config = { field = "v", is = ">", limit = 50 }
        "#;
        client.apply_pipeline(toml).await.unwrap();
    });
    // Before the pipeline was applied.
    let is_ready = |number: &usize| {
        let told = std::fs::read_to_string(dir.path().join(number.to_string()).join("node.log"));
        told.unwrap().contains("ready for a revision")
    };
    let leads = site.leader().unwrap();
    let ready: Vec<usize> = (1..=3).filter(is_ready).collect();
    assert_eq!(
        ready,
        (1..=3).filter(|n| *n != leads).collect::<Vec<_>>(),
        "the others have it compiled"
    );
    let produce = |n: usize| {
        block_on(async {
            let client = site.client().await.unwrap();
            let mut producer = client.producer().await.unwrap();
            for i in 0..n {
                let mut builder = weir_client::BatchBuilder::new(weir_client::Codec::None);
                let value = format!("{{\"v\":{}}}", if i % 2 == 0 { 10 } else { 90 });
                builder.push(0, None, Some(value.as_bytes()), weir_types::Headers::NONE);
                let batch = builder.build(weir_client::Offset::ZERO, None).unwrap();
                // The next leader refuses records until its module is ready: nothing passes unfiltered.
                eventually_async("the leader has the module ready", async || {
                    let sent = producer.send("t", 0, &batch).await.unwrap().done().await;
                    sent.map_err(|why| format!("{why}\n{}", site.said()))
                })
                .await;
            }
        })
    };
    produce(10);
    assert_eq!(count_of("t"), 5);
    let leader = site.leader().unwrap();
    let next = leader % 3 + 1;
    site.transfer(next).unwrap();
    produce(10);
    assert_eq!(count_of("t"), 10);
    // A node that joins later has the pipeline, too.
    let _ = (count_of, produce);
    let fourth = site.grow(&dir.path().join("4")).unwrap();
    site.until_voters(4).unwrap();
    site.transfer(fourth).unwrap();
    let read = block_on(async {
        let client = site.client().await.unwrap();
        client.pipelines().await.unwrap()
    });
    assert!(
        read.iter().any(|pipeline| pipeline.state.name() == "running"),
        "{read:?}"
    );
}
