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

/// A node that is in step has applied what the leader has a heartbeat ago.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

const APPLIED_POLL: Duration = Duration::from_millis(5);

/// How the names of topics begin that only a broker makes.
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
            } => match is_unasked {
                true => self.create_unasked(who, &name, partitions).await.map(drop),
                false => self
                    .create_topic_on(who, &name, partitions, replicas, &settings)
                    .await
                    .map(drop),
            },
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
                // The entry is not behind this one.
                applied: self.group().status().last,
            },
            Err(e) => PeerResponse::NotDone(Refusal::from(&e), e.to_string()),
        }
    }

    /// Has the leader make a change, and waits until it shows here.
    async fn ask_for_change(&self, who: &Principal, change: Change) -> Result<(), AdminError> {
        // Nodes of the first release do not know what is asked.
        if self.level() < LEVEL_OF_AGES || self.leader().is_none() {
            return Err(self.not_leader().into());
        }
        let ask = PeerRequest::Change {
            client: who.account.clone(),
            change,
        };
        // It may have got there.
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

    /// Waits until this node has applied so many entries of the site.
    async fn until_applied(&self, applied: u64) -> Result<(), AdminError> {
        let deadline = Instant::now() + APPLIED_WITHIN;
        while self.group().status().applied < applied {
            // It is done; this node is behind.
            if Instant::now() >= deadline {
                return Err(ProposeError::Unknown.into());
            }
            tokio::time::sleep(APPLIED_POLL).await;
        }
        Ok(())
    }

    pub(crate) fn here(&self, name: &str) -> Result<Arc<Topic>, AdminError> {
        // Another may have deleted it meanwhile.
        self.topic(name)
            .ok_or_else(|| AdminError::NoTopic(name.to_owned()))
    }

    /// As [`Broker::create_topic_on`] at any node of the site: returns once the topic is known here.
    ///
    /// # Errors
    /// As there.
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

    /// Creates a topic with default settings at any node of the site, since somebody uses its name; but none that was refused lately to
    /// somebody who said how it should be, and none that begins with two underscores, as the names of a broker's own topics do.
    ///
    /// # Errors
    /// As [`Broker::create_topic_on`].
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
        match is_refused || name.starts_with(OWN_NAMES) {
            true => Err(AdminError::NoTopic(name.to_owned())),
            false => Ok(()),
        }
    }

    fn note_refused(&self, name: &str) {
        self.0.refused.note(name, Instant::now());
    }

    /// A topic was refused to somebody who said how it should be: neither this node nor the leader makes it in another way because he
    /// uses its name. If the leader does not hear of it, this node alone knows.
    pub async fn note_refused_anywhere(&self, who: &Principal, name: &str) {
        self.note_refused(name);
        if !self.is_serving() {
            let change = Change::Refuse {
                name: name.to_owned(),
            };
            if let Err(error) = self.ask_for_change(who, change).await {
                tracing::debug!(%error, topic = name, "the leader does not know that a topic was refused");
            }
        }
    }

    /// As [`Broker::alter_topic`] at any node of the site: returns once this node knows it.
    ///
    /// # Errors
    /// As there.
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

    /// As [`Broker::delete_topic`] at any node of the site: returns once this node knows it. With `first`, only if that was the number with
    /// which the topic's first partition was made.
    ///
    /// # Errors
    /// As there.
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
