//! The state machine that openraft drives: the broker's state, the log's effects, and snapshots.

use crate::raft::bootstrap::stored_members;
use crate::raft::shared::Shared;
use crate::raft::store::{Store, wait};
use crate::types::{SnapshotMeta, StoredMembers, StoredMembership, Types, entry_id, log_id};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::TryStreamExt;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;
use weir_log::{EntryId, LogSnapshot, StateKey};
use weir_types::planted::{Bug, planted};

/// A snapshot: taken here, or received from another node.
pub(crate) enum SnapshotData {
    /// A snapshot to be sent.
    Taken(Arc<LogSnapshot>),
    /// Rows of `state` to be installed. The batches are in the log already.
    Received(Vec<(StateKey, Bytes)>),
}

type TheSnapshot = openraft::alias::SnapshotOf<Types, SnapshotData>;

/// The state machine of a group.
pub(crate) struct Machine {
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
    pub(crate) applied: EntryId,
    pub(crate) members: StoredMembers,
}

impl Machine {
    pub(crate) fn new(store: Store, shared: Arc<Shared>, applied: EntryId) -> Self {
        let members = stored_members(store.log(), store.group()).unwrap_or_default();
        let this = Self {
            store,
            shared,
            applied,
            members,
        };
        if let Some(membership) = this.members.membership() {
            this.set_members(&membership);
        }
        this
    }
}

impl Machine {
    fn set_members(&self, membership: &crate::types::Membership) {
        self.shared.set_members(membership);
        self.store
            .tail()
            .keep_for_followers(membership.nodes().count() > 1);
    }
}

/// Takes a snapshot on request: nothing is kept.
pub(crate) struct Builder(Store);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<TheSnapshot> {
        take(&self.0).await
    }
}

async fn take(store: &Store) -> io::Result<TheSnapshot> {
    let (done, taken) = oneshot::channel();
    let reply = move |r| drop(done.send(r));
    store
        .log()
        .snapshot(store.group(), reply)
        .map_err(io::Error::other)?;
    let taken = taken.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let members = taken
        .row(&crate::types::members_key(store.group()))
        .map_err(io::Error::other)?;
    let members = members
        .and_then(|row| StoredMembers::decode(&row))
        .unwrap_or_default();
    Ok(Snapshot {
        meta: SnapshotMeta {
            last_log_id: Some(log_id(taken.applied())),
            last_membership: members.stored(),
        },
        snapshot: SnapshotData::Taken(Arc::new(taken)),
    })
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<crate::types::LogId>, StoredMembership)> {
        Ok((Some(log_id(self.applied)), self.members.stored()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let header = self.store.header(&entry);
            self.store.until_flushed(header.index).await?;
            self.applied = header.id();
            self.store.log().apply(Arc::clone(&header));
            self.shared.machine.apply(&header).map_err(|why| {
                tracing::error!(index = header.index, why, "an entry is not for this release");
                io::Error::other(why)
            })?;
            self.store.tail().applied(header.index);
            match &entry.payload {
                // A leader's first entry: all earlier entries are applied now.
                EntryPayload::Blank => self.shared.began(header.term),
                EntryPayload::Membership(m) => {
                    self.members = StoredMembers::new(header.id(), m);
                    self.set_members(m);
                }
                EntryPayload::Normal(_) => {}
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.store.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let SnapshotData::Received(state) = data else {
            return Err(io::Error::other("a node does not install its own snapshot"));
        };
        let at = meta.last_log_id.as_ref().map_or(EntryId::default(), entry_id);
        let (log, group) = (self.store.log().clone(), self.store.group());
        wait(|done| log.install(group, at, state, done)).await?;
        self.store.restart(at);
        self.applied = at;
        self.members = stored_members(&log, group).unwrap_or_default();
        if let Some(membership) = self.members.membership() {
            self.set_members(&membership);
        }
        if !planted(Bug::InstallWithoutReload) {
            self.shared.machine.replaced();
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<TheSnapshot>> {
        take(&self.store).await.map(Some)
    }
}
