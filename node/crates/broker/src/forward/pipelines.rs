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
    /// Asks the other voters to load modules, so that the next leader can continue at once. Waits up to
    /// `wait`; slow and absent voters are logged.
    ///
    /// # Errors
    /// The first node that cannot load the modules, and its reason.
    ///
    /// # Cancel safety
    /// If the future is dropped, some voters may have loaded the modules.
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
                    // An absent node is not waited for.
                    let answer = answer.map_err(|e| e.to_string())?;
                    match postcard::from_bytes(&answer) {
                        Ok(PeerResponse::Done) => return Ok(None),
                        Ok(PeerResponse::Refused(why, false)) => return Ok(Some(why)),
                        _ => tokio::time::sleep(PREPARE_AGAIN).await,
                    }
                }
            };
            let ready = tokio::time::timeout(wait, ready);
            async move { (id, ready.await.unwrap_or(Err("timed out".to_owned()))) }
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

    /// Asks the site's leader to roll back a revision of a pipeline that violated its guards on this node.
    ///
    /// # Errors
    /// The leader's reason when the roll-back is impossible. A retryable error while it is not complete.
    ///
    /// # Cancel safety
    /// If the future is dropped, the roll-back may or may not happen.
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
