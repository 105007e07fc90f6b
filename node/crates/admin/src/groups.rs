//! Consumer groups.

use crate::services::Services;
use weir_api as api;
use weir_broker::{GroupError, GroupInfo, MemberInfo, Principal};

impl Services {
    /// Returns the consumer groups that `who` may know of.
    pub fn groups(&self, who: &Principal) -> Vec<api::GroupSummary> {
        let groups = self.broker.list_groups(who).into_iter();
        let summary = |group: GroupInfo| api::GroupSummary {
            offsets: self.broker.committed_offsets(&group.name).len(),
            name: group.name,
            state: group.state.to_owned(),
            protocol: group.protocol_type,
        };
        groups.map(summary).collect()
    }

    /// Returns a consumer group with its members and committed offsets.
    ///
    /// # Errors
    /// When the group does not exist, or is hidden from `who`.
    pub fn group(&self, who: &Principal, name: &str) -> Result<api::Group, GroupError> {
        let group = self.broker.describe_group(who, name)?;
        if group.state == "Dead" {
            return Err(GroupError::NotFound);
        }
        let offsets = self.broker.committed_offsets(name).into_iter();
        let offset = |(topic, partition, at): (_, _, weir_broker::CommittedOffset)| api::GroupOffset {
            topic,
            partition,
            offset: at.number(),
            committed_ms: at.committed_ms,
        };
        Ok(api::Group {
            name: group.name,
            state: group.state.to_owned(),
            protocol: group.protocol,
            members: group.members.into_iter().map(member).collect(),
            offsets: offsets.map(offset).collect(),
        })
    }
}

fn member(member: MemberInfo) -> api::GroupMember {
    // Metadata and assignment are bytes between the clients.
    let MemberInfo {
        id,
        instance,
        client,
        host,
        metadata: _,
        assignment: _,
    } = member;
    api::GroupMember {
        id,
        instance,
        client,
        host,
    }
}
