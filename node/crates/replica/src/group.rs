//! One replica group.

mod config;
mod keeper;
mod leader;

pub use config::{GroupConfig, Timing};
pub use leader::Leader;

use crate::error::{GroupError, ProposeError};
use crate::machine::Machine;
use crate::mend::{InVain, Mended};
use crate::network::Network;
use crate::raft::{Member, Membership, NodeId, Types};
use crate::store::{Store, bootstrap, stored_members, stored_vote};
use crate::transport::Transport;
use crate::witness::Confirmed;
use config::raft_config;
use futures_util::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use openraft::{Instant as _, Raft};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{AppendError, EntryHeader, EntryId, GroupState, Log, Op};
use weir_types::planted::{Bug, planted};
use weir_types::{GroupId, Term};

/// Called once with what became of a proposal.
pub type Decided = Box<dyn FnOnce(Result<(), ProposeError>) + Send>;

/// What committed entries change. Calls come from one task at a time and must not block.
pub trait StateMachine: Send + Sync + 'static {
    /// An entry is committed and readable. Called in order, before its waiters are told.
    ///
    /// # Errors
    /// In words, when it says what this release does not understand: the group stops, since it would go on without.
    fn apply(&self, header: &EntryHeader) -> Result<(), String>;
    /// This node leads from now on, and all that was committed before is applied: [`Group::lead`] gives the right to
    /// propose.
    fn leading(&self);
    /// The term is over: what was computed ahead of commitment is void.
    fn stepped_down(&self);
    /// All of the state was replaced by another node's: it is in the log's rows.
    fn replaced(&self);
}

/// Answers what other members ask of the one that leads, beyond consensus.
pub trait Forwarded: Send + Sync + 'static {
    /// The answer to `ask`, in whatever form the two sides agree on.
    fn answer(&self, ask: Vec<u8>) -> BoxFuture<'static, Vec<u8>>;
}

/// What to propose.
pub struct Proposal {
    /// Effects, all or none of them.
    pub ops: Vec<Op>,
    /// May be acknowledged before it is synced; heeded only on a node that stands alone, since a replica that forgets
    /// what it acknowledged is no replica.
    pub lazy: bool,
    /// May use part of the disk's reserve: frees space, or keeps the node in order.
    pub control: bool,
}

/// A group that is open. Clones are handles to the same one.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    store: Store,
    raft: Raft<Types, Machine>,
    timing: Timing,
    witness: bool,
    /// The last entry that this node had before it was out of the group for a while.
    forgotten: EntryId,
    transport: Arc<dyn Transport>,
    receiving: tokio::sync::Mutex<()>,
    /// Held while the voters change: that takes two entries.
    changing: Arc<tokio::sync::Mutex<()>>,
    in_vain: tokio::sync::Mutex<InVain>,
    forwarded: OnceLock<Arc<dyn Forwarded>>,
    keeper: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// A leader that has sent nothing for so long leads no more, for those who ask: several heartbeats, and an election.
const LEADER_SILENT: Duration = Duration::from_secs(3);
/// A member that takes nothing is asked again several times in this.
const REFUSES_FOR: Duration = Duration::from_secs(2);

/// What the handle and the state machine share.
pub(crate) struct Shared {
    pub(crate) machine: Arc<dyn StateMachine>,
    node: NodeId,
    /// More than one node has the group's log, or will.
    many: AtomicBool,
    has_witness: AtomicBool,
    /// This node is the only voter: nobody else can be elected, whether others are heard or not.
    sole: AtomicBool,
    /// This node is no voter: others can be elected, whoever is heard.
    out: AtomicBool,
    /// When a leader last sent something, in milliseconds since `begun`.
    heard_leader: AtomicU64,
    begun: Instant,
    /// Consensus is not there any more.
    ended: AtomicBool,
    /// What the leader sent was refused for want of room.
    full: AtomicBool,
    /// Kept while there is a witness, which comes after the others.
    confirmed: tokio::sync::watch::Sender<Confirmed>,
    /// Whether this node may propose is to be looked at again.
    turned: Arc<tokio::sync::Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last term that began here: its first entry is applied.
    began: Term,
    /// The term in which this node may propose.
    leading: Option<Term>,
    /// An entry that no follower can be sent: whoever has it in its log would lead in vain.
    unsendable: Option<EntryId>,
    /// A term in which something was refused after others had been computed on top of it: nothing more is proposed in it.
    void: Option<Term>,
    /// Another was asked to lead: until then this node answers nothing, since that one may be elected any moment.
    handing_over: Option<Instant>,
    /// Numbers proposals of this node, over all terms.
    last_ticket: u64,
    /// The last proposal that is known to be committed.
    committed: u64,
    pending: BTreeMap<u64, Pending>,
    /// Called when no proposal up to a ticket is undecided.
    settling: Vec<(u64, Settled)>,
    /// Called when this node is heard again, or leads no more.
    silent: Vec<Settled>,
    members: Option<Membership>,
    /// Members that would not take entries: when they last said so, and why. One for each, however often it is asked.
    refused: BTreeMap<NodeId, (Instant, String)>,
}

type Settled = Box<dyn FnOnce() + Send>;

impl State {
    /// Those whose proposals are all decided.
    fn settled(&mut self) -> Vec<Settled> {
        let first = self
            .pending
            .first_key_value()
            .map_or(u64::MAX, |(ticket, _)| *ticket);
        let (done, rest) = std::mem::take(&mut self.settling)
            .into_iter()
            .partition(|(upto, _)| *upto < first);
        self.settling = rest;
        done.into_iter()
            .map(|(_, waiter): (u64, Settled)| waiter)
            .collect()
    }
}

/// A proposal that is not decided. It stays, also when nobody waits for it any more: whatever is computed next must not
/// take it for void.
struct Pending {
    waiters: Vec<Decided>,
    since: Instant,
}

/// A proposal that is not decided within this time has an unknown outcome for those who wait: below the 30 s that a
/// Kafka client waits.
const PROPOSAL_WAIT: Duration = Duration::from_secs(10);
/// How long an orderly end waits for proposals, and how often it looks.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
const CLOSE_POLL: Duration = Duration::from_millis(2);

impl Group {
    /// Opens the group over `log`, which recovery found to stand at `state`. Must be called within a runtime, whose
    /// tasks it uses.
    ///
    /// # Errors
    /// When the log stopped.
    pub async fn open(
        config: GroupConfig,
        log: Log,
        mut state: GroupState,
        transport: Arc<dyn Transport>,
        machine: Arc<dyn StateMachine>,
    ) -> Result<Self, GroupError> {
        let stopped = |e: &dyn std::fmt::Display| GroupError::Stopped(e.to_string());
        let (id, node) = (config.id, config.node);
        let mut vote = stored_vote(&log, id).map_err(|e| stopped(&e))?;
        if vote.is_none() && !config.founders.is_empty() {
            bootstrap(&log, id, &mut state, node, config.founders)
                .await
                .map_err(|e| stopped(&e))?;
            vote = stored_vote(&log, id).map_err(|e| stopped(&e))?;
        }
        let forgotten = log.forgotten(id).map_err(|e| stopped(&e))?;
        let members = stored_members(&log, id).and_then(|m| m.membership());
        let shared = Arc::new(Shared {
            machine,
            node,
            many: AtomicBool::new(members.as_ref().is_some_and(|m| m.nodes().count() > 1)),
            has_witness: AtomicBool::new(false),
            sole: AtomicBool::new(members.as_ref().is_some_and(|m| m.voter_ids().eq([node]))),
            out: AtomicBool::new(false),
            heard_leader: AtomicU64::new(0),
            begun: Instant::now(),
            ended: AtomicBool::new(false),
            full: AtomicBool::new(false),
            confirmed: tokio::sync::watch::Sender::default(),
            turned: Arc::default(),
            state: Mutex::new(State {
                members,
                ..State::default()
            }),
        });
        let store = Store::new(id, log, state, vote);
        let machine = Machine::new(store.clone(), Arc::clone(&shared), state.applied);
        let network = Network {
            group: id,
            transport: Arc::clone(&transport),
            shared: Arc::clone(&shared),
            store: store.clone(),
            timing: config.timing,
        };
        let mut raft_config = raft_config(config.timing);
        let stands = state.last >= forgotten && !config.member.witness;
        raft_config.enable_elect = stands || planted(Bug::WitnessLeads);
        let raft_config = raft_config.validate().map_err(|e| stopped(&e))?;
        let raft = Raft::new(node, Arc::new(raft_config), network, store.clone(), machine)
            .await
            .map_err(|e| stopped(&e))?;
        let group = Self(Arc::new(Inner {
            shared,
            store,
            raft,
            timing: config.timing,
            witness: config.member.witness,
            forgotten,
            transport,
            receiving: tokio::sync::Mutex::new(()),
            changing: Arc::default(),
            in_vain: tokio::sync::Mutex::default(),
            forwarded: OnceLock::new(),
            keeper: Mutex::new(None),
        }));
        let weak = Arc::downgrade(&group.0);
        group.0.store.set_mend(Box::new(move |partition, at| {
            let group = weak.upgrade().map(Self);
            Box::pin(async move {
                let Some(group) = group else { return false };
                group.mend(partition, at, at.plus(1)).await == Mended::Whole
            })
        }));
        if stands {
            group.elect_alone().await;
        }
        let keeper = tokio::spawn(keeper::keep(Arc::downgrade(&group.0)));
        *group.0.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Ok(group)
    }

    /// The only voter need not wait for silence.
    async fn elect_alone(&self) {
        let node = self.0.shared.node;
        let voters = self.0.raft.with_raft_state(|s| {
            let effective = s.membership_state.effective();
            effective.membership().voter_ids().collect::<Vec<_>>()
        });
        if voters.await.is_ok_and(|v| v == [node]) {
            let _ = self.0.raft.trigger().elect(false).await;
        }
    }

    /// Sets who answers what other members ask, once.
    pub fn set_forwarded(&self, answer: Arc<dyn Forwarded>) {
        let _ = self.0.forwarded.set(answer);
    }

    pub(crate) fn forwarded(&self) -> Option<&Arc<dyn Forwarded>> {
        self.0.forwarded.get()
    }

    /// Asks the member that leads.
    ///
    /// # Errors
    /// When nobody else leads, or it does not answer: what was asked may have happened.
    pub async fn forward(&self, ask: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        let leader = self.leader().filter(|(id, _)| *id != self.node());
        let (id, at) = leader.ok_or(GroupError::NotLeader { leader: None })?;
        self.forward_to(id, at, ask).await
    }

    /// Asks `id`, which is reached at `at`.
    ///
    /// # Errors
    /// When it does not answer: what was asked may have happened.
    pub async fn forward_to(&self, id: NodeId, at: Member, ask: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        let answer = crate::network::forward(self, id, at, ask).await;
        answer.map_err(|e| GroupError::Stopped(e.to_string()))
    }

    pub(crate) fn raft(&self) -> &Raft<Types, Machine> {
        &self.0.raft
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn log(&self) -> &Log {
        self.0.store.log()
    }

    pub(crate) fn shared_handle(&self) -> Arc<Shared> {
        Arc::clone(&self.0.shared)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.0.transport)
    }

    pub(crate) fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.0.changing
    }

    pub(crate) fn in_vain(&self) -> &tokio::sync::Mutex<InVain> {
        &self.0.in_vain
    }

    /// Why consensus stopped, if it did: nothing is decided here any more, and only a new start helps.
    pub fn stopped(&self) -> Option<String> {
        let running = self.0.raft.metrics().borrow_watched().running_state.clone();
        let ended = || self.0.shared.ended.load(Ordering::Relaxed);
        let panicked =
            || ended().then(|| "it ended with a panic: what this node has contradicts the others".to_owned());
        running.err().map(|e| e.to_string()).or_else(panicked)
    }

    pub(crate) fn receiving(&self) -> &tokio::sync::Mutex<()> {
        &self.0.receiving
    }

    /// The last entry that this node had before it was out of the group for a while; the first of all when it never was.
    pub(crate) fn forgotten(&self) -> EntryId {
        self.0.forgotten
    }

    /// Whether it does not have yet what it had before it was out of the group: what it has may name members of long
    /// ago, and be enough to be elected by them.
    pub(crate) fn lacks_what_it_had(&self) -> bool {
        self.last_id() < self.0.forgotten
    }

    pub(crate) fn last_id(&self) -> EntryId {
        self.0.store.tail().last
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.0.store.tail().last.index
    }

    /// Which group it is.
    pub fn id(&self) -> GroupId {
        self.0.store.group()
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.0.shared.node
    }

    /// Whether this node only votes: see [`crate::witness`].
    pub fn is_witness(&self) -> bool {
        self.0.witness
    }

    /// How long others are waited for.
    pub fn timing(&self) -> Timing {
        self.0.timing
    }

    /// The right to propose, if this node leads and has applied all that was committed before its term.
    pub fn lead(&self) -> Option<Leader> {
        let term = self.0.shared.lock().leading?;
        Some(Leader {
            group: self.clone(),
            term,
        })
    }

    /// Whether this node leads, has applied all from before its term, and has heard from most voters so lately that
    /// nobody else can have been elected: what it has applied is then the newest there is. Without an election nobody
    /// else commits, so this holds for reads too.
    pub fn is_serving(&self) -> bool {
        self.leads_within(self.0.timing.election_min)
    }

    /// Whether this node leads, and has heard from most voters in the last `patience`.
    fn leads_within(&self, patience: Duration) -> bool {
        {
            let state = self.0.shared.lock();
            if state.leading.is_none() || state.handing_over.is_some_and(|until| Instant::now() < until) {
                return false;
            }
        }
        if self.0.shared.sole.load(Ordering::Relaxed) || planted(Bug::NoLease) {
            return true;
        }
        if self.0.shared.out.load(Ordering::Relaxed) {
            return false;
        }
        let heard = self.0.raft.as_leader().ok().and_then(|l| l.last_quorum_acked());
        heard.is_some_and(|at| at.elapsed() < patience)
    }

    /// Whether something can be proposed here: this node leads, has applied all from before its term, and has not asked another to
    /// take over. It need not have heard from most voters just now, as for reading: what a leader of yesterday proposes is not
    /// committed, and to refuse some of what comes in a row would change its order. Where most are away for good it says so.
    pub fn may_propose(&self) -> bool {
        let patience = match planted(Bug::LeaseToPropose) {
            true => self.0.timing.election_min,
            // Those that wait have been told by then that nothing is known of them.
            false => PROPOSAL_WAIT,
        };
        self.leads_within(patience)
    }

    /// Whether this node leads, and has not heard from most voters for a moment: consensus would refuse what it is given now, and
    /// with it all that follows in the term. What comes is better held until that is over ([`Group::when_heard`]).
    pub fn is_silent(&self) -> bool {
        !self.is_serving() && self.may_propose()
    }

    /// Calls `waiter` once most voters are heard again, or this node may not propose any more.
    pub fn when_heard(&self, waiter: Box<dyn FnOnce() + Send>) {
        self.0.shared.lock().silent.push(waiter);
        self.0.shared.turned.notify_one();
    }

    /// Tells those who wait to be heard, if that is over. Whether some still wait.
    fn tell_heard(&self) -> bool {
        if self.0.shared.lock().silent.is_empty() {
            return false;
        }
        if self.is_silent() {
            return true;
        }
        let waiters = std::mem::take(&mut self.0.shared.lock().silent);
        waiters.into_iter().for_each(|waiter| waiter());
        false
    }

    /// The term that this node knows of.
    pub fn term(&self) -> u64 {
        self.0.raft.metrics().borrow_watched().current_term
    }

    /// Who leads, as far as is known, and how to reach it. One that has been silent for several elections does not lead: consensus
    /// keeps it in mind until there is another.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        let id = self.0.raft.metrics().borrow_watched().current_leader?;
        if id != self.node() && self.0.shared.heard_leader_ago() > LEADER_SILENT {
            return None;
        }
        let state = self.0.shared.lock();
        let member = state.members.as_ref().and_then(|m| m.get_node(&id)).cloned();
        Some((id, member.unwrap_or_default()))
    }

    /// Calls `waiter` once the proposal `ticket` is decided; at once if it is.
    pub fn when_decided(&self, ticket: u64, waiter: Decided) {
        let mut state = self.0.shared.lock();
        if let Some(pending) = state.pending.get_mut(&ticket) {
            pending.waiters.push(waiter);
            return;
        }
        let committed = ticket <= state.committed;
        drop(state);
        waiter(if committed {
            Ok(())
        } else {
            Err(ProposeError::Unknown)
        });
    }

    /// Purges the log up to `upto`, for tests: otherwise it happens when the log has grown long.
    #[cfg(feature = "testing")]
    pub async fn purge(&self, upto: u64) {
        keeper::purge_upto(&self.0.raft, upto).await;
    }

    /// Calls `waiter` once no proposal up to `ticket` is undecided, whatever became of them; at once if none is.
    pub fn when_settled(&self, ticket: u64, waiter: Box<dyn FnOnce() + Send>) {
        let settled = {
            let mut state = self.0.shared.lock();
            state.settling.push((ticket, waiter));
            state.settled()
        };
        settled.into_iter().for_each(|waiter| waiter());
    }

    /// Answers nothing for the time in which one that was asked to lead may be elected.
    pub(crate) fn hand_over(&self) {
        let until = Instant::now() + 2 * self.0.timing.election_max;
        self.0.shared.lock().handing_over = Some(until);
    }

    /// Stops taking part, once what was proposed is decided or a second has passed. The log stays open.
    pub async fn close(&self) {
        let decided = async {
            while self.0.shared.lock().leading.is_some() && !self.0.shared.lock().pending.is_empty() {
                tokio::time::sleep(CLOSE_POLL).await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_WAIT, decided).await;
        if let Some(keeper) = self
            .0
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            keeper.abort();
        }
        let _ = self.0.raft.shutdown().await;
        // Nobody else would tell them any more.
        self.0.shared.give_up();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first entry of a term is applied. If it is this node's, it leads.
    pub(crate) fn began(&self, term: Term) {
        self.lock().began = term;
        self.turned.notify_one();
    }

    pub(crate) fn set_members(&self, membership: &Membership) {
        self.many.store(membership.nodes().count() > 1, Ordering::Relaxed);
        self.sole
            .store(membership.voter_ids().eq([self.node]), Ordering::Relaxed);
        let witness = membership.nodes().any(|(_, member)| member.witness);
        self.has_witness.store(witness, Ordering::Relaxed);
        self.out.store(
            !membership.voter_ids().any(|id| id == self.node),
            Ordering::Relaxed,
        );
        self.lock().members = Some(membership.clone());
    }

    /// A leader has sent something.
    pub(crate) fn hear_leader(&self) {
        let now = self.begun.elapsed().as_millis() as u64;
        self.heard_leader.store(now, Ordering::Relaxed);
    }

    fn heard_leader_ago(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_leader.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(heard)
    }

    /// A member has confirmed the entries up to `index`.
    pub(crate) fn has_confirmed(&self, node: NodeId, index: u64) {
        if self.has_witness.load(Ordering::Relaxed) {
            self.confirmed.send_modify(|confirmed| {
                confirmed.insert(node, index);
            });
        }
    }

    pub(crate) fn confirmed(&self) -> tokio::sync::watch::Receiver<Confirmed> {
        self.confirmed.subscribe()
    }

    /// Voters, other than this node, that keep records.
    pub(crate) fn other_full_voters(&self) -> BTreeSet<NodeId> {
        let state = self.lock();
        let full = state.members.iter().flat_map(full_voters);
        full.filter(|id| *id != self.node).collect()
    }

    /// A member did not take what it was sent.
    pub(crate) fn refused(&self, node: NodeId, why: &str) {
        let mut state = self.lock();
        state.refused.insert(node, (Instant::now(), why.to_owned()));
        let State { refused, members, .. } = &mut *state;
        refused.retain(|id, _| members.as_ref().is_none_or(|m| m.get_node(id).is_some()));
    }

    /// Why a member takes nothing, if it said so in the last [`REFUSES_FOR`].
    pub(crate) fn refuses(&self, node: NodeId) -> Option<String> {
        let state = self.lock();
        let (_, why) = state
            .refused
            .get(&node)
            .filter(|(at, _)| at.elapsed() < REFUSES_FOR)?;
        Some(why.clone())
    }

    /// Says once when there is no room for what the leader sends, and when there is again.
    pub(crate) fn tell_of_room(&self, full: Option<&AppendError>) {
        if self.full.load(Ordering::Relaxed) == full.is_some() {
            return;
        }
        self.full.store(full.is_some(), Ordering::Relaxed);
        match full {
            Some(error) => {
                tracing::warn!(%error, "what the leader sends is not taken; this node falls behind")
            }
            None => tracing::info!("there is room again for what the leader sends"),
        }
    }

    /// The log goes on with an entry that is too large for any message: this node leads no longer, and does not stand until the
    /// entry is gone. Where there is nobody else it goes on alone.
    pub(crate) fn cannot_send(&self, entry: EntryId, bytes: usize) {
        let sole = self.sole.load(Ordering::Relaxed);
        tracing::error!(
            index = entry.index,
            bytes,
            "an entry is too large to be sent to other nodes{}",
            if sole { "" } else { ": another node has to lead" }
        );
        if sole {
            return;
        }
        let mut state = self.lock();
        state.unsendable = Some(entry);
        state.void = state.void.max(state.leading);
        self.turned.notify_one();
    }

    /// Whether this node may stand for election, if that is to be said anew.
    fn may_stand(&self, last: EntryId) -> Option<bool> {
        let mut state = self.lock();
        let entry = state.unsendable?;
        // Another leader has put something else in its place, or has got it to the others.
        let is_gone = last.index < entry.index || last.term > entry.term;
        if is_gone {
            state.unsendable = None;
        }
        Some(is_gone)
    }

    pub(crate) fn members(&self) -> Option<Membership> {
        self.lock().members.clone()
    }

    fn decided(&self, term: Term, ticket: u64, result: ClientWriteResult<Types>) {
        let result = match result {
            Ok(_) => Ok(()),
            // Not even appended.
            Err(ClientWriteError::ForwardToLeader(to)) => {
                Err(ProposeError::NotLeader { leader: to.leader_id })
            }
            Err(_) if planted(Bug::TakenBackIsOk) => Ok(()),
            // Taken back here, and perhaps still with another that will lead: it may yet be committed.
            Err(_) => Err(ProposeError::Unknown),
        };
        let (pending, settled, stepped_down) = {
            let mut state = self.lock();
            let mut stepped_down = false;
            match &result {
                Ok(()) => state.committed = state.committed.max(ticket),
                // Others may have been computed on top of it, and must not follow.
                Err(_) => {
                    state.void = state.void.max(Some(term));
                    stepped_down = state.leading.take_if(|t| *t <= term).is_some();
                    self.turned.notify_one();
                }
            }
            let pending = state.pending.remove(&ticket);
            (pending, state.settled(), stepped_down)
        };
        for waiter in pending.into_iter().flat_map(|p| p.waiters) {
            waiter(result.clone());
        }
        settled.into_iter().for_each(|waiter| waiter());
        if stepped_down {
            self.machine.stepped_down();
        }
    }

    /// Tells all who wait that they will not hear what became of their proposals.
    fn give_up(&self) {
        let (left, settling) = {
            let mut state = self.lock();
            let mut settling = std::mem::take(&mut state.settling);
            settling.extend(
                std::mem::take(&mut state.silent)
                    .into_iter()
                    .map(|waiter| (0, waiter)),
            );
            (std::mem::take(&mut state.pending), settling)
        };
        for waiter in left.into_values().flat_map(|p| p.waiters) {
            waiter(Err(ProposeError::Unknown));
        }
        settling.into_iter().for_each(|(_, waiter)| waiter());
    }

    /// Whether `term` is this node's, and nothing more is proposed in it.
    fn is_void(&self, term: Term) -> bool {
        self.lock().void >= Some(term)
    }

    /// Follows what openraft says of who leads.
    fn follow(&self, leading: Option<Term>) {
        let (before, after, overdue) = {
            let mut state = self.lock();
            let before = state.leading;
            let began = |term: Term| state.began >= term || planted(Bug::LeadBeforeApplied);
            let leading = leading.filter(|term| began(*term) && state.void < Some(*term));
            state.leading = leading;
            let now = Instant::now();
            let mut overdue = Vec::new();
            for pending in state.pending.values_mut() {
                if now.duration_since(pending.since) <= PROPOSAL_WAIT {
                    break;
                }
                overdue.append(&mut pending.waiters);
            }
            (before, leading, overdue)
        };
        if before.is_some() && before != after {
            tracing::info!("this node does not lead any more");
            self.machine.stepped_down();
        }
        if let Some(term) = after.filter(|_| before != after) {
            tracing::info!(term = term.0, "this node leads");
            // What was confirmed to it earlier may have been taken back since.
            self.confirmed.send_modify(Confirmed::clear);
            self.machine.leading();
        }
        for waiter in overdue {
            waiter(Err(ProposeError::Unknown));
        }
    }
}

/// Voters that keep records.
pub(crate) fn full_voters(members: &Membership) -> impl Iterator<Item = NodeId> + '_ {
    let full = |id: &NodeId| members.get_node(id).is_some_and(|m| !m.witness);
    members.voter_ids().filter(full)
}
