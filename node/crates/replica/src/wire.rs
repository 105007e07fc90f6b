//! Messages between replicas: `head length u32 (big-endian) | head | payloads`. The head is in postcard,
//! payloads are as stored. Variants are known by position: add at the end.

use crate::types::LogId;
use crate::types::Member;
use crate::types::NodeId;
use crate::types::RaftEntry;
use crate::types::StoredMembers;
use crate::types::StoredVote;
use crate::types::entry_id;
use crate::types::from_log;
use crate::types::log_id;
use crate::types::to_log;
use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use weir_log::{Append, Entry, EntryId, Op, OpHeader};
use weir_types::level::{FIRST_LEVEL, LEVEL};
use weir_types::{Batch, GroupId, Offset, PartitionId};

/// Purpose of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Entries: many messages under way, answers in order.
    Append,
    /// Votes, heartbeats and transfers, one at a time.
    Control,
    /// A single snapshot.
    Snapshot,
}

/// First message of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Open {
    /// Between members. Names the receiver: a node that was set up anew at the same address, perhaps with the
    /// same key, must not answer for its predecessor.
    Group {
        group: GroupId,
        to: NodeId,
        purpose: Purpose,
    },
    /// From a node that wants to join; the answer is a [`JoinReply`].
    Join(JoinRequest),
    /// From a member that has started; the answer is a [`Seen`](crate::starts::Seen). The first release does
    /// not know the message and ends the stream.
    Started(crate::starts::Started),
}

impl Open {
    /// Encodes the message with this release's level at the end, which the first release ignores.
    pub(crate) fn encode(&self) -> io::Result<Vec<Bytes>> {
        let head = postcard::to_allocvec(self).map_err(io::Error::other)?;
        let head = postcard::to_extend(&LEVEL, head).map_err(io::Error::other)?;
        Ok(framed(&head, Vec::new()))
    }

    /// Decodes a first message, and the sender's level.
    pub(crate) fn decode(message: Bytes) -> io::Result<(Self, u32)> {
        let (head, _) = split(message)?;
        let read = postcard::take_from_bytes(&head);
        let (open, rest) = read.map_err(|e| malformed(&e.to_string()))?;
        let level = if rest.is_empty() {
            FIRST_LEVEL
        } else {
            postcard::from_bytes(rest).map_err(|e| malformed(&e.to_string()))?
        };
        Ok((open, level))
    }
}

/// A request to join the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Proof of the right to join.
    pub claim: Claim,
    /// Addresses and key of the node.
    pub member: Member,
}

/// Proof of the right to join a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// An invitation.
    Token {
        /// SHA-256 of the token's key.
        token: [u8; 32],
        /// HMAC-SHA-256 of `join` and the connection's binding, under the token's key. The token itself is
        /// not sent.
        proof: [u8; 32],
    },
    /// A member, by the proven key of its connection, that lost its data. It must not speak under its old id,
    /// and asks for a new one.
    Again,
}

/// Answer to a join request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// The node is a learner now.
    Welcome {
        /// The site's name.
        site: String,
        /// The assigned number.
        node: NodeId,
        /// The other members.
        members: BTreeMap<NodeId, Member>,
        /// HMAC-SHA-256 of `welcome` and the binding, under the token's key: proves that this is the site of
        /// the token. A former member ignores it and relies on the others' keys.
        proof: [u8; 32],
    },
    /// Ask the leader at this address, with this key.
    Elsewhere {
        /// `HOST:PORT`.
        addr: String,
        /// Key, as in [`Member::key`].
        key: String,
    },
    /// Refused, with the reason.
    Refused(String),
    /// Not possible now, with the reason: ask again.
    NotNow(String),
}

/// A request to another replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    Append {
        vote: StoredVote,
        prev: Option<EntryId>,
        commit: Option<EntryId>,
        entries: Vec<WireEntry>,
    },
    Vote(VoteHead),
    PreVote(VoteHead),
    Transfer {
        from: StoredVote,
        to: u64,
        last: Option<EntryId>,
    },
    /// A member's new addresses.
    Announce {
        node: NodeId,
        member: Member,
    },
    /// A request of the layer above that only the leader can serve.
    Forward(Vec<u8>),
    /// Asks for the members' keys.
    Members,
    /// Asks for the committed batches of a range, or the first of them.
    Batches {
        partition: PartitionId,
        from: Offset,
        end: Offset,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteHead {
    pub(crate) vote: StoredVote,
    pub(crate) last: Option<EntryId>,
    pub(crate) transfer: bool,
}

/// Answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    Appended(Option<EntryId>),
    Conflict(EntryId),
    HigherVote(StoredVote),
    Vote {
        vote: StoredVote,
        granted: bool,
        last: Option<EntryId>,
    },
    Transferred(bool),
    /// Not possible now, with the reason.
    Unable(String),
    Forwarded(Vec<u8>),
    Members(Vec<String>),
    /// Lengths of the batches in the payload.
    Batches(Vec<u32>),
}

/// A part of a snapshot, to the follower. Payloads are batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotPart {
    Begin {
        vote: StoredVote,
        at: EntryId,
        members: StoredMembers,
    },
    State(Vec<(Vec<u8>, Vec<u8>)>),
    Batches {
        partition: PartitionId,
        lengths: Vec<u32>,
    },
    End,
}

/// The follower's answer to a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotAnswer {
    /// To `Begin`: the next offset of each stored partition. Other partitions are empty.
    Wants(BTreeMap<PartitionId, Offset>),
    /// To each part but the last.
    Next,
    /// To the last part: the snapshot is installed, or a higher vote.
    Done(StoredVote),
    Unable(String),
}

/// An entry without the bytes of its batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireEntry {
    id: EntryId,
    lazy: bool,
    ops: Vec<OpHeader>,
    /// Positions of the appended batches whose bytes are gone.
    gone: Vec<u32>,
}

impl WireEntry {
    /// Makes the head of `entry`, and adds its batches to `payload`.
    pub(crate) fn of(entry: &RaftEntry, payload: &mut Vec<Bytes>) -> Self {
        let entry = to_log(GroupId(0), entry);
        let mut gone = Vec::new();
        for (at, op) in entry.ops.iter().enumerate() {
            match op {
                Op::Append { batch, .. } => payload.push(batch.bytes().clone()),
                Op::Gone(_) => gone.push(at as u32),
                _ => {}
            }
        }
        Self {
            id: entry.id(),
            lazy: entry.lazy,
            ops: entry.ops.iter().map(OpHeader::of).collect(),
            gone,
        }
    }

    /// Makes the head of `entry` without batches, for a witness.
    pub(crate) fn header(entry: &RaftEntry) -> Self {
        let mut head = Self::of(entry, &mut Vec::new());
        let appends = head.ops.iter().enumerate();
        let places = appends.filter(|(_, op)| matches!(op, OpHeader::Append(_)));
        head.gone = places.map(|(at, _)| at as u32).collect();
        head
    }

    /// Makes the entry, with its batches from the front of `payload`.
    fn join(self, payload: &mut Bytes) -> io::Result<RaftEntry> {
        let mut ops = Vec::new();
        for (at, op) in self.ops.into_iter().enumerate() {
            let gone = self.gone.contains(&(at as u32));
            ops.push(op.join(|append| match gone {
                true => Ok(Op::Gone(append)),
                false => take_batch(payload, &append).map(|batch| Op::Append {
                    partition: append.partition,
                    batch,
                }),
            })?);
        }
        Ok(from_log(Entry {
            group: GroupId(0),
            index: self.id.index,
            term: self.id.term,
            lazy: self.lazy,
            ops,
        }))
    }
}

fn take_batch(payload: &mut Bytes, append: &Append) -> io::Result<Batch> {
    let bytes = take(payload, append.bytes as usize)?;
    let batch = Batch::parse(bytes).map_err(|e| malformed(&e.to_string()))?;
    if (batch.base_offset(), batch.span(), batch.crc()) != (append.base, append.span, append.crc) {
        return Err(malformed("a batch is not the one its entry names"));
    }
    Ok(batch)
}

/// Splits a payload of consecutive batches.
pub(crate) fn batches(lengths: &[u32], mut payload: Bytes) -> io::Result<Vec<Batch>> {
    let mut batches = Vec::new();
    let mut next = Offset::ZERO;
    for length in lengths {
        let bytes = take(&mut payload, *length as usize)?;
        let batch = Batch::parse(bytes).map_err(|e| malformed(&e.to_string()))?;
        if batch.base_offset() < next {
            return Err(malformed("batches are out of order"));
        }
        next = batch.end_offset();
        batches.push(batch);
    }
    Ok(batches)
}

/// Takes the first `len` bytes.
pub(crate) fn take(payload: &mut Bytes, len: usize) -> io::Result<Bytes> {
    if payload.len() < len {
        return Err(malformed("payload is cut short"));
    }
    Ok(payload.split_to(len))
}

pub(crate) fn entries(wire: Vec<WireEntry>, mut payload: Bytes) -> io::Result<Vec<RaftEntry>> {
    let entries = wire
        .into_iter()
        .map(|e| e.join(&mut payload))
        .collect::<io::Result<_>>()?;
    if !payload.is_empty() {
        return Err(malformed("payload is longer than its entries"));
    }
    Ok(entries)
}

/// Encodes a message as parts.
pub(crate) fn encode(head: &impl Serialize, payload: Vec<Bytes>) -> io::Result<Vec<Bytes>> {
    let head = postcard::to_allocvec(head).map_err(io::Error::other)?;
    Ok(framed(&head, payload))
}

fn framed(head: &[u8], payload: Vec<Bytes>) -> Vec<Bytes> {
    let mut start = BytesMut::with_capacity(4 + head.len());
    start.put_u32(head.len() as u32);
    start.extend_from_slice(head);
    let mut parts = vec![start.freeze()];
    parts.extend(payload);
    parts
}

fn split(mut message: Bytes) -> io::Result<(Bytes, Bytes)> {
    let length = take(&mut message, 4)?;
    let length = length.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
    let head = take(&mut message, length as usize)?;
    Ok((head, message))
}

/// Decodes the head of a message, and returns the payload.
pub(crate) fn decode<T: DeserializeOwned>(message: Bytes) -> io::Result<(T, Bytes)> {
    let (head, payload) = split(message)?;
    let head = weir_log::decode("a message of a replica", &head);
    Ok((head.map_err(|e| malformed(&e.to_string()))?, payload))
}

pub(crate) fn malformed(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("malformed message of a replica: {why}"),
    )
}

pub(crate) fn ids(id: Option<&LogId>) -> Option<EntryId> {
    id.map(entry_id)
}

pub(crate) fn log_ids(id: Option<EntryId>) -> Option<LogId> {
    id.map(log_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Command;
    use crate::types::Membership;
    use crate::types::Payload;
    use proptest::prelude::*;
    use weir_log::StateKey;
    use weir_types::{BatchBuilder, Codec, Record, Term};

    fn batch(base: u64) -> Batch {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push_record(&Record {
            value: Some(Bytes::from_static(b"21.5")),
            ..Record::default()
        });
        builder.build(Offset::new(base), None).unwrap()
    }

    fn entry(index: u64, ops: Vec<Op>) -> RaftEntry {
        let id = EntryId { term: Term(3), index };
        RaftEntry {
            log_id: log_id(id),
            payload: match ops.is_empty() {
                true => Payload::Blank,
                false => Payload::Normal(Command {
                    ops: ops.into(),
                    lazy: true,
                }),
            },
        }
    }

    #[test]
    fn the_first_message_says_a_level_that_the_first_release_passes_over() {
        let (group, to, purpose) = (GroupId(0), 300, Purpose::Control);
        let open = Open::Group { group, to, purpose };
        // The forms of release 0.1.0 and of this release.
        let first = [0, 0, 0, 5, 0, 0, 0xac, 0x02, 1];
        assert_eq!(
            Open::decode(Bytes::copy_from_slice(&first)).unwrap(),
            (open.clone(), 1)
        );
        let now = open.encode().unwrap().concat();
        assert_eq!(now, [&[0, 0, 0, 6][..], &first[4..], &[LEVEL as u8]].concat());
        assert_eq!(Open::decode(now.clone().into()).unwrap(), (open.clone(), LEVEL));
        let as_before: Open = postcard::from_bytes(&now[4..]).unwrap();
        assert_eq!(as_before, open);
    }

    #[test]
    fn entries_of_every_kind_come_over() {
        let partition = PartitionId(4);
        let (first, second) = (batch(7), batch(8));
        let gone = match OpHeader::of(&Op::Append {
            partition,
            batch: batch(6),
        }) {
            OpHeader::Append(append) => append,
            other => panic!("{other:?}"),
        };
        let ops = vec![
            Op::Gone(gone),
            Op::Append {
                partition,
                batch: first,
            },
            Op::Put {
                key: StateKey::from_bytes(vec![16, 1]),
                value: Bytes::from_static(b"v"),
            },
            Op::Append {
                partition,
                batch: second,
            },
            Op::Drop { partition },
        ];
        let members = Membership::new(
            vec![[1].into()],
            BTreeMap::from([(1, crate::types::Member::default())]),
        )
        .unwrap();
        let sent = [
            entry(1, Vec::new()),
            entry(2, ops),
            RaftEntry {
                log_id: log_id(EntryId {
                    term: Term(3),
                    index: 3,
                }),
                payload: Payload::Membership(members),
            },
        ];
        let mut payload = Vec::new();
        let head: Vec<_> = sent.iter().map(|e| WireEntry::of(e, &mut payload)).collect();
        let message = encode(&head, payload).unwrap().concat();
        let (head, payload) = decode::<Vec<WireEntry>>(message.clone().into()).unwrap();
        let came = entries(head, payload).unwrap();
        for (sent, came) in sent.iter().zip(&came) {
            assert_eq!(format!("{sent:?}"), format!("{came:?}"));
        }
        // A short or damaged batch is refused.
        for at in message.len() - 20..message.len() {
            let mut bad = message.clone();
            bad[at] ^= 1;
            let (head, payload) = decode::<Vec<WireEntry>>(bad.into()).unwrap();
            assert!(entries(head, payload).is_err());
            let cut = Bytes::from(message[..at].to_vec());
            let (head, payload) = decode::<Vec<WireEntry>>(cut).unwrap();
            assert!(entries(head, payload).is_err());
        }
    }

    /// Messages of every kind in the form of release 0.1.0, by name.
    fn conversation() -> Vec<(&'static str, Bytes)> {
        let vote = StoredVote {
            term: 7,
            node: 2,
            committed: true,
        };
        let id = |term, index| EntryId {
            term: Term(term),
            index,
        };
        let member = crate::types::Member {
            key: "ab".repeat(32),
            quic: "10.0.0.2:7400".to_owned(),
            kafka: "10.0.0.2:9092".to_owned(),
            http: "10.0.0.2:7480".to_owned(),
            rack: "r".to_owned(),
            witness: false,
        };
        let partition = PartitionId(4);
        let ops = vec![
            Op::Append {
                partition,
                batch: batch(7),
            },
            Op::Put {
                key: StateKey::from_bytes(vec![16, 1]),
                value: Bytes::from_static(b"v"),
            },
            Op::Remove {
                key: StateKey::from_bytes(vec![17, 1]),
            },
            Op::Trim {
                partition,
                to: Offset::new(300),
                reason: weir_types::GapReason::Expired,
            },
            Op::Drop { partition },
        ];
        let members = Membership::new(
            vec![[1, 2].into()],
            BTreeMap::from([(1, member.clone()), (2, member.clone())]),
        )
        .unwrap();
        let sent = [
            entry(1, Vec::new()),
            entry(2, ops),
            RaftEntry {
                log_id: log_id(id(3, 3)),
                payload: Payload::Membership(members.clone()),
            },
        ];
        let mut payload = Vec::new();
        let entries: Vec<_> = sent.iter().map(|e| WireEntry::of(e, &mut payload)).collect();
        let head = VoteHead {
            vote,
            last: Some(id(6, 70_000)),
            transfer: true,
        };
        let (group, to) = (GroupId(3), 300);
        let join = |claim| JoinRequest {
            claim,
            member: member.clone(),
        };
        let token = Claim::Token {
            token: [1; 32],
            proof: [2; 32],
        };
        let welcome = JoinReply::Welcome {
            site: "s".to_owned(),
            node: 3,
            members: BTreeMap::from([(1, member.clone())]),
            proof: [3; 32],
        };
        let elsewhere = JoinReply::Elsewhere {
            addr: "a:1".to_owned(),
            key: "k".to_owned(),
        };
        let append = Request::Append {
            vote,
            prev: Some(id(2, 9)),
            commit: None,
            entries,
        };
        let begin = SnapshotPart::Begin {
            vote,
            at: id(3, 3),
            members: StoredMembers::new(id(3, 3), &members),
        };
        let batches = SnapshotPart::Batches {
            partition,
            lengths: vec![5, 70_000],
        };
        fn message(head: &impl Serialize, payload: Vec<Bytes>) -> Bytes {
            encode(head, payload).unwrap().concat().into()
        }
        let m = |head: &Request| message(head, Vec::new());
        let a = |head: &Response| message(head, Vec::new());
        let open = |purpose| message(&Open::Group { group, to, purpose }, Vec::new());
        vec![
            ("open append", open(Purpose::Append)),
            ("open control", open(Purpose::Control)),
            ("open snapshot", open(Purpose::Snapshot)),
            ("open join", message(&Open::Join(join(token)), Vec::new())),
            (
                "open join again",
                message(&Open::Join(join(Claim::Again)), Vec::new()),
            ),
            ("join welcome", message(&welcome, Vec::new())),
            ("join elsewhere", message(&elsewhere, Vec::new())),
            (
                "join refused",
                message(&JoinReply::Refused("no".to_owned()), Vec::new()),
            ),
            (
                "join not now",
                message(&JoinReply::NotNow("no".to_owned()), Vec::new()),
            ),
            ("ask append", message(&append, payload)),
            ("ask vote", m(&Request::Vote(head))),
            ("ask pre-vote", m(&Request::PreVote(head))),
            (
                "ask transfer",
                m(&Request::Transfer {
                    from: vote,
                    to: 2,
                    last: None,
                }),
            ),
            (
                "ask announce",
                m(&Request::Announce {
                    node: 2,
                    member: member.clone(),
                }),
            ),
            ("ask forward", m(&Request::Forward(vec![1, 2]))),
            ("ask members", m(&Request::Members)),
            (
                "ask batches",
                m(&Request::Batches {
                    partition,
                    from: Offset::ZERO,
                    end: Offset::new(300),
                }),
            ),
            ("answer appended", a(&Response::Appended(Some(id(1, 300))))),
            ("answer conflict", a(&Response::Conflict(id(1, 300)))),
            ("answer higher vote", a(&Response::HigherVote(vote))),
            (
                "answer vote",
                a(&Response::Vote {
                    vote,
                    granted: true,
                    last: None,
                }),
            ),
            ("answer transferred", a(&Response::Transferred(true))),
            ("answer unable", a(&Response::Unable("no".to_owned()))),
            ("answer forwarded", a(&Response::Forwarded(vec![9]))),
            ("answer members", a(&Response::Members(vec!["k".to_owned()]))),
            ("answer batches", a(&Response::Batches(vec![5, 70_000]))),
            ("snapshot begin", message(&begin, Vec::new())),
            (
                "snapshot state",
                message(&SnapshotPart::State(vec![(vec![16, 1], vec![2; 3])]), Vec::new()),
            ),
            ("snapshot batches", message(&batches, Vec::new())),
            ("snapshot end", message(&SnapshotPart::End, Vec::new())),
            (
                "snapshot wants",
                message(
                    &SnapshotAnswer::Wants(BTreeMap::from([(partition, Offset::new(9))])),
                    Vec::new(),
                ),
            ),
            ("snapshot next", message(&SnapshotAnswer::Next, Vec::new())),
            ("snapshot done", message(&SnapshotAnswer::Done(vote), Vec::new())),
            (
                "snapshot unable",
                message(&SnapshotAnswer::Unable("no".to_owned()), Vec::new()),
            ),
        ]
    }

    #[test]
    fn what_release_0_1_0_says_is_understood_and_answered_in_its_words() {
        let recorded = include_str!("../../../../tests/fixtures/release-0.1.0.replica.txt");
        let recorded: BTreeMap<&str, &str> = recorded
            .lines()
            .filter_map(|line| line.split_once(": "))
            .collect();
        let now = conversation();
        assert_eq!(recorded.len(), now.len());
        for (name, message) in now {
            let hex: String = message.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(recorded.get(name), Some(&hex.as_str()), "{name}");
            // Each decodes to the same message.
            let read = match name.split_once(' ').unwrap().0 {
                "open" => format!("{:?}", Open::decode(message).unwrap()),
                "join" => format!("{:?}", decode::<JoinReply>(message).unwrap()),
                "ask" => format!("{:?}", decode::<Request>(message).unwrap()),
                "answer" => format!("{:?}", decode::<Response>(message).unwrap()),
                _ if [
                    "snapshot begin",
                    "snapshot state",
                    "snapshot batches",
                    "snapshot end",
                ]
                .contains(&name) =>
                {
                    format!("{:?}", decode::<SnapshotPart>(message).unwrap())
                }
                _ => format!("{:?}", decode::<SnapshotAnswer>(message).unwrap()),
            };
            assert!(!read.is_empty());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Open::decode(bytes.clone().into());
            let _ = decode::<Response>(bytes.clone().into());
            let _ = decode::<SnapshotPart>(bytes.clone().into());
            let _ = decode::<SnapshotAnswer>(bytes.clone().into());
            if let Ok((Request::Append { entries: heads, .. }, payload)) = decode::<Request>(bytes.into()) {
                let _ = entries(heads, payload);
            }
        }
    }
}
