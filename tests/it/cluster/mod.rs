//! Sites of several nodes: membership, failover, replica groups, repair and rolling upgrades.

mod chaos;
mod failover;
mod netns;
mod releases;
mod repair;
mod replica_groups;
