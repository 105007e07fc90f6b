//! The sending side of requests between nodes.

use crate::core::Broker;
use crate::error::{AdminError, FetchError};
use crate::rpc::message::{PeerRequest, PeerResponse};
use crate::state::rows::leader::LeaderReport;
use std::ops::Range;
use weir_log::{decode, encode};
use weir_replica::{Member, NodeId};
use weir_types::{GroupId, PartitionId};

impl Broker {
    /// Sends a request to the leader of `group`, which may be this node.
    pub(crate) async fn ask_group(
        &self,
        group: GroupId,
        ask: PeerRequest,
    ) -> Result<PeerResponse, AdminError> {
        let is_here = self.group_of(group).is_some_and(|group| group.is_serving());
        let answer = match self.0.peer_requests.get().filter(|_| is_here) {
            Some(handler) => handler.answer(encode(&ask).into()).await,
            None => {
                let leader = self
                    .leader_of(group)
                    .filter(|(id, ..)| *id != self.group().node());
                let (id, _, member) = leader.ok_or_else(|| self.not_leader())?;
                let answer = self.group().forward_to(id, member, encode(&ask).into()).await;
                answer.map_err(|_| self.not_leader())?
            }
        };
        let answer = postcard::from_bytes(&answer).map_err(|_| self.not_leader())?;
        match answer {
            PeerResponse::Refused(why, false) => Err(AdminError::Refused(why)),
            PeerResponse::Refused(_, true) => Err(self.not_leader().into()),
            answer => Ok(answer),
        }
    }

    /// Sends a request to `node` at `member`. `None` without an answer.
    pub(crate) async fn ask_node(
        &self,
        node: NodeId,
        member: Member,
        ask: &PeerRequest,
    ) -> Option<PeerResponse> {
        let ask = encode(ask).into();
        let answer = self.group().forward_to(node, member, ask).await.ok()?;
        decode("an answer", &answer).ok()
    }

    pub(crate) async fn ask(&self, ask: &PeerRequest) -> Result<PeerResponse, AdminError> {
        let ask = encode(ask).into();
        let answer = self.group().forward(ask).await;
        let answer = answer.map_err(|_| self.not_leader())?;
        match postcard::from_bytes(&answer) {
            Ok(PeerResponse::Refused(why, false)) => Err(AdminError::Refused(why)),
            Ok(PeerResponse::Refused(_, true)) | Err(_) => Err(self.not_leader().into()),
            Ok(answer) => Ok(answer),
        }
    }

    pub(crate) async fn ask_to_read(
        &self,
        id: PartitionId,
        ask: PeerRequest,
    ) -> Result<PeerResponse, FetchError> {
        match self.ask_group(id.group(), ask).await {
            Ok(answer) => Ok(answer),
            Err(AdminError::Refused(why)) => Err(FetchError::There(why)),
            Err(_) => Err(FetchError::NotLeader(None)),
        }
    }

    /// Reports the leader of `group` to the site's leader.
    pub(crate) async fn tell_leader(&self, group: GroupId, led: LeaderReport) -> Result<(), AdminError> {
        self.ask(&PeerRequest::Leads { group: group.0, led })
            .await
            .map(drop)
    }

    /// Numbers for producers, from the leader.
    pub(crate) async fn ask_for_producer_ids(&self) -> Result<Range<u64>, AdminError> {
        match self.ask(&PeerRequest::ProducerIds).await? {
            PeerResponse::ProducerIds(ids) => Ok(ids),
            _ => Err(self.not_leader().into()),
        }
    }
}
