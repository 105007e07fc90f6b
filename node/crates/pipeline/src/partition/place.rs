//! Stored positions: the offset up to which a pipeline has processed each partition of its sources.

use crate::spec::Spec;
use crate::spec::source::{Origin, Sources};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_broker::{
    At, Broker, FetchError, FormatError, PartitionId, Principal, ReadError, StateKey, StateKind, decode,
    encode,
};
use weir_types::{Offset, TopicName};

/// Stored position on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Original id of the partition. A topic that was removed and created again has new ids.
    pub(crate) partition: PartitionId,
    pub(crate) next: Offset,
}

/// Returns the key prefix of the positions of `pipeline`, without the kind.
fn of_pipeline(pipeline: &str) -> Vec<u8> {
    [pipeline.as_bytes(), &[0]].concat()
}

fn key(pipeline: &str, partition: u32, topic: &str) -> Vec<u8> {
    let partition = partition.to_be_bytes();
    [pipeline.as_bytes(), &[0], &partition[..], topic.as_bytes()].concat()
}

pub(crate) fn row(
    broker: &Broker,
    pipeline: &str,
    partition: u32,
    topic: &str,
) -> Result<Option<Row>, ReadError> {
    let key = key(pipeline, partition, topic);
    let rows = broker.rows_under(StateKind::Input, &key);
    let found = rows.into_iter().find(|(k, _)| *k == key);
    let found = found.map(|(_, value)| decode("a position of a pipeline", &value));
    found.transpose().map_err(|why| ReadError::Format {
        row: format!("pipeline `{pipeline}`, topic `{topic}`, partition {partition}"),
        why,
    })
}

pub(crate) fn written(pipeline: &str, partition: u32, topic: &str, row: Row) -> (StateKey, Option<Bytes>) {
    let key = StateKey::new(StateKind::Input, &key(pipeline, partition, topic));
    (key, Some(encode(&row)))
}

/// Returns the principal under which a pipeline reads.
pub(crate) fn reader(pipeline: &str) -> Principal {
    Principal::anonymous(format!("pipeline {pipeline}"))
}

/// Position of a pipeline on a partition of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Source topic.
    pub topic: String,
    /// Partition of the source.
    pub partition: u32,
    /// Offset of the first unprocessed record.
    pub next: Offset,
    /// End offset of committed records, exclusive.
    pub end: Offset,
}

/// End offsets of partitions that other nodes lead, as last reported.
pub(crate) type Ends = BTreeMap<(TopicName, u32), Offset>;

/// Returns the stored positions of a pipeline, by topic and partition. Ends of partitions led by other nodes
/// are the latest known here.
pub(crate) fn places(broker: &Broker, spec: &Spec, heard: &Ends) -> Vec<Place> {
    let prefix = of_pipeline(spec.name.as_str());
    let place = |(key, value): (Vec<u8>, Vec<u8>)| {
        let (partition, topic) = key.get(prefix.len()..)?.split_first_chunk::<4>()?;
        let topic = std::str::from_utf8(topic).ok()?;
        let row: Result<Row, FormatError> = decode("a position of a pipeline", &value);
        let row = row
            .inspect_err(
                |error| tracing::error!(pipeline = %spec.name, topic, %error, "a place is not shown"),
            )
            .ok()?;
        let partition = u32::from_be_bytes(*partition);
        let end = broker.marks(topic, partition).map(|marks| marks.committed_end());
        let heard = heard
            .iter()
            .find(|((t, p), _)| t.as_str() == topic && *p == partition);
        let end = end.max(heard.map(|(_, end)| *end));
        spec.source.contains(topic).then(|| Place {
            topic: topic.to_owned(),
            partition,
            next: row.next,
            end: end.unwrap_or(row.next).max(row.next),
        })
    };
    let rows = broker.rows_under(StateKind::Input, &prefix);
    let mut places: Vec<_> = rows.into_iter().filter_map(place).collect();
    places.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    places
}

/// Returns rows that place a pipeline at `origin`: on all partitions of `sources`, or on those without a
/// stored position.
///
/// # Errors
/// When `origin` does not exist on a partition.
pub(crate) async fn begin(
    broker: &Broker,
    pipeline: &str,
    sources: &Sources,
    origin: Origin,
    all: bool,
) -> Result<Vec<(StateKey, Option<Bytes>)>, FetchError> {
    let who = reader(pipeline);
    let mut rows = Vec::new();
    for topic in sources.iter().filter_map(|name| broker.topic(name.as_str())) {
        let name = topic.name.as_str();
        for (partition, id) in (0..).zip(&topic.partitions) {
            if !all && row(broker, pipeline, partition, name)?.is_some() {
                continue;
            }
            let next = place_of(broker, &who, (name, partition), origin).await?;
            let partition_id = broker.identity(*id);
            let row = Row {
                partition: partition_id,
                next,
            };
            rows.push(written(pipeline, partition, name, row));
        }
    }
    Ok(rows)
}

/// Returns the offset of `origin` on a partition.
pub(crate) async fn place_of(
    broker: &Broker,
    who: &Principal,
    (topic, partition): (&str, u32),
    origin: Origin,
) -> Result<Offset, FetchError> {
    let at = |at| broker.offset_anywhere(who, topic, partition, at);
    match origin {
        Origin::Start => at(At::Start).await,
        Origin::End => at(At::End).await,
        Origin::Time(ms) => at(At::Time(ms)).await,
        Origin::Offset(offset) => {
            let (offset, end) = (Offset::new(offset), at(At::End).await?);
            if offset <= end {
                Ok(offset)
            } else {
                Err(FetchError::OutOfRange { offset, end })
            }
        }
    }
}
