//! What a log has that no broker serves.

use crate::moves::Located;
use crate::topic::Topic;
use std::collections::BTreeMap;
use weir_log::{Log, ReadError, StateKind, decode};
use weir_types::{PartitionId, TopicName};

/// Which partition of which topic each partition is, by what `log` has. For a log that no broker serves. Blocks.
///
/// # Errors
/// When a row cannot be read.
pub fn topics_in(log: &Log) -> Result<BTreeMap<PartitionId, (TopicName, u32)>, ReadError> {
    let unreadable = |row: &str, why| ReadError::Format {
        row: row.to_owned(),
        why,
    };
    let mut located = BTreeMap::new();
    for (key, value) in log.state_rows(StateKind::Located)? {
        let place: Located = decode("the place of a partition", &value)
            .map_err(|why| unreadable("the place of a partition", why))?;
        let identity = key
            .rest()
            .first_chunk()
            .map(|id| PartitionId(u32::from_be_bytes(*id)));
        located.extend(identity.map(|identity| (identity, place.at)));
    }
    let mut partitions = BTreeMap::new();
    for (key, value) in log.state_rows(StateKind::Topic)? {
        let name = String::from_utf8_lossy(key.rest());
        let topic = Topic::decode(&value).map_err(|why| unreadable(&format!("topic `{name}`"), why))?;
        for (index, identity) in (0..).zip(&topic.partitions) {
            let at = located.get(identity).unwrap_or(identity);
            partitions.insert(*at, (topic.name.clone(), index));
        }
    }
    Ok(partitions)
}
