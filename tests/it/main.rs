//! End-to-end tests in one binary, so that linking happens once: a folder for each feature.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod cli;
mod cluster;
mod durability;
mod kafka;
mod layers;
mod modules;
mod openapi;
mod pages;
mod pipelines;
mod records;
mod tidy;
