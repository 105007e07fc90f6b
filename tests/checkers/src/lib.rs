//! Judges histories of clients. The rules are Jepsen's for Kafka and Redpanda (`jepsen.tests.kafka`), and for
//! NATS the loss on single nodes; values are unique, so that each rule is a look at sets and orders, in time
//! and memory that grow with the history.
//!
//! A history comes from a simulation or from real processes, and does not say how: see [`Event`].

pub mod history;
pub mod numbered;

pub use history::{Event, Outcome, Place, Seen};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Violation {
    LostWrite {
        place: Place,
        value: u64,
    },
    LostOnNode {
        node: u32,
        place: Place,
        value: u64,
    },
    Duplicate {
        place: Place,
        value: u64,
        offsets: Vec<u64>,
    },
    InconsistentOffset {
        place: Place,
        offset: u64,
        values: Vec<u64>,
    },
    AbortedRead {
        place: Place,
        value: u64,
    },
    Unexpected {
        place: Place,
        value: u64,
    },
    WrongOffset {
        place: Place,
        value: u64,
        told: u64,
        found: u64,
    },
    PollSkip {
        client: u32,
        place: Place,
        after: u64,
        to: u64,
        missed: u64,
    },
    NonmonotonicPoll {
        client: u32,
        place: Place,
        after: u64,
        to: u64,
    },
    NonmonotonicSend {
        client: u32,
        place: Place,
        first: u64,
        then: u64,
    },
    CommittedWentBack {
        group: String,
        place: Place,
        committed: u64,
        found: Option<u64>,
    },
    Divergence {
        place: Place,
        nodes: (u32, u32),
        offset: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |p: &Place| format!("{}/{}", p.topic, p.partition);
        match self {
            Self::LostWrite { place, value } => {
                write!(
                    f,
                    "lost write: {value} was acknowledged in {} and is nowhere",
                    at(place)
                )
            }
            Self::LostOnNode { node, place, value } => {
                write!(
                    f,
                    "lost on a node: {value} of {} is not on node {node}",
                    at(place)
                )
            }
            Self::Duplicate {
                place,
                value,
                offsets,
            } => {
                write!(f, "duplicate: {value} of {} lies at {offsets:?}", at(place))
            }
            Self::InconsistentOffset {
                place,
                offset,
                values,
            } => {
                write!(
                    f,
                    "inconsistent offset: {} held {values:?} at {offset}",
                    at(place)
                )
            }
            Self::AbortedRead { place, value } => {
                write!(
                    f,
                    "aborted read: {value} was refused and was read from {}",
                    at(place)
                )
            }
            Self::Unexpected { place, value } => {
                write!(
                    f,
                    "unexpected: {value} was read from {} and never sent there",
                    at(place)
                )
            }
            Self::WrongOffset {
                place,
                value,
                told,
                found,
            } => {
                write!(
                    f,
                    "wrong offset: {value} of {} lies at {found}, and {told} was said",
                    at(place)
                )
            }
            Self::PollSkip {
                client,
                place,
                after,
                to,
                missed,
            } => {
                let place = at(place);
                write!(
                    f,
                    "poll skip: client {client} went from {after} to {to} in {place}, past {missed}"
                )
            }
            Self::NonmonotonicPoll {
                client,
                place,
                after,
                to,
            } => {
                write!(
                    f,
                    "non-monotonic poll: client {client} read {to} after {after} in {}",
                    at(place)
                )
            }
            Self::NonmonotonicSend {
                client,
                place,
                first,
                then,
            } => {
                let place = at(place);
                write!(
                    f,
                    "non-monotonic send: client {client} sent to {first}, then to {then} in {place}"
                )
            }
            Self::CommittedWentBack {
                group,
                place,
                committed,
                found,
            } => {
                let place = at(place);
                write!(
                    f,
                    "committed offset went back: {group} had {committed} in {place}, then {found:?}"
                )
            }
            Self::Divergence {
                place,
                nodes: (a, b),
                offset,
            } => {
                write!(
                    f,
                    "divergence: nodes {a} and {b} differ in {} from {offset} on",
                    at(place)
                )
            }
        }
    }
}

/// All that is wrong with a history, in the order of the rules. Writes that nobody saw in the end are judged
/// only where the history has a [`Event::Final`] of their partition: see [`unseen`].
pub fn check(events: &[Event]) -> Vec<Violation> {
    let index = Index::of(events);
    let mut found = Vec::new();
    index.writes(&mut found);
    index.reads(&mut found);
    index.nodes(&mut found);
    polls(events, &index, &mut found);
    sends(events, &mut found);
    commits(events, &mut found);
    found
}

/// Acknowledged values of partitions without a [`Event::Final`] that nobody has read yet: a history that is
/// at rest has none.
pub fn unseen(events: &[Event]) -> Vec<(Place, u64)> {
    let index = Index::of(events);
    let waiting = index.sent.iter().filter(|((place, value), sent)| {
        sent.outcome == Outcome::Ok
            && !index.finals.contains_key(place)
            && !index.seen.contains_key(&(place.clone(), *value))
    });
    waiting
        .map(|((place, value), _)| (place.clone(), *value))
        .collect()
}

#[derive(Clone, Copy)]
struct Sent {
    outcome: Outcome,
    offset: Option<u64>,
}

/// The history by value and by offset.
struct Index {
    sent: BTreeMap<(Place, u64), Sent>,
    /// Offsets that a value was seen at, by anybody.
    seen: BTreeMap<(Place, u64), BTreeSet<u64>>,
    /// Values that were seen at an offset.
    at: BTreeMap<(Place, u64), BTreeSet<u64>>,
    /// Final records of each node.
    finals: BTreeMap<Place, BTreeMap<u32, Vec<Seen>>>,
}

impl Index {
    fn of(events: &[Event]) -> Self {
        let mut index = Self {
            sent: BTreeMap::new(),
            seen: BTreeMap::new(),
            at: BTreeMap::new(),
            finals: BTreeMap::new(),
        };
        for event in events {
            match event {
                Event::Send {
                    place,
                    value,
                    outcome,
                    offset,
                    ..
                } => {
                    let sent = Sent {
                        outcome: *outcome,
                        offset: *offset,
                    };
                    // A value may be sent again until its outcome is known: the best outcome counts.
                    let known = index.sent.entry((place.clone(), *value)).or_insert(sent);
                    if known.outcome != Outcome::Ok && *outcome != Outcome::Failed {
                        *known = sent;
                    }
                    if let (Outcome::Ok, Some(offset)) = (outcome, offset) {
                        index
                            .at
                            .entry((place.clone(), *offset))
                            .or_default()
                            .insert(*value);
                    }
                }
                Event::Poll { place, records, .. } => index.saw(place, records),
                Event::Final { node, place, records } => {
                    index.saw(place, records);
                    let nodes = index.finals.entry(place.clone()).or_default();
                    nodes.insert(*node, records.clone());
                }
                Event::Seek { .. } | Event::Commit { .. } | Event::Committed { .. } => {}
            }
        }
        index
    }

    fn saw(&mut self, place: &Place, records: &[Seen]) {
        for Seen { offset, value } in records {
            self.seen
                .entry((place.clone(), *value))
                .or_default()
                .insert(*offset);
            self.at
                .entry((place.clone(), *offset))
                .or_default()
                .insert(*value);
        }
    }

    /// Checks sent records: present, once, at the acknowledged offset.
    fn writes(&self, found: &mut Vec<Violation>) {
        for ((place, value), sent) in &self.sent {
            let offsets = self.seen.get(&(place.clone(), *value));
            let (place, value) = (place.clone(), *value);
            match (sent.outcome, offsets) {
                (Outcome::Ok, None) if self.finals.contains_key(&place) => {
                    found.push(Violation::LostWrite { place, value });
                }
                (Outcome::Failed, Some(_)) => found.push(Violation::AbortedRead { place, value }),
                (_, Some(offsets)) if offsets.len() > 1 => {
                    let offsets = offsets.iter().copied().collect();
                    found.push(Violation::Duplicate {
                        place,
                        value,
                        offsets,
                    });
                }
                (Outcome::Ok, Some(offsets)) => {
                    if let (Some(told), Some(at)) = (sent.offset, offsets.first())
                        && told != *at
                    {
                        let found_at = *at;
                        found.push(Violation::WrongOffset {
                            place,
                            value,
                            told,
                            found: found_at,
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// Checks read records: sent before, and the same for all readers.
    fn reads(&self, found: &mut Vec<Violation>) {
        let stray = self.seen.keys().filter(|key| !self.sent.contains_key(*key));
        found.extend(stray.map(|(place, value)| Violation::Unexpected {
            place: place.clone(),
            value: *value,
        }));
        for ((place, offset), values) in self.at.iter().filter(|(_, v)| v.len() > 1) {
            found.push(Violation::InconsistentOffset {
                place: place.clone(),
                offset: *offset,
                values: values.iter().copied().collect(),
            });
        }
    }

    /// Checks the final records of nodes: complete, and the same on all.
    fn nodes(&self, found: &mut Vec<Violation>) {
        for (place, nodes) in &self.finals {
            for (node, records) in nodes {
                let has: BTreeSet<u64> = records.iter().map(|r| r.value).collect();
                let written = self
                    .sent
                    .iter()
                    .filter(|((p, _), s)| p == place && s.outcome == Outcome::Ok);
                // A record that no node has is a lost write, reported above.
                let lost = written
                    .filter(|((p, v), _)| !has.contains(v) && self.seen.contains_key(&(p.clone(), *v)));
                found.extend(lost.map(|((place, value), _)| Violation::LostOnNode {
                    node: *node,
                    place: place.clone(),
                    value: *value,
                }));
            }
            let mut pairs = nodes.iter().zip(nodes.iter().skip(1));
            if let Some(((a, one), (b, other))) = pairs.find(|((_, one), (_, other))| one != other) {
                let same = one.iter().zip(other).take_while(|(x, y)| x == y).count();
                let offset = one.get(same).or(other.get(same)).map_or(0, |r| r.offset);
                found.push(Violation::Divergence {
                    place: place.clone(),
                    nodes: (*a, *b),
                    offset,
                });
            }
        }
    }
}

/// Checks that each read of a client follows the last.
fn polls(events: &[Event], index: &Index, found: &mut Vec<Violation>) {
    let mut last: BTreeMap<(u32, &Place), u64> = BTreeMap::new();
    for event in events {
        match event {
            Event::Seek { client, place, .. } => {
                last.remove(&(*client, place));
            }
            Event::Poll {
                client,
                place,
                records,
            } => {
                for Seen { offset, .. } in records {
                    let after = last.insert((*client, place), *offset);
                    let Some(after) = after else { continue };
                    let (client, place, to) = (*client, place.clone(), *offset);
                    if to <= after {
                        found.push(Violation::NonmonotonicPoll {
                            client,
                            place,
                            after,
                            to,
                        });
                        continue;
                    }
                    // Behind a filter, offsets may have no record; a record that any reader saw there was
                    // skipped.
                    let between = (place.clone(), after + 1)..(place.clone(), to);
                    let missed = index.at.range(between).next().map(|((_, offset), _)| *offset);
                    if let Some(missed) = missed {
                        found.push(Violation::PollSkip {
                            client,
                            place,
                            after,
                            to,
                            missed,
                        });
                    }
                }
            }
            _ => {}
        }
    }
}

/// Checks that records of the same client are in the order of their sends.
fn sends(events: &[Event], found: &mut Vec<Violation>) {
    let mut last: BTreeMap<(u32, &Place), u64> = BTreeMap::new();
    for event in events {
        if let Event::Send {
            client,
            place,
            outcome: Outcome::Ok,
            offset: Some(offset),
            ..
        } = event
        {
            let first = last.insert((*client, place), *offset);
            if let Some(first) = first.filter(|first| offset <= first) {
                found.push(Violation::NonmonotonicSend {
                    client: *client,
                    place: place.clone(),
                    first,
                    then: *offset,
                });
            }
        }
    }
}

/// Checks that a committed offset is found again, or an offset that was, or may have been, committed later.
fn commits(events: &[Event], found: &mut Vec<Violation>) {
    let mut known: BTreeMap<(&str, &Place), (u64, BTreeSet<u64>)> = BTreeMap::new();
    for event in events {
        match event {
            Event::Commit {
                group,
                place,
                offset,
                outcome,
            } => {
                let (committed, possible) = known.entry((group, place)).or_default();
                match outcome {
                    Outcome::Ok => {
                        *committed = *offset;
                        possible.clear();
                    }
                    Outcome::Unknown => drop(possible.insert(*offset)),
                    Outcome::Failed => {}
                }
            }
            Event::Committed { group, place, offset } => {
                let Some((committed, possible)) = known.get(&(group.as_str(), place)) else {
                    continue;
                };
                let is = offset.unwrap_or(0);
                if is != *committed && !possible.contains(&is) {
                    found.push(Violation::CommittedWentBack {
                        group: group.clone(),
                        place: place.clone(),
                        committed: *committed,
                        found: *offset,
                    });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
