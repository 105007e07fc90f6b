//! How long others are waited for.

use std::time::Duration;

/// How long silence lasts before somebody else stands for election, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between two signs of life of a leader.
    pub heartbeat: Duration,
    /// A follower waits between this
    pub election_min: Duration,
    /// and this.
    pub election_max: Duration,
}

impl Timing {
    /// For gateways: slow disks, shared radio.
    pub const EDGE: Self = Self {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(600),
    };
    /// For machines in one room.
    pub const CENTRAL: Self = Self {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(150),
        election_max: Duration::from_millis(300),
    };
}
