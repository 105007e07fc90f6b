//! Threads, as a component: a simulation runs the same loops on its own clock.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A loop over a queue that blocks, on the disk or by computing, and so must not run among async tasks.
pub trait Worker: Send {
    /// Serves the queue until all senders are gone. Blocks.
    fn run(self: Box<Self>);

    /// Serves the messages that have arrived, without waiting.
    fn turn(&mut self) -> Turn;
}

/// Time of a worker's next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// After the next message, or after this time.
    Wait(Option<Duration>),
    /// Never.
    Over,
}

/// Wakes a worker: called after each message that is put into the worker's queue.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A running worker.
pub struct Running {
    /// Wakes the worker after a message.
    pub wake: Wake,
    /// Waits for the end of the worker. Blocks; returns at once when called by the worker itself.
    pub join: Box<dyn FnOnce() + Send + Sync>,
}

/// Runs workers.
pub trait Workers: Send + Sync + 'static {
    /// Starts `worker` under `name`.
    ///
    /// # Errors
    /// Fails when the system has no thread left.
    fn start(&self, name: &'static str, worker: Box<dyn Worker>) -> io::Result<Running>;
}

/// A worker with a single job.
pub struct Errand(Option<Box<dyn FnOnce() + Send>>);

impl Errand {
    /// Makes a worker that runs `it` once.
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

/// Runs each worker on a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Workers for Threads {
    fn start(&self, name: &'static str, worker: Box<dyn Worker>) -> io::Result<Running> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.run())?;
        Ok(Running {
            // The worker blocks on its queue.
            wake: Arc::new(|| {}),
            join: Box::new(move || {
                if thread.thread().id() != std::thread::current().id() {
                    let _ = thread.join();
                }
            }),
        })
    }
}
