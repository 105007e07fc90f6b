//! What any node of a site is asked and only the one that leads can do: it is asked in turn, as a Kafka broker asks its
//! controller.

use crate::auth::{Operation, Principal, Resource, authorize};
use crate::broker::{Broker, Inner};
use crate::error::AdminError;
use crate::topic::Topic;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use weir_replica::Forwarded;

/// A node that is in step has applied what the leader has a heartbeat ago.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);
const APPLIED_POLL: Duration = Duration::from_millis(5);

/// What is asked. Known by position: add at the end.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Numbers for producers.
    ProducerIds,
    /// A topic that somebody asked for, who need not say how it should be.
    CreateTopic { name: String, partitions: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    ProducerIds(Range<u64>),
    Created,
    /// In words; and whether it is worth another try.
    Refused(String, bool),
}

pub(crate) struct ByBroker(pub(crate) Weak<Inner>);

impl Forwarded for ByBroker {
    fn answer(&self, ask: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let answer = match (inner, postcard::from_bytes::<Ask>(&ask)) {
                (Some(inner), Ok(ask)) => Broker(inner).answer(ask).await,
                _ => Answer::Refused("not understood, or the node stops".to_owned(), false),
            };
            postcard::to_allocvec(&answer).unwrap_or_default()
        })
    }
}

impl Broker {
    async fn answer(&self, ask: Ask) -> Answer {
        let who = Principal::anonymous("site");
        let done = match ask {
            Ask::ProducerIds => self.reserve_producer_ids().await.map(Answer::ProducerIds),
            Ask::CreateTopic { name, partitions } => {
                match self.create_topic(&who, &name, partitions, &[]).await {
                    Ok(_) | Err(AdminError::Exists(_)) => Ok(Answer::Created),
                    Err(e) => Err(e),
                }
            }
        };
        done.unwrap_or_else(|e| Answer::Refused(e.to_string(), e.kind() == weir_types::ErrorKind::Retry))
    }

    async fn ask(&self, ask: &Ask) -> Result<Answer, AdminError> {
        let ask = postcard::to_allocvec(ask).unwrap_or_default();
        let answer = self.group().forward(ask).await;
        let answer = answer.map_err(|_| self.not_leader())?;
        match postcard::from_bytes(&answer) {
            Ok(Answer::Refused(why, false)) => Err(AdminError::Refused(why)),
            Ok(Answer::Refused(_, true)) | Err(_) => Err(self.not_leader().into()),
            Ok(answer) => Ok(answer),
        }
    }

    /// Numbers for producers, from the leader.
    pub(crate) async fn ask_for_producer_ids(&self) -> Result<Range<u64>, AdminError> {
        match self.ask(&Ask::ProducerIds).await? {
            Answer::ProducerIds(ids) => Ok(ids),
            _ => Err(self.not_leader().into()),
        }
    }

    /// As [`Broker::create_topic`] with default settings, at any node of the site: returns once the topic is known here.
    ///
    /// # Errors
    /// As there.
    pub async fn create_topic_anywhere(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
    ) -> Result<Arc<Topic>, AdminError> {
        if self.is_serving() {
            return self.create_topic(who, name, partitions, &[]).await;
        }
        if !authorize(who, Operation::Create, Resource::Topic(name)) {
            return Err(AdminError::Denied);
        }
        self.ask(&Ask::CreateTopic {
            name: name.to_owned(),
            partitions,
        })
        .await?;
        let deadline = Instant::now() + APPLIED_WITHIN;
        loop {
            match self.topic(name) {
                Some(topic) => return Ok(topic),
                None if Instant::now() >= deadline => return Err(self.not_leader().into()),
                None => tokio::time::sleep(APPLIED_POLL).await,
            }
        }
    }
}
