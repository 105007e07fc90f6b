//! Power cuts: `EXT4_IOC_SHUTDOWN` on a loop-mounted ext4 discards everything that was not synced, as a cut does. The
//! same cut must cost a lazy topic something, or the test proves nothing. Few in CI, fifty by hand with
//! `WEIR_POWER_CUTS=50`. Skipped, with a line that says so, where mounting is not permitted.

use crate::crash::{Load, litter, stored, value_log};
use crate::{block_on, rounds};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_checkers::Violation;
use weir_tests::{DEADLINE, Node};

/// A small file system of its own.
pub(crate) struct Disk {
    image: PathBuf,
    pub(crate) mount: PathBuf,
}

impl Disk {
    /// `None` where this is not permitted.
    pub(crate) fn make(dir: &Path, mib: u64) -> Option<Self> {
        let disk = Self {
            image: dir.join("disk.img"),
            mount: dir.join("mnt"),
        };
        std::fs::create_dir_all(&disk.mount).ok()?;
        File::create(&disk.image).ok()?.set_len(mib << 20).ok()?;
        run("mkfs.ext4", &["-q", "-F", disk.image.to_str()?]).then_some(())?;
        disk.attach().then_some(disk)
    }

    pub(crate) fn attach(&self) -> bool {
        let (image, mount) = (self.image.to_string_lossy(), self.mount.to_string_lossy());
        run("mount", &["-o", "loop", &image, &mount])
    }

    pub(crate) fn detach(&self) {
        let mount = self.mount.to_string_lossy().into_owned();
        let begun = Instant::now();
        while !run("umount", &[&mount]) && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nothing that is not on the disk by now gets there.
    pub(crate) fn cut(&self) -> bool {
        /// From linux/fs/ext4/ext4.h: `_IOR('X', 125, __u32)`.
        const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        // Without flushing the journal.
        let no_log_flush: u32 = 2;
        let Ok(root) = File::open(&self.mount) else {
            return false;
        };
        #[expect(
            unsafe_code,
            reason = "SAFETY: the call reads a u32 through the pointer and keeps neither"
        )]
        let result = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const no_log_flush) };
        result == 0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).output();
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|o| o.status.success())
}

#[test]
fn power_cuts_lose_nothing_acknowledged_and_cost_a_lazy_topic_something() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path(), 512) else {
        println!("SKIPPED: loop mounts are not permitted here, so no power can be cut");
        return;
    };
    let data = disk.mount.join("data");
    let cuts = rounds("WEIR_POWER_CUTS", 4);
    let (mut sync_total, mut lazy_total, mut lazy_lost) = (0, 0, 0);
    for round in 0..cuts {
        // A topic of its own each round: what a lazy one lost must not confuse the next.
        let (sync_topic, lazy_topic): (&'static str, &'static str) =
            (format!("sync{round}").leak(), format!("lazy{round}").leak());
        let env = [
            &[("WEIR_DISK_RESERVE_BYTES", "1048576")][..],
            &value_log(round / 2),
        ]
        .concat();
        let node = Node::start_at(dir.path(), &data, &env).unwrap();
        let (mut sync, mut lazy) = block_on(async {
            let client = node.client().await.unwrap();
            client
                .create_topic(sync_topic, 1, &weir_tests::for_ever())
                .await
                .unwrap();
            client
                .create_topic(
                    lazy_topic,
                    1,
                    &[
                        ("durability".into(), "lazy".into()),
                        ("retention.ms".into(), "-1".into()),
                    ],
                )
                .await
                .unwrap();
            (
                Load::new(&client, sync_topic).await,
                Load::new(&client, lazy_topic).await,
            )
        });
        // One after the other, so that the syncs of one do not save the other: the lazy one is cut while it runs.
        block_on(async {
            let client = node.client().await.unwrap();
            let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
            let enough = async {
                while count.load(Ordering::Relaxed) < 300 + u64::from(round) * 113 % 1_500 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                stop.store(true, Ordering::Relaxed);
            };
            tokio::join!(sync.run(&client, &stop, &count), enough);
        });
        let both = round % 2 == 1;
        let stop = Arc::new(AtomicBool::new(false));
        let (cutter_stop, count) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        let cutter_count = Arc::clone(&count);
        block_on(async {
            let client = node.client().await.unwrap();
            let disk_ref = &disk;
            let cut_client = client.clone();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let want = 200 + u64::from(round) * 71 % 700;
                    let begun = Instant::now();
                    while cutter_count.load(Ordering::Relaxed) < want && begun.elapsed() < DEADLINE {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    node.freeze().unwrap();
                    assert!(disk_ref.cut(), "the ioctl is refused");
                    node.kill().unwrap();
                    cutter_stop.store(true, Ordering::Relaxed);
                    cut_client.disconnect();
                });
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(async {
                        // In half of the rounds the synced topic is under load too when the power goes.
                        let quiet = AtomicU64::new(0);
                        if both {
                            tokio::join!(
                                lazy.run(&client, &stop, &count),
                                sync.run(&client, &stop, &quiet),
                                litter(&client, round, &stop),
                            );
                        } else {
                            lazy.run(&client, &stop, &count).await;
                        }
                    });
                });
            });
        });
        disk.detach();
        assert!(disk.attach(), "the file system does not mount after the cut");
        let node = Node::start_at(dir.path(), &data, &env).unwrap();
        block_on(async {
            let client = node.client().await.unwrap();
            let wrong = sync.judge(stored(&client, sync_topic).await);
            assert!(wrong.is_empty(), "round {round}: {wrong:?}");
            let wrong = lazy.judge(stored(&client, lazy_topic).await);
            let (lost, wrong): (Vec<_>, Vec<_>) = wrong
                .into_iter()
                .partition(|v| matches!(v, Violation::LostWrite { .. }));
            assert!(wrong.is_empty(), "round {round}: {wrong:?}");
            sync_total += sync.acknowledged;
            lazy_total += lazy.acknowledged;
            lazy_lost += lost.len();
        });
        node.stop().unwrap();
    }
    println!("{cuts} cuts: 0 of {sync_total} synced records lost, {lazy_lost} of {lazy_total} lazy ones");
    assert!(lazy_lost > 0, "a lazy topic lost nothing: the cuts do not cut");
}
