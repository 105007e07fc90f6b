//! Opening and closing a group.

use crate::error::GroupError;
use crate::group::config::{GroupConfig, raft_config};
use crate::group::keeper;
use crate::group::mend::Mended;
use crate::group::{Group, Inner};
use crate::raft::bootstrap::{bootstrap, stored_members, stored_vote};
use crate::raft::machine::Machine;
use crate::raft::network::Network;
use crate::raft::shared::{Shared, State, StateMachine};
use crate::raft::store::Store;
use crate::transport::Transport;
use futures_util::future::BoxFuture;
use openraft::Raft;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{GroupState, Log};
use weir_types::planted::{Bug, planted};
use weir_types::sync::Mutex;

/// Longest wait of an orderly end for proposals, and the interval of checks.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

const CLOSE_POLL: Duration = Duration::from_millis(2);

impl Group {
    /// Opens the group over `log`, whose recovered state is `state`. Needs a tokio runtime for the group's
    /// tasks.
    ///
    /// # Errors
    /// Fails when the log has stopped.
    ///
    /// # Cancel safety
    /// Not cancel safe: the first entry of a new group may be written.
    pub fn open(
        config: GroupConfig,
        log: Log,
        mut state: GroupState,
        transport: Arc<dyn Transport>,
        machine: Arc<dyn StateMachine>,
    ) -> BoxFuture<'static, Result<Self, GroupError>> {
        Box::pin(async move {
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
                has_followers: AtomicBool::new(members.as_ref().is_some_and(|m| m.nodes().count() > 1)),
                has_witness: AtomicBool::new(false),
                is_only_voter: AtomicBool::new(members.as_ref().is_some_and(|m| m.voter_ids().eq([node]))),
                is_not_voter: AtomicBool::new(false),
                heard_leader: AtomicU64::new(0),
                begun: Instant::now(),
                ended: AtomicBool::new(false),
                is_disk_full: AtomicBool::new(false),
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
                last_failed_repair: tokio::sync::Mutex::default(),
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
            *group.0.keeper.lock() = Some(keeper);
            Ok(group)
        })
    }

    /// Elects the only voter at once, without waiting for silence.
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

    /// Leaves consensus, after all proposals are decided or a second has passed. The log stays open.
    ///
    /// # Cancel safety
    /// Call again after a drop: some tasks may still run.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let decided = async {
                while self.0.shared.lock().leading.is_some() && !self.0.shared.lock().pending.is_empty() {
                    tokio::time::sleep(CLOSE_POLL).await;
                }
            };
            let _ = tokio::time::timeout(CLOSE_WAIT, decided).await;
            if let Some(keeper) = self.0.keeper.lock().take() {
                keeper.abort();
            }
            let _ = self.0.raft.shutdown().await;
            // Nothing else would answer the waiters.
            self.0.shared.give_up();
        })
    }
}
