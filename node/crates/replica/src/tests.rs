//! Groups over real logs, and what a node may do that is in one again.

use crate::memory::Hub;
use crate::raft::StoredVote;
use crate::wire::{Open, Purpose, Request, Response, VoteHead, decode, encode};
use crate::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use weir_log::{EntryHeader, EntryId, GroupState, Log, Op, Options, StateKey, StateKind};
use weir_types::{GroupId, Term};

const GROUP: GroupId = GroupId(3);
const WITHIN: Duration = Duration::from_secs(30);

struct Nothing;

impl StateMachine for Nothing {
    fn apply(&self, _: &EntryHeader) {}
    fn leading(&self) {}
    fn stepped_down(&self) {}
    fn replaced(&self) {}
}

fn open_log(dir: &Path) -> (Log, GroupState) {
    let options = Options {
        disk_reserve_bytes: Some(0),
        ..Options::default()
    };
    let (log, recovered) = Log::open(dir, &options).unwrap();
    (log, recovered.groups.get(&GROUP).copied().unwrap_or_default())
}

async fn open(log: &Log, state: GroupState, hub: &Hub, founders: &[NodeId]) -> Group {
    let config = GroupConfig {
        id: GROUP,
        node: 1,
        member: Member::default(),
        founders: founders.iter().map(|id| (*id, Member::default())).collect(),
        timing: Timing::CENTRAL,
    };
    let group = Group::open(config, log.clone(), state, hub.transport(1), Arc::new(Nothing));
    let group = group.await.unwrap();
    let found = group.clone();
    hub.add(1, move |id| (id == GROUP).then(|| found.clone()));
    group
}

async fn serves(group: &Group) {
    let serves = async {
        while !group.is_serving() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(WITHIN, serves).await.unwrap();
}

async fn put(group: &Group) {
    let (done, decided) = oneshot::channel();
    let key = StateKey::new(StateKind::Members, &[&GROUP.0.to_be_bytes()[..], b"x"].concat());
    let proposal = Proposal {
        ops: vec![Op::Remove { key }],
        lazy: false,
        control: false,
    };
    let proposed = group
        .lead()
        .unwrap()
        .propose(proposal, Box::new(|r| drop(done.send(r))));
    proposed.unwrap();
    decided.await.unwrap().unwrap();
}

/// Whether node 1 would elect one, in `term`, whose last entry is `last`.
async fn elects(hub: &Hub, term: u64, last: Option<EntryId>) -> bool {
    let mut channel = hub.transport(2).open(1, Member::default()).await.unwrap();
    let (group, to, purpose) = (GROUP, 1, Purpose::Control);
    let open = Open::Group { group, to, purpose };
    channel.tx.send(encode(&open, Vec::new()).unwrap()).await.unwrap();
    let vote = StoredVote {
        term,
        node: 2,
        committed: false,
    };
    let head = VoteHead {
        vote,
        last,
        transfer: false,
    };
    let ask = encode(&Request::Vote(head), Vec::new()).unwrap();
    channel.tx.send(ask).await.unwrap();
    let (answer, _) = decode::<Response>(channel.rx.recv().await.unwrap().unwrap()).unwrap();
    let Response::Vote { granted, .. } = answer else {
        panic!("{answer:?}")
    };
    granted
}

#[tokio::test]
async fn one_that_never_had_a_part_elects_anybody() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let (log, state) = open_log(dir.path());
    let _group = open(&log, state, &hub, &[]).await;
    let first = EntryId {
        term: Term(1),
        index: 1,
    };
    assert!(elects(&hub, 1, Some(first)).await);
}

#[tokio::test]
async fn one_that_forgot_its_part_votes_as_if_it_had_it() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let (log, state) = open_log(dir.path());
    let group = open(&log, state, &hub, &[1]).await;
    serves(&group).await;
    for _ in 0..3 {
        put(&group).await;
    }
    let had = group.last_id();
    group.close().await;
    drop(group);
    let (done, forgotten) = oneshot::channel();
    log.forget(GROUP, |r| drop(done.send(r))).unwrap();
    forgotten.await.unwrap().unwrap();
    // Twice: what it had less of later does not make it forget that.
    let (done, forgotten) = oneshot::channel();
    log.forget(GROUP, |r| drop(done.send(r))).unwrap();
    forgotten.await.unwrap().unwrap();
    assert_eq!(log.forgotten(GROUP).unwrap(), had);
    let group = open(&log, GroupState::default(), &hub, &[]).await;
    assert!(group.lacks_what_it_had());
    let before = EntryId {
        index: had.index - 1,
        ..had
    };
    let term = had.term.0 + 10;
    assert!(!elects(&hub, term, None).await);
    assert!(!elects(&hub, term, Some(before)).await);
    assert!(elects(&hub, term, Some(had)).await);
    let later = EntryId {
        term: Term(had.term.0 + 1),
        index: 1,
    };
    assert!(elects(&hub, term + 1, Some(later)).await);
}

#[tokio::test]
async fn a_leader_that_is_asked_to_hand_over_to_itself_goes_on() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let (log, state) = open_log(dir.path());
    let group = open(&log, state, &hub, &[1]).await;
    serves(&group).await;
    // A member that is never heard of: what has to be heard of most is heard of one.
    group.add_learner(2, Member::default()).await.unwrap();
    group.transfer(1).await.unwrap();
    put(&group).await;
    tokio::time::sleep(Timing::CENTRAL.election_max).await;
    assert!(group.is_serving());
}
