//! Preparing pipelines on other nodes, and reporting guard violations to the leader.

use crate::core::Broker;
use crate::error::AdminError;
use crate::rpc::message::{PeerRequest, PeerResponse};
use std::time::Duration;
use weir_replica::NodeId;
use weir_types::GroupId;

/// A voter that is not ready says so within a moment, and is asked again.
const PREPARE_AGAIN: Duration = Duration::from_millis(50);

impl Broker {
    /// Has the other voters make modules ready, so that whoever leads next can go on with them at once. Those that do not answer
    /// are not waited for longer than `wait`.
    ///
    /// # Errors
    /// A node that cannot, and why.
    pub async fn prepare_elsewhere(
        &self,
        modules: &[[u8; 32]],
        wait: Duration,
    ) -> Result<(), (NodeId, String)> {
        let (me, members) = (self.group().node(), self.group().members());
        let voters = self.group().voters().into_iter().filter(|id| *id != me);
        let full = voters.filter_map(|id| members.get(&id).filter(|m| !m.witness).map(|m| (id, m.clone())));
        let ask = postcard::to_allocvec(&PeerRequest::Prepare {
            modules: modules.to_vec(),
        });
        let ask = ask.unwrap_or_default();
        let asked = full.map(|(id, member)| {
            let ask = ask.clone();
            let ready = async move {
                loop {
                    let answer = self.group().forward_to(id, member.clone(), ask.clone()).await;
                    // One that is away is not waited for.
                    let answer = answer.map_err(|e| e.to_string())?;
                    match postcard::from_bytes(&answer) {
                        Ok(PeerResponse::Done) => return Ok(None),
                        Ok(PeerResponse::Refused(why, false)) => return Ok(Some(why)),
                        _ => tokio::time::sleep(PREPARE_AGAIN).await,
                    }
                }
            };
            let ready = tokio::time::timeout(wait, ready);
            async move { (id, ready.await.unwrap_or(Err("it takes too long".to_owned()))) }
        });
        let asked: Vec<_> = asked.collect();
        for (id, answer) in futures_util::future::join_all(asked).await {
            match answer {
                Ok(None) => {}
                Ok(Some(why)) => return Err((id, why)),
                Err(why) => {
                    tracing::warn!(node = id, %why, "a voter does not say that it is ready for a revision");
                }
            }
        }
        Ok(())
    }

    /// Has the site's leader take back a revision of a pipeline that has left its bounds on this node.
    ///
    /// # Errors
    /// In the leader's words when it cannot be; to be tried again when it is not done yet.
    pub async fn report_out_of_bounds(
        &self,
        pipeline: String,
        revision: u64,
        why: String,
    ) -> Result<(), AdminError> {
        let ask = PeerRequest::TakeBack {
            pipeline,
            revision,
            why,
        };
        self.ask_group(GroupId::SITE, ask).await.map(drop)
    }
}
