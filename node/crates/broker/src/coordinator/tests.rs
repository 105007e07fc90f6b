//! The life of groups, with time passed in.

use super::group::join::JoinStep;
use super::group::sync::SyncStep;
use super::group::{Group, JoinReply, Phase, subscription};
use super::types::{Caller, GroupError, Join, Joined, Synced};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

type JoinAnswer = oneshot::Receiver<Result<Joined, GroupError>>;

fn join(member: &str, instance: Option<&str>) -> Join {
    Join {
        member: member.to_owned(),
        instance: instance.map(str::to_owned),
        client: "c".to_owned(),
        host: "/127.0.0.1".to_owned(),
        session: Duration::from_secs(10),
        rebalance: Duration::from_secs(30),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), vec![1]), ("roundrobin".to_owned(), vec![2])],
        id_first: false,
        can_skip: true,
    }
}

struct Test {
    group: Group,
    now: Instant,
    ids: u32,
}

impl Test {
    fn new(delay_ms: u64) -> Self {
        Self {
            group: Group::new(Duration::from_millis(delay_ms)),
            now: Instant::now(),
            ids: 0,
        }
    }

    fn join(&mut self, join: Join) -> JoinAnswer {
        let (reply, answer): (JoinReply, _) = oneshot::channel();
        self.ids += 1;
        let id = format!("m{}", self.ids);
        if let JoinStep::Store(after) = self.group.join(join, || id, reply, self.now) {
            let (_, reply, joined) = *after;
            let _ = reply.send(Ok(joined));
        }
        answer
    }

    fn sync(&mut self, joined: &Joined) -> oneshot::Receiver<Result<Synced, GroupError>> {
        let (reply, answer) = oneshot::channel();
        let all = joined
            .members
            .iter()
            .map(|m| (m.id.clone(), Bytes::from(format!("for {}", m.id))))
            .collect();
        let caller = Caller {
            group: "g",
            member: &joined.member,
            instance: None,
            generation: joined.generation,
        };
        let step = self.group.sync(caller, (None, None), all, reply, self.now);
        if let SyncStep::Store(generation, row) = step {
            self.group.assigned(generation, row, Ok(()), self.now);
        }
        answer
    }

    fn beat(&mut self, joined: &Joined) -> Result<(), GroupError> {
        self.group
            .heartbeat(&joined.member, None, joined.generation, self.now)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.group.tick(self.now);
    }
}

fn got(answer: &mut JoinAnswer) -> Joined {
    answer.try_recv().unwrap().unwrap()
}

#[test]
fn two_members_share_and_one_that_falls_silent_is_missed() {
    let mut t = Test::new(3_000);
    let (mut a, mut b) = (t.join(join("", None)), t.join(join("", None)));
    t.pass(1);
    assert!(a.try_recv().is_err(), "the first rebalance waits for more");
    t.pass(3);
    let (a, b) = (got(&mut a), got(&mut b));
    assert_eq!((a.generation, b.generation, &a.leader), (1, 1, &b.leader));
    let (leader, other) = if a.leader == a.member { (a, b) } else { (b, a) };
    assert_eq!((leader.members.len(), other.members.len()), (2, 0));
    let mut waiting = t.sync(&other);
    assert!(waiting.try_recv().is_err());
    let mut given = t.sync(&leader);
    assert_eq!(
        given.try_recv().unwrap().unwrap().assignment,
        format!("for {}", leader.member)
    );
    assert_eq!(
        waiting.try_recv().unwrap().unwrap().assignment,
        format!("for {}", other.member)
    );
    assert_eq!(t.group.phase, Phase::Stable);
    t.pass(6);
    t.beat(&leader).unwrap();
    t.pass(6);
    // The other's session is over: the leader is told to join again, alone.
    assert_eq!(t.beat(&leader), Err(GroupError::RebalanceInProgress));
    assert_eq!(t.beat(&other), Err(GroupError::UnknownMember));
    let mut again = t.join(join(&leader.member, None));
    let again = got(&mut again);
    assert_eq!((again.generation, again.members.len()), (2, 1));
    assert_eq!(t.beat(&leader), Err(GroupError::IllegalGeneration));
}

#[test]
fn an_id_is_given_first_to_whoever_can_take_it() {
    let mut t = Test::new(0);
    let mut first = t.join(Join {
        id_first: true,
        ..join("", None)
    });
    let Err(GroupError::MemberIdRequired(id)) = first.try_recv().unwrap() else {
        panic!("no id")
    };
    let mut joined = t.join(join(&id, None));
    assert_eq!(got(&mut joined).member, id);
    let mut stranger = t.join(join("stranger", None));
    assert_eq!(stranger.try_recv().unwrap(), Err(GroupError::UnknownMember));
    let mut other = t.join(Join {
        protocol_type: "connect".to_owned(),
        ..join("", None)
    });
    assert_eq!(other.try_recv().unwrap(), Err(GroupError::InconsistentProtocol));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_past() {
    let mut t = Test::new(0);
    let first = got(&mut t.join(join("", Some("i"))));
    drop(t.sync(&first));
    let again = got(&mut t.join(join("", Some("i"))));
    assert_eq!(
        (again.generation, again.skip_assignment),
        (first.generation, true)
    );
    assert_ne!(again.member, first.member);
    let fenced = t
        .group
        .heartbeat(&first.member, Some("i"), first.generation, t.now);
    assert_eq!(fenced, Err(GroupError::FencedInstance));
    let mut kept = t.sync(&again);
    assert_eq!(
        kept.try_recv().unwrap().unwrap().assignment,
        format!("for {}", first.member)
    );
    t.group.leave("", Some("i"), t.now).unwrap();
    assert!(t.group.is_empty());
}

#[test]
fn a_restart_keeps_the_group_and_what_it_had_assigned() {
    let mut t = Test::new(0);
    let joined = got(&mut t.join(join("", None)));
    drop(t.sync(&joined));
    let row = t.group.row();
    let bytes = postcard::to_allocvec(&row).unwrap();
    let row = postcard::from_bytes(&bytes).unwrap();
    t.group = Group::restore(&row, Duration::ZERO, t.now);
    t.beat(&joined).unwrap();
    let mut kept = t.sync(&joined);
    assert_eq!(
        kept.try_recv().unwrap().unwrap().assignment,
        format!("for {}", joined.member)
    );
    t.pass(11);
    assert_eq!(t.beat(&joined), Err(GroupError::UnknownMember));
    assert_eq!(t.group.phase, Phase::Empty);
}

#[test]
fn whoever_does_not_join_again_in_time_is_left_behind() {
    let mut t = Test::new(0);
    let first = got(&mut t.join(join("", None)));
    drop(t.sync(&first));
    let mut second = t.join(join("", None));
    assert!(second.try_recv().is_err());
    for _ in 0..6 {
        t.pass(5);
        let _ = t.beat(&first);
    }
    let second = got(&mut second);
    assert_eq!((second.generation, second.leader == second.member), (2, true));
    assert_eq!(t.beat(&first), Err(GroupError::UnknownMember));
}

#[test]
fn a_subscription_that_lies_about_its_length_is_none() {
    let good = [0, 1, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff];
    assert_eq!(subscription(&good), Some(vec!["t".to_owned()]));
    for cut in 0..9 {
        assert_eq!(subscription(&good[..cut]), None);
    }
    assert_eq!(subscription(&[0, 1, 0x7f, 0xff, 0xff, 0xff]), None);
}
