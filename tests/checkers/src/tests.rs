//! Each rule has a history that violates the rule, and a correct history that passes.

use super::*;
use proptest::prelude::*;

fn place() -> Place {
    Place {
        topic: "t".to_owned(),
        partition: 0,
    }
}

fn send(value: u64, outcome: Outcome, offset: Option<u64>) -> Event {
    Event::Send {
        client: 1,
        place: place(),
        value,
        outcome,
        offset,
    }
}

fn seen(records: &[(u64, u64)]) -> Vec<Seen> {
    records
        .iter()
        .map(|&(offset, value)| Seen { offset, value })
        .collect()
}

fn poll(records: &[(u64, u64)]) -> Event {
    Event::Poll {
        client: 2,
        place: place(),
        records: seen(records),
    }
}

fn at_rest(node: u32, records: &[(u64, u64)]) -> Event {
    Event::Final {
        node,
        place: place(),
        records: seen(records),
    }
}

fn commit(offset: u64, outcome: Outcome) -> Event {
    Event::Commit {
        group: "g".to_owned(),
        place: place(),
        offset,
        outcome,
    }
}

fn committed(offset: Option<u64>) -> Event {
    Event::Committed {
        group: "g".to_owned(),
        place: place(),
        offset,
    }
}

/// Values 10, 11 and 12 at offsets 0, 1 and 2.
fn sound() -> Vec<Event> {
    vec![
        send(10, Outcome::Ok, Some(0)),
        send(11, Outcome::Unknown, None),
        send(12, Outcome::Ok, Some(2)),
        send(13, Outcome::Failed, None),
        poll(&[(0, 10), (1, 11)]),
        poll(&[(2, 12)]),
        at_rest(1, &[(0, 10), (1, 11), (2, 12)]),
        at_rest(2, &[(0, 10), (1, 11), (2, 12)]),
    ]
}

/// Exactly the rules that `change` breaks must speak.
fn broken(change: impl FnOnce(&mut Vec<Event>)) -> Vec<String> {
    let mut events = sound();
    assert_eq!(check(&events), []);
    change(&mut events);
    let mut said: Vec<String> = check(&events)
        .iter()
        .map(|v| v.to_string().split(':').next().unwrap_or_default().to_owned())
        .collect();
    said.dedup();
    said
}

#[test]
fn a_lost_write() {
    let said = broken(|e| {
        e.insert(3, send(14, Outcome::Ok, Some(3)));
    });
    assert_eq!(said, ["lost write"]);
}

#[test]
fn a_write_that_nobody_was_asked_to_find_is_unseen_and_not_lost() {
    let mut events = vec![send(14, Outcome::Ok, Some(3))];
    assert_eq!(check(&events), []);
    assert_eq!(unseen(&events), [(place(), 14)]);
    events.push(poll(&[(3, 14)]));
    assert_eq!(unseen(&events), []);
}

#[test]
fn a_loss_on_one_node() {
    let said = broken(|e| {
        e.pop();
        e.push(at_rest(2, &[(0, 10), (1, 11)]));
    });
    assert_eq!(said, ["lost on a node", "divergence"]);
}

#[test]
fn nodes_that_disagree() {
    let said = broken(|e| {
        e.insert(0, send(20, Outcome::Unknown, None));
        e.pop();
        e.push(at_rest(2, &[(0, 10), (1, 11), (2, 12), (3, 20)]));
    });
    assert_eq!(said, ["divergence"]);
}

#[test]
fn a_duplicate() {
    let again = &[(0, 10), (1, 11), (2, 12), (3, 11)];
    let said = broken(|e| {
        e.truncate(6);
        e.push(at_rest(1, again));
        e.push(at_rest(2, again));
    });
    assert_eq!(said, ["duplicate"]);
}

#[test]
fn two_values_at_one_offset() {
    let said = broken(|e| {
        e.insert(0, send(20, Outcome::Unknown, None));
        e.push(poll(&[(3, 20)]));
        e.push(Event::Poll {
            client: 3,
            place: place(),
            records: seen(&[(1, 20)]),
        });
    });
    assert_eq!(said, ["duplicate", "inconsistent offset"]);
}

#[test]
fn an_acknowledged_offset_that_holds_another_value() {
    let said = broken(|e| {
        e.insert(1, send(20, Outcome::Ok, Some(1)));
        e.truncate(7);
    });
    assert_eq!(said, ["inconsistent offset"]);
}

#[test]
fn an_aborted_read() {
    let said = broken(|e| e.push(poll(&[(3, 13)])));
    assert_eq!(said, ["aborted read"]);
}

#[test]
fn a_record_from_nowhere() {
    let said = broken(|e| e.push(poll(&[(3, 99)])));
    assert_eq!(said, ["unexpected"]);
}

#[test]
fn an_offset_that_was_not_the_one() {
    let said = broken(|e| {
        e.insert(2, send(11, Outcome::Ok, Some(7)));
        // Later sends lie before.
        e.remove(3);
        e.insert(3, send(12, Outcome::Unknown, None));
    });
    assert_eq!(said, ["wrong offset"]);
}

#[test]
fn a_poll_that_skips() {
    let said = broken(|e| {
        e[4] = poll(&[(0, 10)]);
    });
    assert_eq!(said, ["poll skip"]);
    // Unless the client was moved there, or no record is there.
    let mut events = sound();
    events[4] = poll(&[(0, 10)]);
    let seek = Event::Seek {
        client: 2,
        place: place(),
        offset: 2,
    };
    events.insert(5, seek);
    assert_eq!(check(&events), []);
    let sparse = [
        send(10, Outcome::Ok, Some(0)),
        send(12, Outcome::Ok, Some(5)),
        poll(&[(0, 10), (5, 12)]),
    ];
    assert_eq!(check(&sparse), []);
}

#[test]
fn a_poll_that_goes_back() {
    let said = broken(|e| e.push(poll(&[(1, 11)])));
    assert_eq!(said, ["non-monotonic poll"]);
}

#[test]
fn a_send_that_lies_before_the_one_before() {
    let said = broken(|e| {
        e[0] = send(12, Outcome::Ok, Some(2));
        e[2] = send(10, Outcome::Ok, Some(0));
    });
    assert_eq!(said, ["non-monotonic send"]);
}

#[test]
fn a_committed_offset_that_goes_back() {
    let said = broken(|e| e.extend([commit(2, Outcome::Ok), committed(Some(1))]));
    assert_eq!(said, ["committed offset went back"]);
    let said = broken(|e| e.extend([commit(2, Outcome::Ok), committed(None)]));
    assert_eq!(said, ["committed offset went back"]);
    // A send of unknown outcome may be there or not; a seek backwards is correct.
    let fine = [
        commit(2, Outcome::Ok),
        commit(3, Outcome::Unknown),
        committed(Some(3)),
        committed(Some(2)),
        commit(1, Outcome::Ok),
        committed(Some(1)),
    ];
    assert_eq!(check(&fine), []);
}

proptest! {
    /// Histories of a correct log pass, however sends end and polls are cut.
    #[test]
    fn a_correct_log_is_never_accused(sends in proptest::collection::vec((0u8..4, any::<bool>()), 1..60), cut in 1usize..7) {
        let (mut events, mut log) = (Vec::new(), Vec::new());
        for (i, (fate, stored)) in sends.iter().enumerate() {
            let (value, offset) = (i as u64, 2 * log.len() as u64);
            match fate {
                0 | 1 => {
                    log.push((offset, value));
                    events.push(send(value, Outcome::Ok, (*fate == 0).then_some(offset)));
                }
                2 => {
                    if *stored {
                        log.push((offset, value));
                    }
                    events.push(send(value, Outcome::Unknown, None));
                }
                _ => events.push(send(value, Outcome::Failed, None)),
            }
        }
        log.chunks(cut).for_each(|records| events.push(poll(records)));
        events.extend([at_rest(1, &log), at_rest(2, &log)]);
        prop_assert_eq!(check(&events), []);
        // And a history that lost any acknowledged record never passes.
        let acknowledged = |value: u64| matches!(sends.get(value as usize), Some((0 | 1, _)));
        for (gone, _) in log.iter().enumerate().filter(|(_, (_, value))| acknowledged(*value)) {
            let mut less = log.clone();
            less.remove(gone);
            let mut events: Vec<Event> = events.iter().filter(|e| matches!(e, Event::Send { .. })).cloned().collect();
            events.push(at_rest(1, &less));
            prop_assert!(!check(&events).is_empty());
        }
    }

    #[test]
    fn histories_survive_being_written(offsets in proptest::collection::vec(any::<(u64, u64)>(), 0..5)) {
        let mut events = sound();
        events.extend([poll(&offsets), commit(7, Outcome::Unknown), committed(None)]);
        events.push(Event::Seek { client: 9, place: place(), offset: 3 });
        let mut bytes = Vec::new();
        history::write(&events, &mut bytes).unwrap();
        prop_assert_eq!(history::read(&bytes[..]).unwrap(), events);
    }
}

#[test]
fn a_line_that_is_no_event_is_named() {
    let text =
        "{\"event\":\"committed\",\"group\":\"g\",\"topic\":\"t\",\"partition\":0,\"offset\":1}\nnonsense\n";
    let error = history::read(text.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "line 2");
}
