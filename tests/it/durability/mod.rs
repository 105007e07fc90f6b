//! Durability on a single node: kills, power cuts and full disks.

mod crash;
mod disk_full;
mod power;
