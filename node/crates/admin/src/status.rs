//! Status of the node.

use crate::cluster::{replica_group, site};
use crate::pipelines::pipeline_state;
use crate::services::Services;
use crate::spec::sources;
use crate::topics::named_gaps;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use weir_api as api;
use weir_broker::{Durability, PartitionId, Standing, Topic, Why};
use weir_types::{Gap, TopicName};

impl Services {
    /// Returns the status of the node.
    pub fn status(&self) -> api::Status {
        let broker = &self.broker;
        let usage = broker.log().usage();
        let topics = broker.topics();
        let is_lazy = |topic: &Topic| topic.config.durability == Durability::Lazy;
        let lazy = topics.iter().filter(|topic| is_lazy(topic));
        let pipelines = self
            .pipelines
            .pipelines()
            .into_iter()
            .map(|info| api::PipelineSummary {
                name: info.name,
                source: sources(&info.source),
                state: pipeline_state(info.state),
                records_in: info.records_in,
            });
        let named: BTreeMap<PartitionId, (TopicName, u32)> = topics
            .iter()
            .flat_map(|topic| {
                let named = (0..).map(|index| (topic.name.clone(), index));
                topic.partitions.iter().copied().zip(named)
            })
            .collect();
        let has_room = usage.free_bytes >= usage.reserve_bytes;
        api::Status {
            version: self.start.version.to_owned(),
            identity: self.start.identity.clone(),
            site: broker.site(),
            level: broker.level(),
            group: site(broker.group().status()),
            groups: broker.replica_groups().into_iter().map(replica_group).collect(),
            serving: broker.is_serving(),
            uptime_s: self.start.begun.elapsed().as_secs(),
            epoch: broker.log().epoch(),
            topics: topics.len(),
            partitions: topics.iter().map(|topic| topic.partitions.len()).sum(),
            lazy_topics: lazy.map(|topic| topic.name.to_string()).collect(),
            disk_bytes: usage.disk_bytes,
            disk_free_bytes: usage.free_bytes,
            disk_reserve_bytes: usage.reserve_bytes,
            accepting: has_room && broker.log().poisoned().is_none(),
            removed: api::Removed {
                age: self.removed(Why::Age),
                size: self.removed(Why::Size),
                budget: self.removed(Why::Budget),
            },
            syncs: usage.syncs,
            written_bytes: usage.written_bytes,
            shares: self.pipelines.standings().into_iter().map(share).collect(),
            pipelines: pipelines.collect(),
            damaged: named_gaps(&named, &self.damaged(&named)),
            lost_at_start: named_gaps(&named, &self.start.lost),
            notes_at_start: self.start.notes.clone(),
        }
    }

    fn removed(&self, reason: Why) -> u64 {
        self.broker.metrics().removed(reason).load(Ordering::Relaxed)
    }

    /// Returns the ranges of these partitions that were found damaged since the start.
    fn damaged(&self, partitions: &BTreeMap<PartitionId, (TopicName, u32)>) -> Vec<(PartitionId, Gap)> {
        let mut damaged = Vec::new();
        for partition in partitions.keys() {
            let marks = self.broker.log().marks(*partition);
            let gaps = marks.map(|marks| marks.damaged()).unwrap_or_default();
            damaged.extend(gaps.into_iter().map(|gap| (*partition, gap)));
        }
        damaged
    }
}

fn share(standing: Standing) -> api::Share {
    let Standing {
        share,
        resource,
        used,
        max,
        refused,
    } = standing;
    api::Share {
        share: share.to_owned(),
        of: resource.name().to_owned(),
        used,
        max,
        refused,
    }
}
