//! Consumer groups: commit, describe, delete.

use crate::answer::Answer;
use crate::error::Refused;
use weir_admin::Services;
use weir_broker::{Commit, Principal};
use weir_peer::protocol::Reply;
use weir_types::Offset;

/// Commits offsets of a group.
pub(crate) async fn commit(
    node: &Services,
    who: &Principal,
    group: &str,
    offsets: Vec<(String, u32, Offset)>,
) -> Result<Answer, Refused> {
    let commit = |(topic, partition, offset): (_, _, Offset)| Commit {
        topic,
        partition,
        offset: offset.get() as i64,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let commits: Vec<Commit> = offsets.into_iter().map(commit).collect();
    node.broker.commit_offsets(who, group, &commits).await?;
    Ok(Reply::Done.into())
}

/// Returns the committed offset of a partition.
pub(crate) fn committed(node: &Services, group: &str, topic: &str, partition: u32) -> Answer {
    let committed = node.broker.committed_offset(group, topic, partition);
    Reply::Offset(committed.and_then(|c| c.position())).into()
}

/// Returns a group with its members and committed offsets.
pub(crate) fn describe(node: &Services, who: &Principal, name: &str) -> Result<Answer, Refused> {
    let group = node.group(who, name);
    Answer::json(&group.map_err(|e| Refused::of_group(name, &e))?)
}

/// Deletes a group without members.
pub(crate) async fn delete(node: &Services, who: &Principal, name: &str) -> Result<Answer, Refused> {
    let deleted = node.broker.delete_group(who, name).await;
    deleted.map_err(|e| Refused::of_group(name, &e))?;
    Ok(Reply::Done.into())
}
