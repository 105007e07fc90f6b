//! A file system of its own on a loop mount, whose power can be cut.

use crate::DEADLINE;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small ext4 file system on a loop mount.
pub struct Disk {
    image: PathBuf,
    /// Mount point of the file system.
    pub mount: PathBuf,
}

impl Disk {
    /// Makes and mounts a file system of `mib` MiB in `dir`; `None` where mounting is not permitted.
    pub fn make(dir: &Path, mib: u64) -> Option<Self> {
        let disk = Self {
            image: dir.join("disk.img"),
            mount: dir.join("mnt"),
        };
        std::fs::create_dir_all(&disk.mount).ok()?;
        File::create(&disk.image).ok()?.set_len(mib << 20).ok()?;
        run("mkfs.ext4", &["-q", "-F", disk.image.to_str()?]).then_some(())?;
        disk.attach().then_some(disk)
    }

    /// Mounts the file system.
    pub fn attach(&self) -> bool {
        let (image, mount) = (self.image.to_string_lossy(), self.mount.to_string_lossy());
        run("mount", &["-o", "loop", &image, &mount])
    }

    /// Unmounts the file system.
    pub fn detach(&self) {
        let mount = self.mount.to_string_lossy().into_owned();
        let begun = Instant::now();
        while !run("umount", &[&mount]) && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Cuts the power: discards everything that is not on the disk by now.
    pub fn cut(&self) -> bool {
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
