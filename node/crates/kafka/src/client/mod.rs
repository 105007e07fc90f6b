//! A small client of Kafka's protocol, for trying out any broker, by the codec of the listener.

mod connection;

use crate::api::create_topics::{self, CreatableTopic, CreateTopicsRequest};
use crate::api::delete_records::{self, DeletePartition, DeleteRecordsRequest};
use crate::api::delete_topics::{self, DeleteTopicsRequest};
use crate::api::fetch::{self, FetchPartition, FetchRequest, FetchTopic};
use crate::api::list_offsets::{self, ListOffsetsRequest, ListPartition, ListTopic};
use crate::api::metadata::{self, MetadataRequest, MetadataRequestTopic, MetadataResponse};
use crate::api::produce::{self, PartitionData, ProduceRequest, ProduceResponse, TopicData};
use crate::error::Code;
use connection::Connection;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_types::{Batch, BatchError};

/// Versions of Produce and Fetch that name topics by their names; later ones need the id of the topic.
const BY_NAME_UP_TO: i16 = 12;
/// DeleteTopics names topics in a field of their own up to this version.
const DELETE_BY_NAME_UP_TO: i16 = 5;
/// Timeout in milliseconds for a broker to carry out a change.
const TIMEOUT_MS: i32 = 10_000;
/// Time for a new topic to get a leader.
const LEADER_WITHIN: Duration = Duration::from_secs(10);
const LEADER_AGAIN: Duration = Duration::from_millis(50);

/// The only partition of a topic that this client makes.
const PARTITION: i32 = 0;

/// A failed call of [`Client`].
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A broker cannot be reached.
    #[error("cannot reach {addr}")]
    Io {
        /// Host and port.
        addr: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The connection ended while a request was under way: its outcome is unknown.
    #[error("no response to {name}")]
    Lost {
        /// Name of the request.
        name: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The response breaks Kafka's protocol.
    #[error("a response cannot be read: {0}")]
    Response(crate::wire::WireError),
    /// A batch of records cannot be read.
    #[error("a batch of records cannot be read: {0}")]
    Batch(#[from] BatchError),
    /// The broker does not serve the request in a version that this client knows.
    #[error("{name} is not served in a version that this client knows")]
    Unserved {
        /// Name of the request.
        name: String,
    },
    /// The broker refused the request.
    #[error("{name} was refused: {code}{message}")]
    Refused {
        /// Name of the request.
        name: &'static str,
        /// Name and number of the error code.
        code: String,
        /// The broker's words, after a colon; may be empty.
        message: String,
        /// Number of the error code.
        number: i16,
    },
    /// The topic has no leader, or the leader is not among the brokers.
    #[error("partition 0 of `{topic}` has no leader")]
    NoLeader {
        /// The topic.
        topic: String,
    },
    /// The response lacks the topic or partition that was asked for.
    #[error("the response to {name} lacks the partition")]
    Missing {
        /// Name of the request.
        name: &'static str,
    },
}

impl ClientError {
    /// Returns the number of Kafka's error code where the broker refused the request.
    pub fn code(&self) -> Option<i16> {
        match self {
            Self::Refused { number, .. } => Some(*number),
            _ => None,
        }
    }
}

/// Kafka's code for an offset outside of a partition.
pub const OFFSET_OUT_OF_RANGE: i16 = Code::OffsetOutOfRange.0;

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Offset of the oldest record.
    Start,
    /// Offset of the next record.
    End,
}

/// A client of a cluster, for a single task: each connection has at most a single request under way.
pub struct Client {
    bootstrap: String,
    /// Connections by host and port.
    connections: BTreeMap<String, Connection>,
}

impl Client {
    /// Connects to `bootstrap` (host and port).
    ///
    /// # Errors
    ///
    /// The broker cannot be reached, or does not speak Kafka's protocol.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn connect(bootstrap: &str) -> Result<Self, ClientError> {
        let mut client = Self {
            bootstrap: bootstrap.to_owned(),
            connections: BTreeMap::new(),
        };
        client.connection(bootstrap).await?;
        Ok(client)
    }

    /// Creates a topic with a single partition and waits until the partition has a leader.
    ///
    /// # Errors
    ///
    /// The controller refuses, or no leader is elected within 10 s.
    ///
    /// # Cancel safety
    ///
    /// The topic may exist after the future is dropped.
    pub async fn create_topic(&mut self, topic: &str) -> Result<(), ClientError> {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.to_owned(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            }],
            timeout_ms: TIMEOUT_MS,
            ..CreateTopicsRequest::default()
        };
        let controller = self.controller().await?;
        let response = controller
            .call::<create_topics::Served>(&request, i16::MAX)
            .await?;
        for created in response.topics {
            check("CreateTopics", created.error, created.error_message)?;
        }
        let begun = Instant::now();
        loop {
            match self.leader(topic).await {
                Err(ClientError::NoLeader { .. }) if begun.elapsed() < LEADER_WITHIN => {
                    tokio::time::sleep(LEADER_AGAIN).await;
                }
                result => return result.map(|_| ()),
            }
        }
    }

    /// Deletes a topic.
    ///
    /// # Errors
    ///
    /// The controller refuses.
    ///
    /// # Cancel safety
    ///
    /// The topic may be gone after the future is dropped.
    pub async fn delete_topic(&mut self, topic: &str) -> Result<(), ClientError> {
        let request = DeleteTopicsRequest {
            topic_names: vec![topic.to_owned()],
            timeout_ms: TIMEOUT_MS,
            ..DeleteTopicsRequest::default()
        };
        let controller = self.controller().await?;
        let response = controller
            .call::<delete_topics::Served>(&request, DELETE_BY_NAME_UP_TO)
            .await?;
        for deleted in response.topics {
            check("DeleteTopics", deleted.error, deleted.error_message)?;
        }
        Ok(())
    }

    /// Returns whether the cluster lists the topic.
    ///
    /// # Errors
    ///
    /// The broker cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed; the client is of no further use.
    pub async fn has_topic(&mut self, topic: &str) -> Result<bool, ClientError> {
        let metadata = self.metadata(None).await?;
        Ok(metadata
            .topics
            .iter()
            .any(|listed| listed.name.as_deref() == Some(topic)))
    }

    /// Stores a batch with the acknowledgement of all replicas, and returns the offset of its first record.
    ///
    /// # Errors
    ///
    /// The leader refuses the batch, or the outcome is unknown ([`ClientError::Lost`]).
    ///
    /// # Cancel safety
    ///
    /// The records may be stored after the future is dropped.
    pub async fn produce(&mut self, topic: &str, batch: &Batch) -> Result<i64, ClientError> {
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: TIMEOUT_MS,
            topics: vec![TopicData {
                name: topic.to_owned(),
                partitions: vec![PartitionData {
                    index: PARTITION,
                    records: Some(batch.bytes().clone()),
                }],
                ..TopicData::default()
            }],
            ..ProduceRequest::default()
        };
        let leader = self.leader(topic).await?;
        let response: ProduceResponse = leader
            .call_as(
                produce::KEY,
                produce::SERVED,
                produce::FLEXIBLE,
                &request,
                BY_NAME_UP_TO,
            )
            .await?;
        let stored = response
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let stored = stored.ok_or(ClientError::Missing { name: "Produce" })?;
        check("Produce", stored.error, stored.error_message)?;
        Ok(stored.base_offset)
    }

    /// Returns the batches from the batch with `offset` on. Waits up to `wait` for the first. The first batch may begin earlier.
    ///
    /// # Errors
    ///
    /// The leader refuses, or a batch cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed; the client is of no further use.
    pub async fn fetch(
        &mut self,
        topic: &str,
        offset: i64,
        most_bytes: i32,
        wait: Duration,
    ) -> Result<Vec<Batch>, ClientError> {
        let request = FetchRequest {
            max_wait_ms: wait.as_millis() as i32,
            min_bytes: 1,
            max_bytes: most_bytes,
            topics: vec![FetchTopic {
                name: topic.to_owned(),
                partitions: vec![FetchPartition {
                    partition: PARTITION,
                    fetch_offset: offset,
                    partition_max_bytes: most_bytes,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let leader = self.leader(topic).await?;
        let response = leader.call::<fetch::Served>(&request, BY_NAME_UP_TO).await?;
        check("Fetch", response.error, None)?;
        let fetched = response
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let fetched = fetched.ok_or(ClientError::Missing { name: "Fetch" })?;
        check("Fetch", fetched.error, None)?;
        let mut batches = Vec::new();
        for mut records in fetched.records.0 {
            while !records.is_empty() {
                match Batch::parse_first(&mut records) {
                    Ok(batch) => batches.push(batch),
                    // Kafka may cut the last batch at the limit of bytes.
                    Err(BatchError::Short { .. }) if !batches.is_empty() => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(batches)
    }

    /// Returns the offset of a place.
    ///
    /// # Errors
    ///
    /// The leader refuses.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed; the client is of no further use.
    pub async fn offset(&mut self, topic: &str, place: Place) -> Result<i64, ClientError> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListTopic {
                name: topic.to_owned(),
                partitions: vec![ListPartition {
                    partition: PARTITION,
                    timestamp: match place {
                        Place::Start => list_offsets::EARLIEST,
                        Place::End => list_offsets::LATEST,
                    },
                    ..ListPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let leader = self.leader(topic).await?;
        let response = leader.call::<list_offsets::Served>(&request, i16::MAX).await?;
        let listed = response
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let listed = listed.ok_or(ClientError::Missing { name: "ListOffsets" })?;
        check("ListOffsets", listed.error, None)?;
        Ok(listed.offset)
    }

    /// Deletes the records before `offset`.
    ///
    /// # Errors
    ///
    /// The leader refuses.
    ///
    /// # Cancel safety
    ///
    /// The records may be deleted after the future is dropped.
    pub async fn delete_records(&mut self, topic: &str, offset: i64) -> Result<(), ClientError> {
        let request = DeleteRecordsRequest {
            topics: vec![delete_records::DeleteTopic {
                name: topic.to_owned(),
                partitions: vec![DeletePartition {
                    partition: PARTITION,
                    offset,
                }],
            }],
            timeout_ms: TIMEOUT_MS,
        };
        let leader = self.leader(topic).await?;
        let response = leader.call::<delete_records::Served>(&request, i16::MAX).await?;
        for deleted in response.topics.into_iter().flat_map(|topic| topic.partitions) {
            check("DeleteRecords", deleted.error, None)?;
        }
        Ok(())
    }

    /// Returns the connection to the broker that leads the partition.
    async fn leader(&mut self, topic: &str) -> Result<&mut Connection, ClientError> {
        let metadata = self.metadata(Some(topic)).await?;
        let no_leader = || ClientError::NoLeader {
            topic: topic.to_owned(),
        };
        let described = metadata
            .topics
            .first()
            .ok_or(ClientError::Missing { name: "Metadata" })?;
        if described.error != Code::LeaderNotAvailable && described.error != Code::UnknownTopicOrPartition {
            check("Metadata", described.error, None)?;
        }
        let partitions = &described.partitions;
        let partition = partitions.iter().find(|p| p.partition == PARTITION);
        let leader = partition.ok_or_else(no_leader)?.leader_id;
        let addr = address_of(&metadata, leader).ok_or_else(no_leader)?;
        self.connection(&addr).await
    }

    /// Returns the connection to the broker that changes topics.
    async fn controller(&mut self) -> Result<&mut Connection, ClientError> {
        let metadata = self.metadata(None).await?;
        let addr = address_of(&metadata, metadata.controller_id);
        // Every broker of Kafka 4 forwards changes.
        let addr = addr.unwrap_or_else(|| self.bootstrap.clone());
        self.connection(&addr).await
    }

    /// Asks the first broker for a topic, or for all topics.
    async fn metadata(&mut self, topic: Option<&str>) -> Result<MetadataResponse, ClientError> {
        let request = MetadataRequest {
            topics: topic.map(|name| {
                vec![MetadataRequestTopic {
                    name: Some(name.to_owned()),
                    ..MetadataRequestTopic::default()
                }]
            }),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let bootstrap = self.bootstrap.clone();
        let connection = self.connection(&bootstrap).await?;
        // Before version 1 an empty list stands for all topics.
        connection.call::<metadata::Served>(&request, i16::MAX).await
    }

    async fn connection(&mut self, addr: &str) -> Result<&mut Connection, ClientError> {
        use std::collections::btree_map::Entry;
        match self.connections.entry(addr.to_owned()) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Connection::open(addr).await?)),
        }
    }
}

fn address_of(metadata: &MetadataResponse, node: i32) -> Option<String> {
    let broker = metadata.brokers.iter().find(|b| b.node_id == node)?;
    match broker.host.contains(':') {
        true => Some(format!("[{}]:{}", broker.host, broker.port)),
        false => Some(format!("{}:{}", broker.host, broker.port)),
    }
}

fn check(name: &'static str, code: Code, message: Option<String>) -> Result<(), ClientError> {
    if code == Code::None {
        return Ok(());
    }
    Err(ClientError::Refused {
        name,
        code: connection::named(code),
        message: message.map(|text| format!(": {text}")).unwrap_or_default(),
        number: code.0,
    })
}
