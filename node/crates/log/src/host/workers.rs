//! Threads, as a component: a simulation runs the same loops on its own clock.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A loop over a queue that must not run among the tasks: it waits for the disk, or computes for long.
pub trait Worker: Send {
    /// Takes what comes until there is no more. Blocks.
    fn run(self: Box<Self>);

    /// Takes what is there now, and waits for nothing.
    fn turn(&mut self) -> Turn;
}

/// When a worker is given its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// When something has come, or after this time.
    Wait(Option<Duration>),
    /// Never.
    Over,
}

/// Tells a worker that something has come: called behind each message that is put into its queue.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A worker that runs.
pub struct Running {
    /// For those who give it work.
    pub wake: Wake,
    /// Returns when it has ended. Blocks; returns at once when the worker itself calls it.
    pub join: Box<dyn FnOnce() + Send + Sync>,
}

/// Runs workers.
pub trait Workers: Send + Sync + 'static {
    /// Starts `worker` under `name`.
    ///
    /// # Errors
    /// When the system has no thread for it.
    fn start(&self, name: &'static str, worker: Box<dyn Worker>) -> io::Result<Running>;
}

/// A worker with one thing to do.
pub struct Errand(Option<Box<dyn FnOnce() + Send>>);

impl Errand {
    /// Does `it`.
    pub fn new(it: impl FnOnce() + Send + 'static) -> Box<Self> {
        Box::new(Self(Some(Box::new(it))))
    }
}

impl Worker for Errand {
    fn run(mut self: Box<Self>) {
        self.turn();
    }

    fn turn(&mut self) -> Turn {
        if let Some(it) = self.0.take() {
            it();
        }
        Turn::Over
    }
}

/// Each worker on a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Workers for Threads {
    fn start(&self, name: &'static str, worker: Box<dyn Worker>) -> io::Result<Running> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.run())?;
        Ok(Running {
            // It waits on its queue.
            wake: Arc::new(|| {}),
            join: Box::new(move || {
                if thread.thread().id() != std::thread::current().id() {
                    let _ = thread.join();
                }
            }),
        })
    }
}
