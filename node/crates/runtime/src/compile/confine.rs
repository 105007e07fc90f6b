//! The system calls of the compiler's process: memory, threads, time, and its three pipes.
//!
//! A compiler that is subverted by its input can open no file, connect nowhere, start no program and signal
//! no other process. It has its input, and can answer. The answer is code that the node runs as a guest: only
//! the compiler's promise keeps the code within the guest's memory. Calls outside of the list fail with
//! `EPERM`, which libraries expect when they look for an optional file.

use std::io;

/// Confines this thread and its children for good.
///
/// # Errors
/// Fails when the kernel cannot confine, or when the calls of this processor are unknown.
pub(crate) fn confine() -> io::Result<()> {
    system::confine()
}

/// Checks that this machine can confine a compiler, on a thread that ends.
///
/// # Errors
/// Returns the reason why the machine cannot.
pub(crate) fn can_confine() -> io::Result<()> {
    let tried = std::thread::Builder::new().spawn(confine)?.join();
    tried.unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod system {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    use std::collections::BTreeMap;
    use std::io;

    /// Calls for memory, threads, pipes, time and the end of a process, as found with glibc 2.36.
    const ALLOWED: &[libc::c_long] = &[
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_futex,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_getrandom,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
        // Refused below, so that the C library falls back to `clone`.
        libc::SYS_clone3,
    ];

    pub(super) fn confine() -> io::Result<()> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
        let rule = |argument, operator, value| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
                .and_then(|condition| SeccompRule::new(vec![condition]))
                .map_err(io::Error::other)
        };
        // Threads, not processes: `clone3` keeps its flags in memory, where no filter can look.
        let threads = libc::CLONE_THREAD as u64;
        let names = libc::PR_SET_NAME as u64;
        // An abort differs from a crash.
        let own = u64::from(std::process::id());
        let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
        allowed.insert(
            libc::SYS_clone,
            vec![rule(0, SeccompCmpOp::MaskedEq(threads), threads)?],
        );
        allowed.insert(libc::SYS_prctl, vec![rule(0, SeccompCmpOp::Eq, names)?]);
        allowed.insert(libc::SYS_tgkill, vec![rule(0, SeccompCmpOp::Eq, own)?]);
        let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let refused = |code: i32| SeccompAction::Errno(code.unsigned_abs());
        // The strictest of several filters wins. The list goes last: no filter can be added after it.
        for (calls, otherwise, then) in [
            (unknown, SeccompAction::Allow, refused(libc::ENOSYS)),
            (allowed, refused(libc::EPERM), SeccompAction::Allow),
        ] {
            let filter = SeccompFilter::new(calls, otherwise, then, arch).map_err(io::Error::other)?;
            let program = BpfProgram::try_from(filter).map_err(io::Error::other)?;
            seccompiler::apply_filter(&program).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod system {
    pub(super) fn confine() -> std::io::Result<()> {
        let why = format!("no list of system calls for {}", std::env::consts::ARCH);
        Err(std::io::Error::other(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::PermissionDenied;

    #[test]
    fn whoever_is_confined_works_and_reaches_nothing() {
        let there = tempfile::NamedTempFile::new().unwrap();
        let path = there.path().to_owned();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let thread = std::thread::Builder::new();
        let confined = thread.spawn(move || {
            confine().unwrap();
            let kinds = [
                std::fs::read(&path).unwrap_err().kind(),
                std::fs::write(&path, "x").unwrap_err().kind(),
                std::fs::remove_file(&path).unwrap_err().kind(),
                std::fs::read_dir("/").unwrap_err().kind(),
                std::net::TcpStream::connect(at).unwrap_err().kind(),
                std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err().kind(),
                std::process::Command::new("/bin/true")
                    .spawn()
                    .unwrap_err()
                    .kind(),
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
                    .map_err(io::Error::from)
                    .unwrap_err()
                    .kind(),
            ];
            assert_eq!(kinds, [PermissionDenied; 8]);
            // Threads inside have their own memory, a name, and an end.
            let thread = std::thread::Builder::new()
                .name("named".to_owned())
                .stack_size(32 << 20);
            let made = thread.spawn(|| vec![7u8; 64 << 20].len()).unwrap().join();
            assert_eq!(made.unwrap(), 64 << 20);
            let thread = std::thread::Builder::new();
            let inner = thread.spawn(move || std::fs::read(path).is_err());
            assert!(inner.unwrap().join().unwrap());
        });
        confined.unwrap().join().unwrap();
        assert_eq!(std::fs::read(there.path()).unwrap(), b"");
    }
}
