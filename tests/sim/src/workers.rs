//! The loops of log and broker as tasks: each turn takes as long as the simulated disk, or the simulated
//! core, likes.

use crate::entropy::Dice;
use crate::knobs::Knobs;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use weir_log::{Running, Turn, Worker, Workers};

/// Runs workers on the runtime of the node that starts them.
pub(crate) struct Turns {
    pub(crate) dice: Mutex<Dice>,
    pub(crate) knobs: Arc<Knobs>,
}

impl Turns {
    fn roll(dice: &mut Dice, name: &str, knobs: &Knobs) -> Duration {
        let slow = u64::from(knobs.slow_disk_ms.load(Ordering::Relaxed));
        let ms = match name {
            // Sync times of a good disk, of its bad moment, and of a slow disk.
            "weir-log" if slow > 0 => slow / 2 + dice.roll(slow),
            "weir-log" if dice.once_in(50) => 10 + dice.roll(40),
            "weir-log" => dice.roll(4),
            "weir-read" => dice.roll(3),
            // In place of a proposer's linger.
            _ => dice.roll(2),
        };
        Duration::from_millis(ms)
    }
}

impl Workers for Turns {
    fn start(&self, name: &'static str, mut worker: Box<dyn Worker>) -> io::Result<Running> {
        let woken = Arc::new(Notify::new());
        let mut dice = {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            Dice::new(dice.roll(u64::MAX), 1)
        };
        let (knobs, wait) = (Arc::clone(&self.knobs), Arc::clone(&woken));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Self::roll(&mut dice, name, &knobs)).await;
                match worker.turn() {
                    Turn::Over => break,
                    Turn::Wait(None) => wait.notified().await,
                    Turn::Wait(Some(longest)) => drop(tokio::time::timeout(longest, wait.notified()).await),
                }
            }
        });
        Ok(Running {
            wake: Arc::new(move || woken.notify_one()),
            join: Box::new(|| {}),
        })
    }
}
