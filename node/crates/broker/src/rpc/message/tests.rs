//! What other releases ask and answer is read as it was meant.

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
    let led = Led {
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
    let produce = Ask::Produce {
        client: text(),
        topic: text(),
        partition: 1,
        batch: batch(),
        framing: Framing::AsSent,
    };
    let renew = Ask::RenewChannel {
        home: GroupId(1),
        to,
        epoch: 2,
        base: Offset::new(9),
    };
    let read = Ask::Read {
        client: text(),
        topic: text(),
        partition: 1,
        from: Offset::new(9),
        max_bytes: 70_000,
    };
    let place = Ask::Place {
        client: text(),
        topic: text(),
        partition: 1,
        at: At::Time(9),
    };
    let back = Ask::TakeBack {
        pipeline: text(),
        revision: 2,
        why: text(),
    };
    vec![
        ("ask producer ids", bytes(&Ask::ProducerIds)),
        (
            "ask create topic",
            bytes(&Ask::CreateTopic {
                name: text(),
                partitions: 3,
            }),
        ),
        ("ask leads", bytes(&Ask::Leads { group: 1, led })),
        ("ask produce", bytes(&produce)),
        ("ask copy", bytes(&Ask::Copy { partition, at: 300 })),
        ("ask seal", bytes(&Ask::Seal { partition, to })),
        ("ask producers", bytes(&Ask::Producers { partition })),
        ("ask term", bytes(&Ask::Term { group: GroupId(1) })),
        ("ask moved", bytes(&Ask::Moved { to, term: 7 })),
        ("ask forward", bytes(&Ask::Forward { to, batch: batch() })),
        (
            "ask open channel",
            bytes(&Ask::OpenChannel { home: GroupId(1), to }),
        ),
        ("ask renew channel", bytes(&renew)),
        ("ask read", bytes(&read)),
        ("ask place", bytes(&place)),
        (
            "ask ends",
            bytes(&Ask::Ends {
                partitions: vec![partition, to],
            }),
        ),
        (
            "ask prepare",
            bytes(&Ask::Prepare {
                modules: vec![[7; 32]],
            }),
        ),
        ("ask take back", bytes(&back)),
        ("answer producer ids", bytes(&Answer::ProducerIds(5..300))),
        ("answer created", bytes(&Answer::Created)),
        ("answer refused", bytes(&Answer::Refused(text(), true))),
        (
            "answer produced",
            bytes(&Answer::Produced {
                base: Offset::new(9),
                span: 3,
            }),
        ),
        (
            "answer not produced",
            bytes(&Answer::NotProduced(text(), Fate::Unknown)),
        ),
        ("answer windows", bytes(&Answer::Windows(vec![(7, batch())]))),
        ("answer term", bytes(&Answer::Term(7))),
        ("answer forwarded", bytes(&Answer::Forwarded)),
        ("answer expected", bytes(&Answer::Expected(Some(7)))),
        ("answer read", bytes(&Answer::Read(reading))),
        ("answer beyond", bytes(&Answer::Beyond { end: Offset::new(9) })),
        ("answer place", bytes(&Answer::Place(Offset::new(9)))),
        ("answer ends", bytes(&Answer::Ends(vec![Offset::new(9)]))),
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
        match name.starts_with("ask") {
            true => drop(decode::<Ask>("it", &message).unwrap()),
            false => drop(decode::<Answer>("it", &message).unwrap()),
        }
    }
}

#[test]
fn what_a_later_release_asks_is_refused_in_words_that_name_it() {
    let later = decode::<Ask>("what another node asks", &[0x80, 0, 9, 1]).unwrap_err();
    assert!(
        later.to_string().contains("version 9: a later release than"),
        "{later}"
    );
    let unknown = decode::<Ask>("what another node asks", &[120]).unwrap_err();
    assert!(unknown.to_string().contains("no form that release"), "{unknown}");
}
