//! A stream: its requests, and the module that is being uploaded on it.

use crate::answer::Answer;
use crate::api::{cluster, groups, modules, node, pipelines, records, topics};
use crate::error::{Refused, leads, refusal};
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;
use weir_admin::Services;
use weir_broker::Principal;
use weir_peer::protocol::{Reply, Request};
use weir_types::{ErrorKind, GroupId};

/// The requests of a stream.
pub(crate) struct Session {
    node: Arc<Services>,
    who: Principal,
    upload: modules::Upload,
}

impl Session {
    pub(crate) fn new(node: Arc<Services>, who: Principal) -> Self {
        Self {
            node,
            who,
            upload: modules::Upload::default(),
        }
    }

    /// Returns until when the next part of a module is waited for, if an upload has begun.
    pub(crate) fn uploads_until(&self) -> Option<Instant> {
        self.upload.until()
    }

    pub(crate) async fn handle(&mut self, request: Request, payload: Bytes) -> Answer {
        let group = self.group(&request);
        match self.answer(request, group, payload).await {
            Ok(answer) => answer,
            Err(Refused(error)) => refusal(&self.node, group, error).into(),
        }
    }

    /// Returns the group whose leader answers `request`.
    fn group(&self, request: &Request) -> GroupId {
        match request {
            Request::Produce { topic, partition }
            | Request::Fetch { topic, partition, .. }
            | Request::OffsetAt { topic, partition, .. } => {
                let topic = self.node.broker.topic(topic);
                let id = topic.and_then(|t| t.partition(*partition));
                id.map_or(GroupId::SITE, |id| id.group())
            }
            Request::Leader { group } => GroupId(*group),
            _ => GroupId::SITE,
        }
    }

    /// Hands a request to the function of its resource.
    async fn answer(&mut self, request: Request, group: GroupId, payload: Bytes) -> Result<Answer, Refused> {
        let (node, who) = (&self.node, &self.who);
        if !is_local(&request) && !leads(node, group) {
            return Err(Refused::new(ErrorKind::Retry, "this node does not lead"));
        }
        match request {
            Request::Produce { topic, partition } => {
                records::produce(node, who, group, (&topic, partition), payload).await
            }
            Request::Fetch {
                topic,
                partition,
                from,
                max_bytes,
                wait_ms,
            } => Ok(records::fetch(
                node,
                who,
                group,
                (topic, partition),
                from,
                max_bytes,
                wait_ms,
            )),
            Request::OffsetAt { topic, partition, at } => {
                records::offset_at(node, who, group, (&topic, partition), at).await
            }
            Request::InitProducer => records::init_producer(node, who).await,

            Request::Topics => Ok(topics::list(node)),
            Request::CreateTopic {
                name,
                partitions,
                settings,
                replicas,
            } => topics::create(node, who, &name, partitions, replicas, &settings).await,
            Request::AlterTopic {
                name,
                partitions,
                settings,
                replicas,
            } => topics::alter(node, who, &name, partitions, replicas, &settings).await,
            Request::DeleteTopic { name } => topics::delete(node, who, &name).await,

            Request::CommitOffsets { group, offsets } => groups::commit(node, who, &group, offsets).await,
            Request::CommittedOffset {
                group,
                topic,
                partition,
            } => Ok(groups::committed(node, &group, &topic, partition)),
            Request::Groups => Answer::json(&node.groups(who)),
            Request::Group { name } => groups::describe(node, who, &name),
            Request::DeleteGroup { name } => groups::delete(node, who, &name).await,

            Request::PushPart => self.upload.part(node, who, &payload),
            Request::PushModule { name, version } => {
                modules::push(node, &name, &version, std::mem::take(&mut self.upload)).await
            }
            Request::Modules => Answer::json(&node.modules()),
            Request::RemoveModule { module } => Answer::json(&node.remove_module(&module).await?),

            Request::ApplyPipeline { toml } => Answer::json(&node.apply_pipeline(who, &toml).await?),
            Request::PlanPipeline { toml } => Answer::json(&node.plan_pipeline(&toml).await?),
            Request::Pipelines => Answer::json(&node.pipelines()),
            Request::SetPaused { name, paused } => Answer::json(&node.set_paused(&name, paused).await?),
            Request::ResetPipeline { name } => Answer::json(&node.reset_pipeline(&name).await?),
            Request::RewindPipeline { name, to } => {
                Answer::json(&node.rewind_pipeline(&name, to.parse()?).await?)
            }
            Request::RemovePipeline { name } => pipelines::remove(node, &name).await,
            Request::PipelineHistory { name } => Answer::json(&node.pipeline_history(&name).await?),
            Request::RollBackPipeline { name, to } => {
                Answer::json(&node.roll_back_pipeline(who, &name, to).await?)
            }
            Request::TryPipeline { toml, partitions } => {
                Answer::json(&node.start_canary(who, &toml, &partitions).await?)
            }
            Request::PromotePipeline { name } => Answer::json(&node.promote_canary(who, &name).await?),
            Request::ShadowPipeline { toml, from, wait_ms } => {
                Ok(pipelines::shadow(node, toml, from.parse()?, wait_ms))
            }
            Request::PipelineState { name, first } => {
                Answer::json(&node.pipeline_state(&name, first.as_deref()).await?)
            }

            Request::Status => Answer::json(&node.status()),
            Request::Scrub => Ok(node::scrub(node)),

            Request::Leader { .. } => Ok(Reply::Done.into()),
            Request::Cluster => Answer::json(&node.cluster()),
            Request::Invite { token, valid_s } => cluster::invite(node, who, token, valid_s).await,
            Request::Rebalance => cluster::rebalance(node, who).await,
            Request::RemoveNode { node: number } => cluster::remove_node(node, who, number).await,
            Request::Transfer { to } => cluster::transfer(node, who, to).await,
        }
    }
}

/// Tells whether a node answers `request` that does not lead.
fn is_local(request: &Request) -> bool {
    matches!(
        request,
        Request::Topics
            | Request::Modules
            | Request::Pipelines
            | Request::Status
            | Request::Scrub
            | Request::Cluster
            | Request::PushPart
    )
}
