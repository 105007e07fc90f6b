//! Kafka's classic consumer group protocol as a state machine, without a broker, a log or a clock.

pub(crate) mod group;
pub(crate) mod registry;
#[cfg(test)]
mod tests;
pub(crate) mod types;
