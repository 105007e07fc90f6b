//! End-to-end tests in one binary, so that linking happens once. Each file says what it is about.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod batches;
mod chaos;
mod cluster;
mod crash;
mod decoders;
mod disk;
mod groups;
mod hostile;
mod kafka;
mod layers;
mod modules;
mod netns;
mod new;
mod openapi;
mod power;
mod readers;
mod releases;
mod repair;
mod rewriting;
mod state;
mod tools;
mod tour;
mod wire;
