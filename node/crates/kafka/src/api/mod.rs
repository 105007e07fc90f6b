//! The requests served here: a file per request, with its fields by version and its translation to the
//! broker.

mod alter_configs;
pub(crate) mod api_versions;
mod consumer_offsets;
mod create_acls;
mod create_partitions;
pub(crate) mod create_topics;
mod deadline;
mod delete_acls;
mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod elect_leaders;
pub(crate) mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leader_hint;
mod leave_group;
mod list_config_resources;
mod list_groups;
pub(crate) mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
pub(crate) mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
pub(crate) mod produce;
mod sasl_handshake;
mod sync_group;

use crate::node::Session;
use crate::wire::{Frame, Reader, Wire, WireError, Writer};
use bytes::Bytes;
use std::ops::RangeInclusive;

/// Key of Fetch.
pub(crate) const FETCH: i16 = <fetch::Served as Api>::KEY;
/// Keys of requests that wait for other members of a group.
pub(crate) const JOIN_GROUP: i16 = 11;
pub(crate) const SYNC_GROUP: i16 = 14;

pub(crate) use api_versions::{KEY as API_VERSIONS, unsupported as unsupported_api_versions};

/// A request type.
pub(crate) trait Api {
    const KEY: i16;
    /// Versions advertised to clients.
    const VERSIONS: RangeInclusive<i16>;
    /// First flexible (compact) version.
    const FLEXIBLE: i16;
    type Request: Wire + Send;
    type Response: Wire + Send;

    /// Executes the request. Never fails as a whole: errors are part of the response.
    fn handle(
        session: &Session,
        version: i16,
        request: Self::Request,
    ) -> impl Future<Output = Self::Response> + Send;
}

/// Decodes, executes and answers a request.
pub(crate) async fn run<A: Api>(session: &Session, head: Head, body: Bytes) -> Result<Frame, WireError> {
    let request = decode::<A::Request>(body, head.version, A::FLEXIBLE)?;
    let response = A::handle(session, head.version, request).await;
    Ok(encode(&response, head, A::FLEXIBLE, A::KEY))
}

/// The fields in front of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
}

pub(crate) fn decode<T: Wire>(body: Bytes, version: i16, flexible: i16) -> Result<T, WireError> {
    let mut reader = Reader::new(body);
    reader.set_flexible(version >= flexible);
    // Trailing bytes are ignored, as in Kafka: librdkafka 2.16 ends a Metadata request for all topics with
    // three stray bytes.
    T::read(&mut reader, version)
}

pub(crate) fn encode<T: Wire>(response: &T, head: Head, flexible: i16, key: i16) -> Frame {
    let mut writer = Writer::default();
    head.correlation.write(&mut writer, 0);
    writer.set_flexible(head.version >= flexible);
    // ApiVersions is answered with the oldest header in every version: the client does not know the versions
    // yet (KIP-511).
    if key != API_VERSIONS {
        writer.end_struct(&[]);
    }
    response.write(&mut writer, head.version);
    writer.finish()
}

/// Turns `create_topics` into `CreateTopics`.
fn camel(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    name.split('_').map(word).collect()
}

macro_rules! served {
    ($($module:ident),* $(,)?) => {
        /// Returns key and versions of every served request, for ApiVersions.
        pub(crate) fn versions() -> Vec<(i16, RangeInclusive<i16>)> {
            let mut all = vec![(produce::KEY, produce::ADVERTISED)];
            $(all.push((<$module::Served as Api>::KEY, <$module::Served as Api>::VERSIONS));)*
            all.sort_by_key(|(key, _)| *key);
            all
        }

        /// Returns Kafka's name of the request with this key, or the number if the request is not served.
        pub(crate) fn name(key: i16) -> String {
            match key {
                produce::KEY => camel("produce"),
                $(<$module::Served as Api>::KEY => camel(stringify!($module)),)*
                key => key.to_string(),
            }
        }

        /// Returns the first flexible version of a request, which decides the form of its header.
        pub(crate) fn flexible_from(key: i16) -> Option<i16> {
            match key {
                produce::KEY => Some(produce::FLEXIBLE),
                $(<$module::Served as Api>::KEY => Some(<$module::Served as Api>::FLEXIBLE),)*
                _ => None,
            }
        }

        /// Answers a request other than Produce. Returns `None` for an unknown request or version.
        pub(crate) async fn answer(session: &Session, head: Head, body: Bytes) -> Option<Result<Frame, WireError>> {
            match head.key {
                $(<$module::Served as Api>::KEY if <$module::Served as Api>::VERSIONS.contains(&head.version) => {
                    Some(Box::pin(run::<$module::Served>(session, head, body)).await)
                })*
                _ => None,
            }
        }

        /// Returns a sample request and response of each version: key, version, and the bytes of both.
        #[cfg(test)]
        pub(crate) fn samples(dice: &mut crate::wire::Dice) -> Vec<(i16, i16, Vec<u8>, Vec<u8>)> {
            fn bytes<T: Wire>(dice: &mut crate::wire::Dice, version: i16, flexible: i16) -> Vec<u8> {
                let mut writer = Writer::default();
                writer.set_flexible(version >= flexible);
                T::sample(dice, version).write(&mut writer, version);
                writer.finish().0.concat().split_off(4)
            }
            let mut all = Vec::new();
            for version in produce::SERVED {
                let request = bytes::<produce::ProduceRequest>(dice, version, produce::FLEXIBLE);
                let response = bytes::<produce::ProduceResponse>(dice, version, produce::FLEXIBLE);
                all.push((produce::KEY, version, request, response));
            }
            $(for version in <$module::Served as Api>::VERSIONS {
                let flexible = <$module::Served as Api>::FLEXIBLE;
                let request = bytes::<<$module::Served as Api>::Request>(dice, version, flexible);
                let response = bytes::<<$module::Served as Api>::Response>(dice, version, flexible);
                all.push((<$module::Served as Api>::KEY, version, request, response));
            })*
            all
        }

        /// Decodes `body` as a request of `key` and `version` and encodes it again. For tests and fuzzing.
        pub(crate) fn round_trip(key: i16, version: i16, body: Bytes) -> Option<Result<Vec<u8>, WireError>> {
            fn again<T: Wire>(body: Bytes, version: i16, flexible: i16) -> Result<Vec<u8>, WireError> {
                let request: T = decode(body, version, flexible)?;
                let mut writer = Writer::default();
                writer.set_flexible(version >= flexible);
                request.write(&mut writer, version);
                Ok(writer.finish().0.concat().split_off(4))
            }
            match key {
                produce::KEY if produce::SERVED.contains(&version) => {
                    Some(again::<produce::ProduceRequest>(body, version, produce::FLEXIBLE))
                }
                $(<$module::Served as Api>::KEY if <$module::Served as Api>::VERSIONS.contains(&version) => {
                    Some(again::<<$module::Served as Api>::Request>(body, version, <$module::Served as Api>::FLEXIBLE))
                })*
                _ => None,
            }
        }
    };
}

served! {
    fetch, list_offsets, metadata, offset_commit, offset_fetch, find_coordinator, join_group, heartbeat, leave_group,
    sync_group, describe_groups, list_groups, api_versions, create_topics, delete_topics, delete_records,
    init_producer_id, offset_for_leader_epoch, describe_configs, alter_configs, describe_log_dirs, create_partitions,
    delete_groups, incremental_alter_configs, offset_delete, describe_cluster, describe_producers, sasl_handshake,
    describe_acls, create_acls, delete_acls, elect_leaders, list_partition_reassignments, describe_client_quotas,
    describe_quorum, list_transactions, list_config_resources,
}

/// Splits the rest of the header off a frame: the client's id and, in flexible versions, tagged fields.
pub(crate) fn client_id(frame: Bytes, flexible: bool) -> Result<(Option<String>, Bytes), WireError> {
    let mut reader = Reader::new(frame);
    // The client id is not compact, even in the flexible header.
    let client = Option::<String>::read(&mut reader, 0)?;
    reader.set_flexible(flexible);
    reader.end_struct(|_, _| Ok(()))?;
    Ok((client, reader.into_rest()))
}

/// Keeps the first item of each key, so that repeating a key a million times does not lengthen the answer.
pub(crate) fn first_of_each<T, K: Ord>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(key(item))).collect()
}
