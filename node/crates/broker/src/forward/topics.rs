//! Changes of topics that any node is asked for and the site's leader makes.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::core::Broker;
use crate::error::{AdminError, Refusal};
use crate::rpc::message::{Change, PeerRequest, PeerResponse};
use crate::state::rows::topic::Topic;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{decode, encode};
use weir_replica::ProposeError;
use weir_types::PartitionId;
use weir_types::level::LEVEL_OF_AGES;

/// Longest wait of a follower for a committed change: a follower in step is a heartbeat behind.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

const APPLIED_POLL: Duration = Duration::from_millis(5);

/// Prefix of topic names that are reserved for brokers.
const OWN_NAMES: &str = "__";

impl Broker {
    /// Makes a change that another node was asked for.
    pub(super) async fn answer_change(&self, who: &Principal, change: Change) -> PeerResponse {
        let done = match change {
            Change::Create {
                name,
                partitions,
                replicas,
                settings,
                is_unasked,
            } => {
                if is_unasked {
                    self.create_unasked(who, &name, partitions).await.map(drop)
                } else {
                    self.create_topic_on(who, &name, partitions, replicas, &settings)
                        .await
                        .map(drop)
                }
            }
            Change::Alter {
                name,
                partitions,
                settings,
            } => self
                .alter_topic(who, &name, partitions, &settings)
                .await
                .map(drop),
            Change::Delete { name, first } => self.delete_topic_if(who, &name, first).await,
            Change::Refuse { name } => {
                self.note_refused(&name);
                Ok(())
            }
        };
        match done {
            Ok(()) => PeerResponse::DoneAt {
                // The change's entry is at or before this.
                applied: self.group().status().last,
            },
            Err(e) => PeerResponse::NotDone(Refusal::from(&e), e.to_string()),
        }
    }

    /// Asks the leader to make a change, and waits until the change is applied here.
    async fn ask_for_change(&self, who: &Principal, change: Change) -> Result<(), AdminError> {
        // Nodes of the first release do not know the request.
        if self.level() < LEVEL_OF_AGES || self.leader().is_none() {
            return Err(self.not_leader().into());
        }
        let ask = PeerRequest::Change {
            client: who.account.clone(),
            change,
        };
        // The request may have arrived.
        let answer = self.group().forward(encode(&ask).into()).await;
        let answer = answer.map_err(|_| ProposeError::Unknown)?;
        match decode("an answer", &answer) {
            Ok(PeerResponse::DoneAt { applied }) => self.until_applied(applied).await,
            Ok(PeerResponse::NotDone(refusal, why)) => Err(AdminError::There { refusal, why }),
            Ok(PeerResponse::Refused(why, false)) => Err(AdminError::Refused(why)),
            Ok(PeerResponse::Refused(_, true)) => Err(self.not_leader().into()),
            _ => Err(ProposeError::Unknown.into()),
        }
    }

    /// Waits until this node has applied `applied` entries of the site.
    async fn until_applied(&self, applied: u64) -> Result<(), AdminError> {
        let deadline = Instant::now() + APPLIED_WITHIN;
        while self.group().status().applied < applied {
            // The change is committed, but this node lags behind.
            if Instant::now() >= deadline {
                return Err(ProposeError::Unknown.into());
            }
            tokio::time::sleep(APPLIED_POLL).await;
        }
        Ok(())
    }

    pub(crate) fn here(&self, name: &str) -> Result<Arc<Topic>, AdminError> {
        // Another client may have deleted the topic meanwhile.
        self.topic(name)
            .ok_or_else(|| AdminError::NoTopic(name.to_owned()))
    }

    /// Creates a topic at any node of the site, like [`Broker::create_topic_on`]. Returns once the topic is
    /// known here.
    ///
    /// # Errors
    /// When the change is refused or not committed: see [`AdminError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the topic may or may not be created.
    pub async fn create_topic_anywhere(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
        replicas: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        if self.is_serving() {
            return self
                .create_topic_on(who, name, partitions, replicas, settings)
                .await;
        }
        if !authorize(who, Operation::Create, Resource::Topic(name)) {
            return Err(AdminError::Denied);
        }
        let change = Change::Create {
            name: name.to_owned(),
            partitions,
            replicas,
            settings: settings.to_vec(),
            is_unasked: false,
        };
        self.ask_for_change(who, change).await?;
        self.here(name)
    }

    /// Creates a topic with default settings at any node of the site, on first use of the name. Names with
    /// two leading underscores are reserved for brokers. A topic that was recently refused to an explicit
    /// request is not created either.
    ///
    /// # Errors
    /// When the change is refused or not committed: see [`AdminError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the topic may or may not be created.
    pub async fn create_topic_unasked(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
    ) -> Result<Arc<Topic>, AdminError> {
        if self.is_serving() {
            return self.create_unasked(who, name, partitions).await;
        }
        if !authorize(who, Operation::Create, Resource::Topic(name)) {
            return Err(AdminError::Denied);
        }
        self.may_be_unasked(name)?;
        if self.level() < LEVEL_OF_AGES {
            let ask = PeerRequest::CreateTopic {
                name: name.to_owned(),
                partitions,
            };
            self.ask(&ask).await?;
            let deadline = Instant::now() + APPLIED_WITHIN;
            while self.topic(name).is_none() && Instant::now() < deadline {
                tokio::time::sleep(APPLIED_POLL).await;
            }
            return self.here(name);
        }
        let change = Change::Create {
            name: name.to_owned(),
            partitions,
            replicas: None,
            settings: Vec::new(),
            is_unasked: true,
        };
        self.ask_for_change(who, change).await?;
        self.here(name)
    }

    pub(super) async fn create_unasked(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
    ) -> Result<Arc<Topic>, AdminError> {
        self.may_be_unasked(name)?;
        self.create_topic_on(who, name, partitions, None, &[]).await
    }

    fn may_be_unasked(&self, name: &str) -> Result<(), AdminError> {
        let is_refused = self.0.refused.has(name, Instant::now());
        if is_refused || name.starts_with(OWN_NAMES) {
            Err(AdminError::NoTopic(name.to_owned()))
        } else {
            Ok(())
        }
    }

    fn note_refused(&self, name: &str) {
        self.0.refused.note(name, Instant::now());
    }

    /// Records that an explicit request for a topic was refused, so that neither this node nor the leader
    /// creates the topic with defaults. If the leader is not reached, only this node remembers.
    ///
    /// # Cancel safety
    /// If the future is dropped, the leader may not remember.
    pub async fn note_refused_anywhere(&self, who: &Principal, name: &str) {
        self.note_refused(name);
        if !self.is_serving() {
            let change = Change::Refuse {
                name: name.to_owned(),
            };
            if let Err(error) = self.ask_for_change(who, change).await {
                tracing::debug!(%error, topic = name, "cannot tell the leader about a refused topic");
            }
        }
    }

    /// Alters a topic at any node of the site, like [`Broker::alter_topic`]. Returns once the change is known
    /// here.
    ///
    /// # Errors
    /// When the change is refused or not committed: see [`AdminError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the change may or may not be committed.
    pub async fn alter_topic_anywhere(
        &self,
        who: &Principal,
        name: &str,
        partitions: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        if self.is_serving() {
            return self.alter_topic(who, name, partitions, settings).await;
        }
        if !authorize(who, Operation::Alter, Resource::Topic(name)) {
            return Err(AdminError::Denied);
        }
        let change = Change::Alter {
            name: name.to_owned(),
            partitions,
            settings: settings.to_vec(),
        };
        self.ask_for_change(who, change).await?;
        self.here(name)
    }

    /// Deletes a topic at any node of the site, like [`Broker::delete_topic`]. Returns once the change is
    /// known here. With `first`, only if the first partition of the topic has that original id.
    ///
    /// # Errors
    /// When the change is refused or not committed: see [`AdminError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the topic may or may not be deleted.
    pub async fn delete_topic_anywhere(
        &self,
        who: &Principal,
        name: &str,
        first: Option<PartitionId>,
    ) -> Result<(), AdminError> {
        if self.is_serving() {
            return self.delete_topic_if(who, name, first).await;
        }
        if !authorize(who, Operation::Delete, Resource::Topic(name)) {
            return Err(AdminError::Denied);
        }
        let change = Change::Delete {
            name: name.to_owned(),
            first,
        };
        self.ask_for_change(who, change).await
    }
}
