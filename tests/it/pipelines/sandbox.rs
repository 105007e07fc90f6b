//! Modules that loop, grow, trap, lie, flood or want what they were not granted: each is stopped within its limit, its
//! batch goes where the policy says, and nobody else is harmed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_runtime::{
    CallError, CallFailure, CallLimits, InitError, Instance, InstanceConfig, Instruments, LoadError,
    LogLevel, LogSink, Moment, Runtime, RuntimeOptions, Setting, Table, TimerClock, componentize,
};
use weir_tests::{Node, block_on, guest, guest_with_wasi, read_all};
use weir_types::{Batch, Columns, Wanted};

const LIMITS: CallLimits = CallLimits {
    deadline_ms: 50,
    memory_bytes: 8 << 20,
    output_bytes: 4 << 20,
    log_lines: 16,
    state_bytes: 64 << 10,
};

fn config(mode: &str) -> InstanceConfig {
    let settings = BTreeMap::from([("mode".to_owned(), Setting::Text(mode.to_owned()))]);
    InstanceConfig {
        partition: 0,
        sources: vec!["t".to_owned()],
        settings,
    }
}

fn columns(values: &[&str]) -> Columns {
    let mut builder = BatchBuilder::new(Codec::None);
    values
        .iter()
        .for_each(|v| builder.push(0, None, Some(v.as_bytes()), weir_types::Headers::NONE));
    let batch = builder.build(Offset::ZERO, None).unwrap();
    Columns::read(
        &batch.body().unwrap(),
        batch.count(),
        Wanted {
            values: true,
            ..Wanted::default()
        },
    )
    .unwrap()
}

struct Lines(std::sync::Mutex<Vec<usize>>);

impl LogSink for Lines {
    fn line(&self, _: LogLevel, line: &str) {
        self.0.lock().unwrap().push(line.len());
    }
}

#[test]
fn each_misdeed_is_stopped_and_named() {
    let runtime = Runtime::new(RuntimeOptions::plain()).unwrap();
    let component = componentize(&guest("hostile")).unwrap().into_owned();
    let module = runtime.load(&component).unwrap();
    let lines = Arc::new(Lines(std::sync::Mutex::default()));
    let make = |mode: &str| -> Result<Instance, InitError> {
        module.instantiate(
            &config(mode),
            LIMITS,
            Arc::clone(&lines) as _,
            Arc::new(Instruments::default()),
        )
    };
    let input = columns(&["a", "b"]);
    let call = |mode: &str| {
        make(mode)
            .unwrap()
            .process(0, Moment::default(), &input, &[], &mut None)
    };
    let failed = |mode: &str| match call(mode) {
        Err(CallError::Failed(failure)) => failure,
        other => panic!("{mode}: {other:?}"),
    };

    assert_eq!(call("well").unwrap().routes, [1, 1]);
    let begun = Instant::now();
    assert!(matches!(failed("loop"), CallFailure::Deadline(_)));
    let took = begun.elapsed();
    // Making the instance is part of it; the debug build of the tests is slow at that.
    assert!(
        took < Duration::from_millis(50 + 20 + 150),
        "stopped after {took:?}"
    );
    assert!(matches!(
        make("init-loop"),
        Err(InitError::Failed(CallFailure::Deadline(_)))
    ));
    assert!(matches!(failed("memory"), CallFailure::Memory(_)));
    assert!(matches!(failed("trap"), CallFailure::Trap(_)));
    assert!(matches!(failed("deep"), CallFailure::Trap(_)));
    assert!(matches!(
        failed("huge"),
        CallFailure::Output(_) | CallFailure::Memory(_)
    ));
    for (lie, words) in [
        ("short-routes", "3 routes for 2 records"),
        ("no-output", "output 9"),
        ("copy-index", "copy of record 2"),
        ("copy-output", "output 0"),
        ("emit-source", "stems from record 2 of 2"),
        ("emit-output", "output 200"),
        ("emit-ends", "ends at 99, beyond its 2 bytes"),
        ("emit-count", "2 ends for 1 items"),
        ("emit-nulls", "3 nulls for 1 items"),
        ("reason-index", "reason for record 4294967295"),
        ("poison-index", "poison record 7"),
    ] {
        match failed(lie) {
            CallFailure::Lies(said) => assert!(said.contains(words), "{lie}: {said}"),
            other => panic!("{lie}: {other:?}"),
        }
    }
    // None of it leaves a trace, in a table that had something.
    for (misdeed, words) in [
        ("state-hoard", "on all partitions, has reached 65536 bytes"),
        ("state-key", "a key of its state has 5000 bytes"),
        ("state-value", "a value of its state has 1048577 bytes"),
        ("state-again", "changes more than 2097152 bytes of its state"),
        ("state-wide", "more of it than `limits.output_bytes` allows"),
        ("state-ends", "a column of keys ends at 9, beyond its 1 bytes"),
        ("state-count", "a column of values has 0 ends for 1 items"),
        ("timer-hoard", "on all partitions, has reached 65536 bytes"),
        ("timer-key", "a key of its state has 5000 bytes"),
        ("timer-null", "the key of timer 0 is null"),
        ("timer-count", "1 times for 2 timers"),
        ("timer-ends", "a column of timers has 1 ends for 2 items"),
        ("timer-then-trap", ""),
        ("state-then-trap", ""),
        ("state-then-lie", ""),
    ] {
        let mut table = Table::new(LIMITS.state_bytes);
        table.load(b"k", b"before");
        table.load_timer(TimerClock::Event, b"k", 0, 7);
        let before = table.clone();
        let mut table = Some(table);
        let failed = make(misdeed)
            .unwrap()
            .process(0, Moment::default(), &input, &[], &mut table);
        match failed {
            Err(CallError::Failed(CallFailure::State(why))) => {
                assert!(why.contains(words), "{misdeed}: {why}")
            }
            // An endless one may also run out of time.
            Err(CallError::Failed(CallFailure::Deadline(_))) if misdeed == "state-again" => {}
            Err(CallError::Failed(CallFailure::Trap(_) | CallFailure::Lies(_))) if words.is_empty() => {}
            other => panic!("{misdeed}: {other:?}"),
        }
        let seen = |table: &Table| {
            let rows: Vec<_> = table
                .scan(&[], None)
                .map(|(k, v)| (k.to_vec(), v.to_vec()))
                .collect();
            (
                rows,
                table.timers(),
                table.bytes(),
                table.first_due(TimerClock::Event),
            )
        };
        assert_eq!(
            table.as_ref().map(seen),
            Some(seen(&before)),
            "{misdeed} left something"
        );
    }
    let mut table = Some(Table::new(LIMITS.state_bytes));
    make("state-well")
        .unwrap()
        .process(0, Moment::default(), &input, &[], &mut table)
        .unwrap();
    assert_eq!(table.as_ref().and_then(|t| t.get(b"k")), Some(&b"v"[..]));
    assert!(
        matches!(failed("state-well"), CallFailure::State(why) if why.contains("none")),
        "without a table"
    );
    assert!(matches!(call("fatal"), Err(CallError::Fatal(_))));
    assert!(matches!(call("retry"), Err(CallError::Retry(_))));
    assert!(matches!(failed("metric-late"), CallFailure::Trap(why) if why.contains("init")));
    assert!(matches!(failed("metric-unknown"), CallFailure::Trap(why) if why.contains("77")));
    // A flood costs its own call: by the deadline or by the bytes it hands over; what is kept is cut and counted.
    let _ = call("log-flood");
    let kept = lines.0.lock().unwrap().clone();
    assert!(
        kept.len() <= 17 && kept.iter().all(|l| *l <= 1_024),
        "{} lines",
        kept.len()
    );
}

#[test]
fn what_was_not_granted_is_refused_by_name() {
    let runtime = Runtime::new(RuntimeOptions::plain()).unwrap();
    let greedy = componentize(&guest("greedy")).unwrap().into_owned();
    match runtime.load(&greedy) {
        Err(LoadError::Import { import }) => assert_eq!(import, "greedy:guest/clock"),
        other => panic!("{:?}", other.map(|m| m.digest())),
    }
    for bytes in [&b""[..], b"\0asm", b"not wasm at all", b"\0asm\x0d\0\x01\0"] {
        assert!(
            componentize(bytes).and_then(|c| runtime.load(&c)).is_err(),
            "{bytes:?}"
        );
    }
    // An upload that was cut short: named as such, and not by the encoder's panic, which would be caught too.
    let whole = guest("hostile");
    for len in (0..whole.len()).step_by(whole.len() / 50) {
        let error = componentize(&whole[..len]).unwrap_err().to_string();
        assert!(!error.contains("metadata"), "{len}: {error}");
    }
}

#[test]
fn a_component_that_links_wasi_finds_it_empty() {
    let runtime = Runtime::new(RuntimeOptions::plain()).unwrap();
    let module = runtime.load(&guest_with_wasi("std_guest")).unwrap();
    assert!(module.imports().iter().any(|i| i.starts_with("wasi:sockets/")));
    let lines = Arc::new(Texts::default());
    let input = columns(&["a"]);
    let at = |mode: &str, now: i64| {
        let made = module.instantiate(
            &config(mode),
            LIMITS,
            Arc::clone(&lines) as _,
            Arc::new(Instruments::default()),
        );
        let outcome = made.unwrap().process(
            0,
            Moment {
                now,
                ..Moment::default()
            },
            &input,
            &[],
            &mut None,
        )?;
        let said = outcome
            .emitted()
            .next()
            .and_then(|e| e.value.flatten().map(<[u8]>::to_vec));
        Ok::<_, CallError>(String::from_utf8_lossy(&said.unwrap_or_default()).into_owned())
    };
    assert_eq!(at("clock", 1_700_000_000_123).unwrap(), "1700000000123 true");
    assert_eq!(at("surroundings", 0).unwrap(), "0 0");
    assert_eq!(at("stdin", 0).unwrap(), "Ok(\"\")");
    assert_eq!(at("file", 0).unwrap(), "Err(NotFound)");
    assert_eq!(at("sleep", 0).unwrap(), "slept");
    // The same batch meets the same randomness on every node; another batch another.
    assert_eq!(at("random", 7).unwrap(), at("random", 7).unwrap());
    assert_ne!(at("random", 7).unwrap(), at("random", 8).unwrap());

    at("print", 0).unwrap();
    let said = lines.0.lock().unwrap().clone();
    let expected = [
        (LogLevel::Info, "one line"),
        (LogLevel::Warn, "a warning"),
        (LogLevel::Warn, "half a line"),
    ];
    assert_eq!(said, expected.map(|(level, line)| (level, line.to_owned())));
    let trap = |mode: &str| match at(mode, 0) {
        Err(CallError::Failed(CallFailure::Trap(why))) => why,
        other => panic!("{mode}: {other:?}"),
    };
    assert!(trap("exit").contains("a module returns"));
    assert!(trap("network").contains("no network"));
    trap("panic");
    let said = lines.0.lock().unwrap().clone();
    assert!(
        said.iter().any(|(_, line)| line.contains("with words")),
        "{said:?}"
    );
}

#[derive(Default)]
struct Texts(std::sync::Mutex<Vec<(LogLevel, String)>>);

impl LogSink for Texts {
    fn line(&self, level: LogLevel, line: &str) {
        self.0.lock().unwrap().push((level, line.to_owned()));
    }
}

fn pipeline(name: &str, source: &str, mode: &str, policy: &str) -> String {
    format!(
        "name = \"{name}\"\nsource = \"{source}\"\non_error = {{ policy = \"{policy}\" }}\nlimits = {{ deadline_ms = 20 }}\n\
         [[stages]]\nmodule = \"hostile\"\ngrants = [\"state\", \"timers\"]\nconfig = {{ mode = \"{mode}\" }}\n"
    )
}

fn batch(values: impl IntoIterator<Item = String>) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    values
        .into_iter()
        .for_each(|v| builder.push(0, None, Some(v.as_bytes()), weir_types::Headers::NONE));
    builder.build(Offset::ZERO, None).unwrap()
}

async fn topic_with(client: &Client, topic: &str, mode: &str, policy: &str) {
    client
        .create_topic(topic, 1, &weir_tests::for_ever())
        .await
        .unwrap();
    client
        .apply_pipeline(&pipeline(topic, topic, mode, policy))
        .await
        .unwrap();
}

#[test]
fn a_bad_record_is_singled_out_and_the_policy_decides() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        for mode in ["trap-on-bad", "loop-on-bad"] {
            let (dead, skip, halt) = (format!("{mode}.d"), format!("{mode}.s"), format!("{mode}.h"));
            topic_with(&client, &dead, mode, "dead-letter").await;
            topic_with(&client, &skip, mode, "skip").await;
            topic_with(&client, &halt, mode, "halt").await;
            let values = || {
                (0..40).map(|i| {
                    if i == 17 {
                        "bad".to_owned()
                    } else {
                        format!("v{i}")
                    }
                })
            };
            let mut producer = client.producer().await.unwrap();
            producer
                .send(&dead, 0, &batch(values()))
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
            producer
                .send(&skip, 0, &batch(values()))
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
            let halted = producer
                .send(&halt, 0, &batch(values()))
                .await
                .unwrap()
                .done()
                .await
                .unwrap_err();
            let halted = halted.to_string();
            assert!(
                halted
                    .contains("halted: stage 1, module `hostile@1`, on a record without a key, of time 0: "),
                "{halted}"
            );
            for topic in [&dead, &skip] {
                let (kept, _) = read_all(&client, topic, 0, 1 << 20).await.unwrap();
                let offsets: Vec<u64> = kept.iter().map(|(o, _)| *o).collect();
                assert_eq!(
                    offsets,
                    (0..40).filter(|o| *o != 17).collect::<Vec<_>>(),
                    "{topic}"
                );
            }
            let (letters, _) = read_all(&client, &format!("{dead}.dead"), 0, 1 << 20)
                .await
                .unwrap();
            assert_eq!(letters.len(), 1);
            let header = |name: &str| {
                let found = letters[0].1.headers.iter().find(|(n, _)| n == name);
                String::from_utf8(found.unwrap().1.as_ref().unwrap().to_vec()).unwrap()
            };
            assert_eq!(header("weir.source.offset").parse::<u64>().unwrap(), 17);
            assert_eq!(header("weir.attempts"), "2");
            let (skipped, _) = read_all(&client, &format!("{skip}.dead"), 0, 1 << 20)
                .await
                .unwrap();
            assert!(skipped.is_empty());
            let (none, _) = read_all(&client, &halt, 0, 1 << 20).await.unwrap();
            assert!(none.is_empty(), "a refused batch leaves nothing");
        }

        // Behind the log, the same, and where the record is.
        let forever = weir_tests::for_ever();
        for topic in ["stored", "through"] {
            client.create_topic(topic, 1, &forever).await.unwrap();
        }
        let behind = "name = \"behind\"\nat = \"log\"\nsource = \"stored\"\noutputs = { main = \"through\" }\n\
                      on_error = { policy = \"halt\" }\nlimits = { deadline_ms = 50 }\n\
                      stages = [{ module = \"hostile\", grants = [\"state\", \"timers\"], config = { mode = \"trap-on-bad\" } }]\n";
        client.apply_pipeline(behind).await.unwrap();
        let mut producer = client.producer().await.unwrap();
        for n in 0..3 {
            let values = (0..4).map(|i| {
                if (n, i) == (2, 1) {
                    "bad".to_owned()
                } else {
                    format!("v{i}")
                }
            });
            let sent = producer.send("stored", 0, &batch(values)).await.unwrap();
            sent.done().await.unwrap();
        }
        let begun = std::time::Instant::now();
        loop {
            let told: serde_json::Value = serde_json::from_slice(&client.pipelines().await.unwrap()).unwrap();
            let told = told
                .as_array()
                .unwrap()
                .iter()
                .find(|p| p["name"] == "behind")
                .unwrap()
                .clone();
            let why = told["why"].as_str().unwrap_or_default();
            if told["state"] == "halted" {
                assert!(
                    why.contains("stage 1, module `hostile@1`, on a record without a key"),
                    "{why}"
                );
                assert!(
                    why.contains("(topic `stored`, partition 0, offsets 8 to 11)"),
                    "{why}"
                );
                // What had gone through may be there; what had not is not.
                assert!(told["lag"].as_u64().unwrap() >= 4, "{told}");
                break;
            }
            assert!(begun.elapsed() < weir_tests::DEADLINE, "{told}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn what_nobody_could_read_again_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        for mode in ["emit-header", "reject", "thrice"] {
            topic_with(&client, mode, mode, "dead-letter").await;
        }
        let mut producer = client.producer().await.unwrap();
        // The second has as many headers as a record may have.
        let full = || {
            let mut batch = BatchBuilder::new(Codec::None);
            for count in [1, 10_000, 2] {
                let mut headers = weir_types::HeaderBuf::default();
                (0..count).for_each(|n: u32| headers.push(b"n", Some(&n.to_be_bytes())));
                let encoded = headers.encoded();
                batch.push(0, None, Some(b"v"), weir_types::HeaderBuf::view(&encoded));
            }
            batch.build(Offset::ZERO, None).unwrap()
        };
        for (topic, left, dead) in [
            ("emit-header", &[2, 3][..], &[10_000][..]),
            ("reject", &[], &[8, 10_000, 9]),
        ] {
            let sent = producer.send(topic, 0, &full()).await.unwrap();
            sent.done().await.unwrap();
            let (kept, _) = read_all(&client, topic, 0, 4 << 20).await.unwrap();
            let (letters, _) = read_all(&client, &format!("{topic}.dead"), 0, 4 << 20)
                .await
                .unwrap();
            let counts = |records: &[(u64, weir_types::Record)]| -> Vec<usize> {
                records.iter().map(|(_, r)| r.headers.len()).collect()
            };
            assert_eq!(counts(&kept), left, "{topic}");
            assert_eq!(counts(&letters), dead, "{topic}");
            for (_, letter) in &letters {
                let last = letter.headers.last().unwrap();
                assert_eq!(last.0, "weir.source.offset");
            }
        }
        let (letters, _) = read_all(&client, "emit-header.dead", 0, 4 << 20).await.unwrap();
        let error = letters[0]
            .1
            .headers
            .iter()
            .find(|(n, _)| n == "weir.error")
            .unwrap();
        let error = String::from_utf8(error.1.as_ref().unwrap().to_vec()).unwrap();
        assert!(error.contains("a record with 10001 headers"), "{error}");

        // More than one batch may be: 3 MiB, three times; and what was compressed, as dead letters.
        let values = (0..3).map(|n| format!("{n}{}", "x".repeat(1 << 20)));
        let sent = producer.send("thrice", 0, &batch(values)).await.unwrap();
        sent.done().await.unwrap();
        let (kept, _) = read_all(&client, "thrice", 0, 64 << 20).await.unwrap();
        let firsts: Vec<_> = kept.iter().map(|(_, r)| r.value.as_ref().unwrap()[0]).collect();
        assert_eq!(firsts, *b"012001122");
        let mut large = BatchBuilder::new(Codec::Zstd);
        let mut noise = std::iter::successors(Some(1_u32), |n| {
            Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
        });
        for mib in [1, 5, 2] {
            let value: Vec<u8> = noise
                .by_ref()
                .take(mib << 20)
                .map(|n| (n >> 24) as u8 & 7)
                .collect();
            large.push(0, None, Some(&value), weir_types::Headers::NONE);
        }
        let large = large.build(Offset::ZERO, None).unwrap();
        // So small once it is compressed that much more comes of it than is usual.
        let mut even = BatchBuilder::new(Codec::Snappy);
        even.push(0, None, Some(&vec![b'x'; 5 << 20]), weir_types::Headers::NONE);
        for batch in [large, even.build(Offset::ZERO, None).unwrap()] {
            let sent = producer.send("reject", 0, &batch).await.unwrap();
            sent.done().await.unwrap();
        }
        let (letters, _) = read_all(&client, "reject.dead", 0, 64 << 20).await.unwrap();
        let lens: Vec<_> = letters
            .iter()
            .map(|(_, r)| r.value.as_ref().unwrap().len())
            .collect();
        assert_eq!(lens[3..], [1 << 20, 5 << 20, 2 << 20, 5 << 20]);
        client.close().await;
    });
    node.stop().unwrap();
}

#[test]
fn a_module_that_always_loops_opens_its_breaker_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        topic_with(&client, "bad", "loop", "dead-letter").await;
        topic_with(&client, "good", "well", "dead-letter").await;
        let flood = {
            let client = client.clone();
            tokio::spawn(async move {
                let mut producer = client.producer().await.unwrap();
                for i in 0..60 {
                    let sent = producer.send("bad", 0, &batch([format!("{i}")])).await.unwrap();
                    if let Err(e) = sent.done().await {
                        return e.to_string();
                    }
                }
                String::new()
            })
        };
        let mut producer = client.producer().await.unwrap();
        for i in 0..200 {
            producer
                .send("good", 0, &batch([format!("{i}")]))
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
        }
        let (kept, _) = read_all(&client, "good", 0, 1 << 20).await.unwrap();
        assert_eq!(kept.len(), 200);
        let said = flood.await.unwrap();
        assert!(
            said.contains("halted") && said.contains("in a row failed"),
            "{said}"
        );
        // Nothing was dropped: what came before the breaker opened is a dead letter.
        let (letters, _) = read_all(&client, "bad.dead", 0, 1 << 20).await.unwrap();
        assert!(!letters.is_empty());
    });
}

#[test]
fn a_module_that_misbehaves_runs_behind_the_others_until_it_behaves() {
    let dir = tempfile::tempdir().unwrap();
    for (privileged, name) in [(true, "a"), (false, "b")] {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let node = if privileged {
            Node::start(&dir, &[]).unwrap()
        } else {
            Node::start_unprivileged(&dir).unwrap()
        };
        block_on(async {
            let client = node.client().await.unwrap();
            client
                .push_module("hostile", "1", &guest("hostile"))
                .await
                .unwrap();
            topic_with(&client, "t", "trap-on-bad", "skip").await;
            let mut producer = client.producer().await.unwrap();
            // A thread takes its name when it first runs.
            let begun = Instant::now();
            let before = loop {
                match node.nice("pipe-t") {
                    Ok(nice) => break nice,
                    Err(e) => assert!(begun.elapsed() < weir_tests::DEADLINE, "{e}"),
                }
                tokio::task::yield_now().await;
            };
            let mut sent = 0;
            for value in std::iter::once("bad").chain(std::iter::repeat_n("fine", 25)) {
                let batch = batch([value.to_owned()]);
                producer.send("t", 0, &batch).await.unwrap().done().await.unwrap();
                sent += 1;
                if sent == 1 {
                    assert_eq!(node.nice("pipe-t").unwrap(), before.max(10));
                }
            }
            // The answer goes out before the thread looks at itself.
            let begun = Instant::now();
            while node.nice("pipe-t").ok() != Some(before) {
                assert!(
                    begun.elapsed() < Duration::from_secs(10),
                    "still behind, privileged: {privileged}"
                );
                tokio::task::yield_now().await;
            }
            let (kept, _) = read_all(&client, "t", 0, 1 << 20).await.unwrap();
            assert_eq!(kept.len(), 25);
        });
    }
}

#[test]
fn timers_that_misbehave_end_their_own_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let fired = async |client: &Client, name: &str| {
        let told = client.pipelines().await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        let of = told.as_array().unwrap().iter().find(|p| p["name"] == name);
        of.unwrap().clone()
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        let mut producer = client.producer().await.unwrap();
        let one = || batch(["x".to_owned()]);
        for (mode, policy) in [
            ("timer-traps", "halt"),
            ("timer-keeps", "halt"),
            ("timer-traps", "skip"),
            ("timer-keeps", "dead-letter"),
        ] {
            let topic = format!("{mode}.{policy}");
            topic_with(&client, &topic, mode, policy).await;
            producer
                .send(&topic, 0, &one())
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
            let begun = Instant::now();
            loop {
                let told = fired(&client, &topic).await;
                let halted = told["state"] == "halted";
                let why = told["why"].as_str().unwrap_or_default();
                if halted && policy == "halt" {
                    let words = if mode == "timer-traps" {
                        "trap"
                    } else {
                        "kept, copied or rejected"
                    };
                    assert!(why.contains(words), "{why}");
                    break;
                }
                if told["skipped"] == 1 && policy == "skip" {
                    break;
                }
                if told["dead_letters"] == 1 {
                    let (dead, _) = read_all(&client, &format!("{topic}.dead"), 0, 1 << 20)
                        .await
                        .unwrap();
                    let Some((_, dead)) = dead.first() else { continue };
                    let headers: BTreeMap<_, _> = dead.headers.iter().cloned().collect();
                    assert!(
                        headers.contains_key("weir.timer") && !headers.contains_key("weir.source.offset")
                    );
                    assert_eq!(dead.key.as_deref(), Some(&b"k"[..]));
                    break;
                }
                assert!(begun.elapsed() < weir_tests::DEADLINE, "{topic}: {told}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // One that sets itself again and again, for a time that has passed, fires once a millisecond at most: records get
        // through, and when it is paused it is still.
        topic_with(&client, "ever", "timer-for-ever", "halt").await;
        let begun = Instant::now();
        producer
            .send("ever", 0, &one())
            .await
            .unwrap()
            .done()
            .await
            .unwrap();
        let so_far = async || fired(&client, "ever").await["timers_fired"].as_u64().unwrap();
        while so_far().await < 20 {
            assert!(begun.elapsed() < weir_tests::DEADLINE);
            producer
                .send("ever", 0, &one())
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
        }
        assert!(u128::from(so_far().await) <= begun.elapsed().as_millis() + 1);
        let output = node.cli(&["pipeline", "pause", "ever"], "").unwrap();
        assert!(output.status.success());
        let still = so_far().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(so_far().await, still, "it fires although it is paused");
    });
    node.stop().unwrap();
}
