//! Ready-made modules with state on many partitions.

use weir_client::{BatchBuilder, Codec, Offset};
use weir_tests::{Node, block_on};

/// Each ready-made module with state, on a topic of 64 partitions with only the required parameters, all on a
/// single node.
#[test]
fn ready_made_modules_run_on_sixty_four_partitions() {
    const PARTITIONS: u32 = 64;
    let modules = [
        ("absence", "{ silence_ms = 60000 }"),
        ("anomaly", r#"{ field = "v" }"#),
        ("compact", r#"{ field = "v", deviation = 0.5 }"#),
        ("deadband", r#"{ field = "v", band = 0.5 }"#),
        ("dedupe", "{ horizon_ms = 60000 }"),
        ("downsample", r#"{ field = "v", every_ms = 60000 }"#),
        ("geofence", "{ fences = { a = [[1, 1], [1, 2], [2, 2]] } }"),
        ("rate-of-change", r#"{ field = "v", per_second = 1 }"#),
        (
            "sequence",
            r#"{ within_ms = 1000, steps = [{ field = "v", than = 1 }, { field = "v", than = 2 }] }"#,
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        for topic in ["out", "other"] {
            client
                .create_topic(topic, PARTITIONS, &weir_tests::for_ever())
                .await
                .unwrap();
        }
        for (module, config) in modules {
            client
                .create_topic(module, PARTITIONS, &weir_tests::for_ever())
                .await
                .unwrap();
            client
                .push_module(module, "1", &weir_tests::module(module))
                .await
                .unwrap();
            let pipeline = |outputs: &str| {
                format!(
                    "name = \"{module}\"\nsource = \"{module}\"\n{outputs}\nstages = [{{ module = \"{module}\", config = {config}, grants = [\"state\", \"timers\"] }}]"
                )
            };
            let mut applied = client.apply_pipeline(&pipeline("")).await.map(|_| ());
            if let Err(told) = &applied {
                // The error names the output of the module.
                let told = told.to_string();
                let output = told.split('`').nth(1).unwrap_or_default();
                let outputs = format!("outputs = {{ {output} = \"out\" }}");
                applied = client.apply_pipeline(&pipeline(&outputs)).await.map(|_| ());
            }
            applied.unwrap_or_else(|e| panic!("{module}: {e}"));
        }
        let joins = weir_tests::module("join");
        client.push_module("join", "1", &joins).await.unwrap();
        let join = r#"
            name = "join"
            source = ["out", "other"]
            at = "log"
            outputs = { main = "joined" }
            stages = [{ module = "join", config = { within_ms = 1000 }, grants = ["state", "timers"] }]
        "#;
        client
            .create_topic("joined", PARTITIONS, &weir_tests::for_ever())
            .await
            .unwrap();
        client.apply_pipeline(join).await.unwrap();
        let mut producer = client.producer().await.unwrap();
        let value = br#"{"v":1,"lat":1.5,"lon":1.5}"#;
        for (module, _) in modules {
            for partition in 0..PARTITIONS {
                let mut builder = BatchBuilder::new(Codec::None);
                builder.push(
                    1_700_000_000_000,
                    Some(b"k"),
                    Some(value),
                    weir_types::Headers::NONE,
                );
                let batch = builder.build(Offset::ZERO, None).unwrap();
                let sent = producer.send(module, partition, &batch).await.unwrap();
                sent.done()
                    .await
                    .unwrap_or_else(|e| panic!("{module}, {partition}: {e}"));
            }
        }
        let told: serde_json::Value = serde_json::to_value(client.pipelines().await.unwrap()).unwrap();
        for pipeline in told.as_array().unwrap() {
            assert_eq!(pipeline["state"], "running", "{pipeline}");
        }
    });
    node.stop().unwrap();
}
