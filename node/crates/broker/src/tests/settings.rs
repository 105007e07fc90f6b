//! Effects of topic settings, and topics that are not created.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_dated_within_what_its_topic_allows_once_the_clock_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let broker = open_with(dir.path(), Arc::clone(&clock) as _, Options::default()).await;
    broker.raise_level().await;
    topic(&broker, "t", &[]).await;
    topic(&broker, "past", &[("message.timestamp.before.max.ms", "1000")]).await;
    topic(&broker, "now", &[("message.timestamp.type", "LogAppendTime")]).await;
    let now = clock.0.load(Ordering::Relaxed);
    let hour = 3_600_000;
    send(&broker, "t", dated(now + hour, 10)).await.unwrap();
    send(&broker, "t", dated(-1, 10)).await.unwrap();
    send(&broker, "past", dated(now - 1_000, 10)).await.unwrap();
    send(&broker, "now", dated(now + 2 * hour, 10)).await.unwrap();
    for (topic, at) in [("t", now + hour + 1), ("past", now - 1_001)] {
        let refused = send(&broker, topic, dated(at, 10)).await.unwrap_err();
        assert!(matches!(refused, crate::ProduceError::Dated { .. }), "{refused}");
        assert!(refused.to_string().contains("message.timestamp"), "{refused}");
    }
    // A gateway without a battery starts like this, and cannot tell timestamps that are ahead.
    clock.0.store(1_000, Ordering::Relaxed);
    send(&broker, "t", dated(now + 10 * hour, 10)).await.unwrap();
    broker.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_by_key_has_keys_and_is_neither_expired_nor_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let options = Options {
        disk_budget_bytes: Some(1 << 20),
        ..Options::default()
    };
    let broker = open_with(dir.path(), Arc::clone(&clock) as _, options).await;
    broker.raise_level().await;
    let week = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "1000"),
        ("retention.bytes", "1000"),
    ];
    topic(&broker, "last", &week).await;
    topic(
        &broker,
        "both",
        &[("cleanup.policy", "compact,delete"), ("retention.ms", "1000")],
    )
    .await;
    let keyed = || {
        let mut builder = BatchBuilder::new(Codec::None);
        let now = clock.0.load(Ordering::Relaxed);
        builder.push(now, Some(b"k"), Some(&vec![7; 900_000]), Headers::NONE);
        builder.build(Offset::ZERO, None).unwrap()
    };
    let refused = send(&broker, "last", dated(-1, 10)).await.unwrap_err();
    assert!(
        matches!(refused, crate::ProduceError::Keyless { .. }),
        "{refused}"
    );
    for topic in ["last", "last", "both", "both"] {
        send(&broker, topic, keyed()).await.unwrap();
    }
    let starts = || ["last", "both"].map(|name| broker.marks(name, 0).unwrap().log_start().get());
    broker.keep_within_budget().await;
    assert_eq!(starts(), [0, 0]);
    for _ in 0..4 {
        clock.0.fetch_add(30_000, Ordering::Relaxed);
        broker.retain().await;
    }
    assert_eq!(starts(), [0, 2]);
    let who = Principal::anonymous("test");
    let trimmed = broker
        .trim(&who, "last", 0, Offset::new(1), GapReason::Deleted)
        .await;
    assert!(
        matches!(trimmed, Err(crate::AdminError::KeptByKey(_))),
        "{trimmed:?}"
    );
    broker.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_refused_is_not_made_because_somebody_uses_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_with(
        dir.path(),
        Arc::new(TestClock::default()) as _,
        Options::default(),
    )
    .await;
    broker.raise_level().await;
    let who = Principal::anonymous("test");
    let more = [("min.insync.replicas".to_owned(), "2".to_owned())];
    let refused = broker.create_topic(&who, "t", 1, &more).await.unwrap_err();
    assert!(
        matches!(refused, crate::AdminError::Copies { asked: 2, copies: 1 }),
        "{refused}"
    );
    broker.note_refused_anywhere(&who, "t").await;
    for name in ["t", "__consumer_offsets", "__x"] {
        let unasked = broker.create_topic_unasked(&who, name, 1).await;
        assert!(
            matches!(unasked, Err(crate::AdminError::NoTopic(_))),
            "{unasked:?}"
        );
    }
    broker.create_topic_unasked(&who, "other", 1).await.unwrap();
    broker
        .create_topic_anywhere(&who, "t", 1, None, &[])
        .await
        .unwrap();
    // Existence is checked before the settings.
    let there = broker.create_topic(&who, "t", 1, &more).await.unwrap_err();
    assert!(matches!(there, crate::AdminError::Exists(_)), "{there}");
    broker.close();
}
