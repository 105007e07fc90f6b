//! Topics.

use crate::error::ClientError;
use crate::{Client, unexpected};
use std::collections::{BTreeMap, BTreeSet};
use weir_peer::protocol::{Place, Reply, Request, TopicInfo};
use weir_types::Offset;

impl Client {
    /// Returns all topics. Partitions of other replica groups are told by their leaders, as far as these
    /// answer.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, ClientError> {
        let mut topics = self.routes.site().topics().await?;
        self.routes.note(&topics);
        let partitions = topics.iter().flat_map(|t| &t.partitions);
        let elsewhere: BTreeSet<u16> = partitions.filter(|p| !p.is_here).map(|p| p.group).collect();
        for group in elsewhere {
            let route = self.routes.to(group);
            // Only nodes with a replica know the contents, the leader best. Without a leader the rest is
            // still worth telling.
            if route.ask(Request::Leader { group }).await.is_err() {
                continue;
            }
            let Ok(theirs) = route.topics().await else {
                continue;
            };
            let theirs: BTreeMap<String, TopicInfo> =
                theirs.into_iter().map(|t| (t.name.clone(), t)).collect();
            for topic in &mut topics {
                let there = theirs.get(&topic.name).map_or(&[][..], |t| &t.partitions[..]);
                for (ours, theirs) in topic.partitions.iter_mut().zip(there) {
                    if ours.group == group && theirs.group == group {
                        ours.clone_from(theirs);
                    }
                }
            }
        }
        Ok(topics)
    }

    /// Returns the topic `name`.
    ///
    /// # Errors
    /// When there is no such topic, or the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn topic(&self, name: &str) -> Result<TopicInfo, ClientError> {
        let found = self.topics().await?.into_iter().find(|t| t.name == name);
        found.ok_or_else(|| ClientError::NoTopic(name.to_owned()))
    }

    /// Creates a topic, its partitions on all nodes.
    ///
    /// # Errors
    /// When the topic exists, or its name or settings are invalid.
    ///
    /// # Cancel safety
    /// Not safe: the topic may be created or not.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: &[(String, String)],
    ) -> Result<TopicInfo, ClientError> {
        self.create_topic_on(name, partitions, None, settings).await
    }

    /// Creates a topic, its partitions on groups of `replicas` nodes; on all nodes when not given.
    ///
    /// # Errors
    /// As [`Client::create_topic`]; also when the site has too few nodes.
    ///
    /// # Cancel safety
    /// Not safe: the topic may be created or not.
    pub async fn create_topic_on(
        &self,
        name: &str,
        partitions: u32,
        replicas: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<TopicInfo, ClientError> {
        self.routes.forget(name);
        let (name, settings) = (name.to_owned(), settings.to_vec());
        self.topic_reply(Request::CreateTopic {
            name,
            partitions,
            settings,
            replicas,
        })
        .await
    }

    /// Changes a topic's settings, and adds partitions up to a number.
    ///
    /// # Errors
    /// When there is no such topic, or a setting is invalid.
    ///
    /// # Cancel safety
    /// Not safe: the change may be made or not.
    pub async fn alter_topic(
        &self,
        name: &str,
        partitions: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<TopicInfo, ClientError> {
        self.alter(name, partitions, settings, None).await
    }

    /// Moves a topic's partitions to groups of `replicas` nodes, or to all nodes. Returns once the move is
    /// decided; records come and go while it happens.
    ///
    /// # Errors
    /// When there is no such topic, it moves already, or the site has too few nodes.
    ///
    /// # Cancel safety
    /// Not safe: the move may begin or not.
    pub async fn move_topic(&self, name: &str, replicas: Option<u32>) -> Result<TopicInfo, ClientError> {
        self.alter(name, None, &[], Some(replicas.unwrap_or(0))).await
    }

    async fn alter(
        &self,
        name: &str,
        partitions: Option<u32>,
        settings: &[(String, String)],
        replicas: Option<u32>,
    ) -> Result<TopicInfo, ClientError> {
        self.routes.forget(name);
        let (name, settings) = (name.to_owned(), settings.to_vec());
        self.topic_reply(Request::AlterTopic {
            name,
            partitions,
            settings,
            replicas,
        })
        .await
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// When there is no such topic, or a pipeline uses it.
    ///
    /// # Cancel safety
    /// Not safe: the topic may be deleted or not.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        self.routes.forget(name);
        self.done(Request::DeleteTopic {
            name: name.to_owned(),
        })
        .await
    }

    /// Returns the offset of a place in a partition.
    ///
    /// # Errors
    /// When there is no such partition, or it cannot be read.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn offset_at(&self, topic: &str, partition: u32, at: Place) -> Result<Offset, ClientError> {
        let request = Request::OffsetAt {
            topic: topic.to_owned(),
            partition,
            at,
        };
        let group = self.routes.group_of(topic, partition).await?;
        match self.routes.to(group).ask(request).await?.head {
            Reply::Offset(Some(offset)) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    async fn topic_reply(&self, request: Request) -> Result<TopicInfo, ClientError> {
        match self.ask(request).await?.head {
            Reply::Topic(topic) => Ok(topic),
            other => Err(unexpected(&other)),
        }
    }
}
