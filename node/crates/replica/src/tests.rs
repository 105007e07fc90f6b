//! Groups over real logs, and what a node may do that is in one again.

use crate::testing::Hub;
use crate::types::StoredVote;
use crate::wire::Open;
use crate::wire::Purpose;
use crate::wire::Request;
use crate::wire::Response;
use crate::wire::VoteHead;
use crate::wire::decode;
use crate::wire::encode;
use crate::*;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use weir_log::{EntryHeader, EntryId, GroupState, Log, Op, Options, StateKey, StateKind};
use weir_types::limits::ENTRY_BYTES_MAX;
use weir_types::{GroupId, Offset, PartitionId, Term};

const GROUP: GroupId = GroupId(3);
const WITHIN: Duration = Duration::from_secs(30);

struct Nothing;

impl StateMachine for Nothing {
    fn apply(&self, _: &EntryHeader) -> Result<(), String> {
        Ok(())
    }
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
    open_as(1, log, state, hub, founders).await
}

async fn open_as(node: NodeId, log: &Log, state: GroupState, hub: &Hub, founders: &[NodeId]) -> Group {
    let config = GroupConfig {
        id: GROUP,
        node,
        member: Member::default(),
        founders: founders.iter().map(|id| (*id, Member::default())).collect(),
        timing: Timing::CENTRAL,
    };
    let group = Group::open(config, log.clone(), state, hub.transport(node), Arc::new(Nothing));
    let group = group.await.unwrap();
    let found = group.clone();
    hub.add(node, move |id| (id == GROUP).then(|| found.clone()));
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
    let decided = propose(group, 0).unwrap();
    decided.await.unwrap().unwrap();
}

type Waiting = oneshot::Receiver<Result<(), ProposeError>>;

/// Proposes a row of so many bytes, or the removal of one.
fn propose(group: &Group, bytes: usize) -> Result<Waiting, ProposeError> {
    let (done, decided) = oneshot::channel();
    let key = StateKey::new(StateKind::Members, &[&GROUP.0.to_be_bytes()[..], b"x"].concat());
    let op = match bytes {
        0 => Op::Remove { key },
        bytes => Op::Put {
            key,
            value: vec![7; bytes].into(),
        },
    };
    let proposal = Proposal {
        ops: vec![op],
        lazy: false,
        control: false,
    };
    let mut leader = group.lead().unwrap();
    leader.propose(proposal, Box::new(|r| drop(done.send(r))))?;
    Ok(decided)
}

/// Whether node 1 would elect one, in `term`, whose last entry is `last`.
async fn elects(hub: &Hub, term: u64, last: Option<EntryId>) -> bool {
    let mut channel = hub.transport(2).open(1, Member::default()).await.unwrap();
    let (group, to, purpose) = (GROUP, 1, Purpose::Control);
    let open = Open::Group { group, to, purpose };
    channel.tx.send(open.encode().unwrap()).await.unwrap();
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
    assert!(group.lacks_earlier_entries());
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

/// The sets of voters that must agree.
fn configs(group: &Group) -> Vec<BTreeSet<NodeId>> {
    let metrics = group.raft().metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().get_joint_config().clone()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let waits = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(WITHIN, waits).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_change_of_voters_that_was_left_half_done_is_ended() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let (log, state) = open_log(&dir.path().join("1"));
    let first = open(&log, state, &hub, &[1]).await;
    let (log, state) = open_log(&dir.path().join("2"));
    let _second = open_as(2, &log, state, &hub, &[]).await;
    serves(&first).await;
    first.add_learner(2, Member::default()).await.unwrap();
    // Given up between its two entries, as when the leader goes.
    let change = openraft::ChangeMembers::AddVoterIds(BTreeSet::from([2]));
    tokio::select! {
        biased;
        () = until("the change begins", || configs(&first).len() == 2) => {}
        _ = first.raft().change_membership(change, false) => {}
    }
    let both = vec![BTreeSet::from([1, 2])];
    until("the change ends", || configs(&first) == both).await;
}

#[tokio::test]
async fn a_leader_that_was_half_removed_by_another_stays_and_is_no_second_one() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let (log, state) = open_log(&dir.path().join("1"));
    let first = open(&log, state, &hub, &[1]).await;
    let (log, state) = open_log(&dir.path().join("2"));
    let _second = open_as(2, &log, state, &hub, &[]).await;
    serves(&first).await;
    first.add_learner(2, Member::default()).await.unwrap();
    first.promote(2).await.unwrap();
    let change = openraft::ChangeMembers::RemoveVoters(BTreeSet::from([1]));
    tokio::select! {
        biased;
        () = until("the change begins", || configs(&first).len() == 2) => {}
        _ = first.raft().change_membership(change, false) => {}
    }
    // Without it the other could be elected while this one still answers.
    let both = vec![BTreeSet::from([1, 2])];
    until("it stays", || configs(&first) == both).await;
    serves(&first).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_lost_when_all_others_have_said_so() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let (log, state) = open_log(&dir.path().join("1"));
    let first = open(&log, state, &hub, &[1]).await;
    serves(&first).await;
    first.add_learner(2, Member::default()).await.unwrap();
    let partition = PartitionId::new(GROUP, 1).unwrap();
    let mend = || first.mend(partition, Offset::ZERO, Offset::new(3));
    assert_eq!(mend().await, Mended::Unknown);
    let (log, state) = open_log(&dir.path().join("2"));
    let _second = open_as(2, &log, state, &hub, &[]).await;
    until("node 2 has its part", || first.lag(2).is_some_and(|lag| lag == 0)).await;
    assert_eq!(mend().await, Mended::Lost);
}

#[tokio::test]
async fn what_is_larger_than_an_entry_is_refused_and_the_rest_goes_on() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let (log, state) = open_log(dir.path());
    let group = open(&log, state, &hub, &[1]).await;
    serves(&group).await;
    let refused = propose(&group, ENTRY_BYTES_MAX).unwrap_err();
    assert!(matches!(refused, ProposeError::TooLarge { .. }), "{refused}");
    assert_eq!(refused.kind(), weir_types::ErrorKind::Invalid);
    put(&group).await;
}

#[tokio::test]
async fn a_leader_that_cannot_send_its_next_entry_lets_another_lead() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::default());
    let mut groups = Vec::new();
    for node in [1, 2, 3] {
        let (log, state) = open_log(&dir.path().join(node.to_string()));
        groups.push(open_as(node, &log, state, &hub, &[1, 2, 3]).await);
    }
    let leads = || groups.iter().find(|group| group.is_serving());
    until("one leads", || leads().is_some()).await;
    let first = leads().unwrap();
    put(first).await;
    hub.limit_messages(100_000);
    let before = first.last_index();
    let decided = propose(first, 200_000).unwrap();
    until("another leads", || {
        leads().is_some_and(|now| now.node() != first.node())
    })
    .await;
    // Nobody was told that it was stored, nor that it was not.
    assert!(matches!(decided.await.unwrap(), Err(ProposeError::Unknown)));
    let second = leads().unwrap();
    put(second).await;
    until("it is gone from the first one's log", || {
        first.last_id().term == second.last_id().term && first.last_index() > before
    })
    .await;
    // And it may lead again: the entry is gone.
    hub.limit_messages(usize::MAX);
    second.transfer(first.node()).await.unwrap();
    until("the first leads again", || first.is_serving()).await;
    put(first).await;
}
