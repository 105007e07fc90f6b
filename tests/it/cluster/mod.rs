//! Sites of several nodes: membership, failover, replica groups, repair and rolling upgrades.

mod chaos;
mod failover;
mod full_disk;
mod membership;
mod netns;
mod pipelines;
mod power_cuts;
mod releases;
mod repair;
mod replica_groups;
mod witness;
