//! Kafka's classic consumer group protocol as a state machine: no broker, no log and no clock of its own.

pub(crate) mod group;
pub(crate) mod registry;
#[cfg(test)]
mod tests;
pub(crate) mod types;
