//! `weir`: a single binary for the node and its command line.

#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod say;

mod ballast;
mod boot;
mod cli;
mod heap;
mod keep;
mod listeners;
mod means;
mod ownership;
mod settings;
mod site;
mod starts;
mod tasks;

use clap::Parser;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    heap::keep_large_apart();
    // clap ends the process with code 2 after wrong usage.
    let args = cli::Args::parse_from(cli::in_order(std::env::args_os()));
    match cli::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.downcast_ref::<cli::Usage>().is_some() => {
            hint!("error: {e:#}");
            ExitCode::from(2)
        }
        Err(e) if cli::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            hint!("error: {e:#}");
            if is_full(&e) {
                hint!("the disk is full: remove other files from the disk and retry");
            }
            ExitCode::FAILURE
        }
    }
}

fn is_full(e: &anyhow::Error) -> bool {
    let mut causes = e.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|e| e.kind() == io::ErrorKind::StorageFull)
}
