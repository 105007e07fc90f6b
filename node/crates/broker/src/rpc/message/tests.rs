//! Compatibility with messages of other releases.

use super::*;
use std::collections::BTreeMap;
use weir_log::decode;

/// Questions and answers of every kind that release 0.1.0 has, by name.
fn conversation() -> Vec<(&'static str, Vec<u8>)> {
    fn bytes(of: &impl Serialize) -> Vec<u8> {
        postcard::to_allocvec(of).unwrap()
    }
    let (partition, to) = (PartitionId(4), PartitionId(5));
    let (text, batch) = (|| "t".to_owned(), || vec![1, 2]);
    let led = LeaderReport {
        node: 2,
        term: 7,
        members: [1, 2].into(),
        version: 3,
    };
    let gap = Gap {
        start: Offset::ZERO,
        end: Offset::new(9),
        reason: weir_types::GapReason::Expired,
    };
    let reading = Reading {
        pieces: vec![Read::Batch(batch()), Read::Gap(gap)],
        next: Offset::new(9),
        log_start: Offset::ZERO,
        committed_end: Offset::new(300),
    };
    let produce = PeerRequest::Produce {
        client: text(),
        topic: text(),
        partition: 1,
        batch: batch(),
        framing: Framing::AsSent,
    };
    let renew = PeerRequest::RenewChannel {
        home: GroupId(1),
        to,
        epoch: 2,
        base: Offset::new(9),
    };
    let read = PeerRequest::Read {
        client: text(),
        topic: text(),
        partition: 1,
        from: Offset::new(9),
        max_bytes: 70_000,
    };
    let place = PeerRequest::Place {
        client: text(),
        topic: text(),
        partition: 1,
        at: At::Time(9),
    };
    let back = PeerRequest::TakeBack {
        pipeline: text(),
        revision: 2,
        why: text(),
    };
    vec![
        ("ask producer ids", bytes(&PeerRequest::ProducerIds)),
        (
            "ask create topic",
            bytes(&PeerRequest::CreateTopic {
                name: text(),
                partitions: 3,
            }),
        ),
        ("ask leads", bytes(&PeerRequest::Leads { group: 1, led })),
        ("ask produce", bytes(&produce)),
        ("ask copy", bytes(&PeerRequest::Copy { partition, at: 300 })),
        ("ask seal", bytes(&PeerRequest::Seal { partition, to })),
        ("ask producers", bytes(&PeerRequest::Producers { partition })),
        ("ask term", bytes(&PeerRequest::Term { group: GroupId(1) })),
        ("ask moved", bytes(&PeerRequest::Moved { to, term: 7 })),
        ("ask forward", bytes(&PeerRequest::Forward { to, batch: batch() })),
        (
            "ask open channel",
            bytes(&PeerRequest::OpenChannel { home: GroupId(1), to }),
        ),
        ("ask renew channel", bytes(&renew)),
        ("ask read", bytes(&read)),
        ("ask place", bytes(&place)),
        (
            "ask ends",
            bytes(&PeerRequest::Ends {
                partitions: vec![partition, to],
            }),
        ),
        (
            "ask prepare",
            bytes(&PeerRequest::Prepare {
                modules: vec![[7; 32]],
            }),
        ),
        ("ask take back", bytes(&back)),
        ("answer producer ids", bytes(&PeerResponse::ProducerIds(5..300))),
        ("answer created", bytes(&PeerResponse::Done)),
        ("answer refused", bytes(&PeerResponse::Refused(text(), true))),
        (
            "answer produced",
            bytes(&PeerResponse::Produced {
                base: Offset::new(9),
                span: 3,
            }),
        ),
        (
            "answer not produced",
            bytes(&PeerResponse::NotProduced(text(), RetryAdvice::Unknown)),
        ),
        (
            "answer windows",
            bytes(&PeerResponse::Windows(vec![(7, batch())])),
        ),
        ("answer term", bytes(&PeerResponse::Term(7))),
        ("answer forwarded", bytes(&PeerResponse::Forwarded)),
        ("answer expected", bytes(&PeerResponse::Expected(Some(7)))),
        ("answer read", bytes(&PeerResponse::Read(reading))),
        (
            "answer beyond",
            bytes(&PeerResponse::Beyond { end: Offset::new(9) }),
        ),
        ("answer place", bytes(&PeerResponse::Place(Offset::new(9)))),
        ("answer ends", bytes(&PeerResponse::Ends(vec![Offset::new(9)]))),
    ]
}

#[test]
fn what_release_0_1_0_asks_is_understood_and_answered_in_its_words() {
    let recorded = include_str!("../../../../../../tests/fixtures/release-0.1.0.broker.txt");
    let recorded: BTreeMap<&str, &str> = recorded
        .lines()
        .filter_map(|line| line.split_once(": "))
        .collect();
    let now = conversation();
    assert_eq!(recorded.len(), now.len());
    for (name, message) in now {
        let hex: String = message.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(recorded.get(name), Some(&hex.as_str()), "{name}");
        if name.starts_with("ask") {
            drop(decode::<PeerRequest>("it", &message).unwrap())
        } else {
            drop(decode::<PeerResponse>("it", &message).unwrap())
        }
    }
}

#[test]
fn what_a_later_release_asks_is_refused_in_words_that_name_it() {
    let later = decode::<PeerRequest>("what another node asks", &[0x80, 0, 9, 1]).unwrap_err();
    assert!(
        later.to_string().contains("version 9: a later release than"),
        "{later}"
    );
    let unknown = decode::<PeerRequest>("what another node asks", &[120]).unwrap_err();
    assert!(unknown.to_string().contains("no form that release"), "{unknown}");
}
