//! The process that compiles: its limits, and the node's side of it.
//!
//! Compiling is outside wasmtime's promise against denial of service: time and memory can explode, and the
//! compiler can panic or be subverted by its input. So a child process compiles, with limits on memory and
//! time, and reaches nothing but its pipes. Its output is trusted.

use crate::compile::componentize::componentize;
use crate::compile::configuration::engine;
use crate::compile::confine::confine;
use crate::error::LoadError;
use crate::words::tidy;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use wasmtime::Engine;

/// Bytes of address space for the child: far more than the child writes to.
const CHILD_ADDRESSES_BYTES: u64 = 4 << 30;
/// Bytes of memory that the child may write to, with the stacks of its threads. The largest ready-made module
/// takes 60 MiB, and Python, of 18 MiB, takes 310 MiB.
const CHILD_MEMORY_BYTES: u64 = 128 << 20;
/// Additional bytes of memory for each byte of the module: twice Python's need, since SpiderMonkey has more
/// code in fewer bytes.
const CHILD_MEMORY_PER_BYTE: u64 = 32;
/// Nice value of the child: a twentieth of the weight of a thread in the path of records.
const CHILD_NICE: i32 = 15;
/// Seconds of processor time for the child, and for each MiB of the module. The ready-made modules take half
/// a second and Python, of 18 MiB, 14, on a processor perhaps eight times as fast as a gateway's.
const CHILD_CPU_S: u64 = 30;
const CHILD_CPU_S_PER_MIB: u64 = 6;
/// Seconds by the clock, and for each second of processor time: a busy machine gives the child little.
const CHILD_S: u64 = 120;
const CHILD_S_PER_CPU_S: u64 = 3;
/// Time between the signal that time is over, which tells why the child ended, and the kill.
const CHILD_CPU_GRACE_S: u64 = 5;
/// Interval of checks whether somebody still waits for the child.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of the child's error message.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;
/// Largest accepted native code or component: SpiderMonkey's has 34 MB.
const NATIVE_BYTES_MAX: u64 = 256 << 20;
/// Cranelift recurses deeply (ClickHouse overflowed the usual 2 MiB).
const COMPILE_STACK_BYTES: usize = 32 << 20;

/// Argument: make a component.
pub(crate) const MAKE_COMPONENT: &str = "--make";
/// Argument: confine the process, on a machine that can.
pub(crate) const CONFINED: &str = "--confined";

/// Reads an uploaded module from standard input and writes a component to standard output, under limits: the
/// body of the child process for [`componentize`].
///
/// # Errors
/// Fails when no component can be made within the limits.
pub fn componentize_in_child(confined: bool) -> Result<(), LoadError> {
    let bytes = read_limited(confined)?;
    let component = componentize(&bytes)?;
    let mut out = io::stdout().lock();
    out.write_all(&component)?;
    Ok(out.flush()?)
}

/// Reads a component from standard input and writes native code to standard output, under limits: the body of
/// the child process of [`CompileBy::Child`](crate::compile::native::CompileBy::Child).
///
/// # Errors
/// Fails when the component does not compile within the limits.
pub fn compile_in_child(confined: bool) -> Result<(), LoadError> {
    // Before the confinement: the engine inspects the processor.
    let engine = engine().map_err(|e| LoadError::Compile(e.to_string()))?;
    let component = read_limited(confined)?;
    let native = precompile(engine, component)?;
    let mut out = io::stdout().lock();
    out.write_all(&native)?;
    Ok(out.flush()?)
}

/// Reads the child's input and applies its limits, and the filter with `confined`.
fn read_limited(confined: bool) -> Result<Vec<u8>, LoadError> {
    use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
    let limit = |of, soft: u64, hard: u64| {
        // At most as much as the node's own limit.
        let within = |most: u64| Some(getrlimit(of).maximum.map_or(most, |allowed| allowed.min(most)));
        let (current, maximum) = (within(soft), within(hard));
        setrlimit(of, Rlimit { current, maximum }).map_err(io::Error::from)
    };
    limit(Resource::As, CHILD_ADDRESSES_BYTES, CHILD_ADDRESSES_BYTES)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, NATIVE_BYTES_MAX, NATIVE_BYTES_MAX)?;
    // Whoever waits for a module can wait a second or two; records must not be delayed. Best effort.
    let _ = nice(CHILD_NICE);
    let mut input = Vec::new();
    let most = weir_types::limits::MODULE_BYTES_MAX as u64;
    io::stdin().lock().take(most).read_to_end(&mut input)?;
    let limits = Limits::of(input.len());
    limit(Resource::Data, limits.memory_bytes, limits.memory_bytes)?;
    limit(Resource::Cpu, limits.cpu_s, limits.cpu_s + CHILD_CPU_GRACE_S)?;
    if confined {
        confine()?;
    }
    Ok(input)
}

/// Limits of a child, by the size of its input: a small module that takes long was made to.
#[derive(Clone, Copy)]
struct Limits {
    memory_bytes: u64,
    cpu_s: u64,
}

impl Limits {
    fn of(bytes: usize) -> Self {
        let bytes = bytes as u64;
        Self {
            memory_bytes: CHILD_MEMORY_BYTES + CHILD_MEMORY_PER_BYTE * bytes,
            cpu_s: CHILD_CPU_S + CHILD_CPU_S_PER_MIB * bytes.div_ceil(1 << 20),
        }
    }

    /// Returns the limit by the clock: the child may wait for a busy processor.
    fn within(self) -> Duration {
        Duration::from_secs(CHILD_S + CHILD_S_PER_CPU_S * self.cpu_s)
    }
}

/// Tells whether somebody waits for a child's output. Clones share the same flag; the child is killed when
/// nobody waits.
#[derive(Clone, Default)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Notes that nobody waits any more.
    pub fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Destination of a child's output.
pub(crate) enum To<'a> {
    Memory,
    File(&'a File),
}

pub(crate) fn precompile(engine: Engine, component: Vec<u8>) -> Result<Vec<u8>, LoadError> {
    let run = move || {
        engine
            .precompile_component(&component)
            .map_err(|e| LoadError::Compile(format!("{e:#}")))
    };
    let thread = std::thread::Builder::new()
        .name("weir-compile".to_owned())
        .stack_size(COMPILE_STACK_BYTES)
        .spawn(run)?;
    thread
        .join()
        .unwrap_or_else(|_| Err(LoadError::Compile("the compiler panicked".to_owned())))
}

/// Has a child work on `input`. Returns the output, unless it goes to a file.
pub(crate) fn run_child(
    program: &Path,
    args: &[String],
    input: &[u8],
    to: To<'_>,
    wanted: &Wanted,
) -> Result<Vec<u8>, LoadError> {
    run_child_within(program, args, input, to, wanted, Limits::of(input.len()).within())
}

fn run_child_within(
    program: &Path,
    args: &[String],
    input: &[u8],
    to: To<'_>,
    wanted: &Wanted,
    within: Duration,
) -> Result<Vec<u8>, LoadError> {
    let stdout = match to {
        To::Memory => Stdio::piped(),
        To::File(file) => file.try_clone()?.into(),
    };
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (over, is_over) = sync_channel::<()>(1);
    let ends = Ends::of(&child);
    // In parallel: writing a pipe must not wait for reading another. The child's time ends in any case, and
    // its pipes with it.
    let (written, read, message, ended, status) = std::thread::scope(|scope| {
        let written = scope.spawn(|| stdin.map_or(Ok(()), |mut pipe| pipe.write_all(input)));
        let message = scope.spawn(|| stderr.map_or_else(String::new, message_of));
        let ends = &ends;
        let watch = scope.spawn(move || {
            let ended = watch(&is_over, wanted, within);
            if ended.is_some() {
                ends.kill();
            }
            ended
        });
        let mut answer = Vec::new();
        let read = stdout.map_or(Ok(0), |pipe| {
            pipe.take(NATIVE_BYTES_MAX + 1).read_to_end(&mut answer)
        });
        let is_too_much = answer.len() as u64 > NATIVE_BYTES_MAX;
        if is_too_much {
            ends.kill();
        }
        let message = message.join().unwrap_or_default();
        let written = written.join().unwrap_or(Ok(()));
        // The child may close its pipes and continue.
        let status = child.wait();
        drop(over);
        let ended = watch.join().unwrap_or(None);
        let read = read.map(|_| answer).map(|answer| (answer, is_too_much));
        (written, read, message, ended, status)
    });
    let status = status?;
    if let Some(why) = ended {
        return Err(LoadError::Compile(why));
    }
    // Before the child's end: an unread pipe may have ended the child.
    if matches!(read, Ok((_, true))) {
        return Err(LoadError::Costly(too_much()));
    }
    if !status.success() {
        return Err(why_it_ended(status, message.trim(), input.len()));
    }
    written?;
    read.map(|(answer, _)| answer).map_err(LoadError::from)
}

/// Waits for the end of the child. Returns the reason for a kill, if there is a reason.
fn watch(is_over: &Receiver<()>, wanted: &Wanted, within: Duration) -> Option<String> {
    let begun = Instant::now();
    while let Some(left) = within.checked_sub(begun.elapsed()) {
        if !matches!(
            is_over.recv_timeout(left.min(LOOK_EVERY)),
            Err(RecvTimeoutError::Timeout)
        ) {
            return None;
        }
        if wanted.is_over() {
            return Some("nobody waited for it any more".to_owned());
        }
    }
    Some(format!("the compiler took longer than {} s", within.as_secs()))
}

fn too_much() -> String {
    format!("more than {NATIVE_BYTES_MAX} bytes come of it")
}

/// Linux's text for `ENOSPC`.
const NO_SPACE: &str = "No space left on device";

/// Explains the end of a child: its own error, or an exceeded limit.
fn why_it_ended(status: ExitStatus, said: &str, bytes: usize) -> LoadError {
    let Limits { memory_bytes, cpu_s } = Limits::of(bytes);
    let over = |what: String| {
        LoadError::Costly(format!(
            "a module of {bytes} bytes may take {what} to compile, and this one takes more: make its functions smaller"
        ))
    };
    let signal = status.signal();
    if signal == Some(libc::SIGKILL) {
        let why = "the compiler was killed by somebody else: the machine may have no memory left";
        return LoadError::Io(io::Error::new(io::ErrorKind::OutOfMemory, why));
    }
    if signal == Some(libc::SIGXCPU) {
        return over(format!("{cpu_s} s of processor time"));
    }
    if signal == Some(libc::SIGXFSZ) {
        return LoadError::Costly(too_much());
    }
    // The message of Rust's allocator before an abort.
    if signal.is_some() && said.contains("memory allocation of") {
        return over(format!("{} MiB of memory", memory_bytes >> 20));
    }
    if said.contains(NO_SPACE) {
        return LoadError::Io(io::Error::from(io::ErrorKind::StorageFull));
    }
    // The child's own error is complete; otherwise its end explains.
    LoadError::Compile(match said.strip_prefix("error: ") {
        Some(why) if status.code() == Some(1) => {
            let why = why.strip_prefix("component does not compile: ").unwrap_or(why);
            why.to_owned()
        }
        _ => format!("the compiler ended with {status}: {said}"),
    })
}

/// Returns the beginning of the child's messages. The rest is read too, so that a full pipe does not block
/// the child.
fn message_of(mut pipe: impl Read) -> String {
    let mut said = Vec::new();
    let _ = pipe.by_ref().take(MESSAGE_BYTES_MAX).read_to_end(&mut said);
    let _ = io::copy(&mut pipe, &mut io::sink());
    tidy(String::from_utf8_lossy(&said).into_owned())
}

/// Kills a child from any thread, while another waits.
struct Ends {
    pid: Pid,
    /// Refers to this child and to no later process. `None` on kernels before Linux 5.3.
    handle: Option<OwnedFd>,
}

impl Ends {
    fn of(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok();
        Self { pid, handle }
    }

    fn kill(&self) {
        let _ = match &self.handle {
            Some(handle) => pidfd_send_signal(handle, Signal::KILL),
            None => kill_process(self.pid, Signal::KILL),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], within: Duration) -> Result<Vec<u8>, LoadError> {
        let args = ["-c".to_owned(), script.to_owned()];
        let wanted = Wanted::default();
        run_child_within(Path::new("/bin/sh"), &args, input, To::Memory, &wanted, within)
    }

    const PATIENT: Duration = Duration::from_secs(60);

    #[test]
    fn a_child_may_say_as_much_as_it_likes_whenever_it_likes() {
        // Writes more than a pipe holds, both before reading and before answering.
        let chatty = "head -c 300000 /dev/zero | tr '\\0' x >&2; cat; head -c 300000 /dev/zero >&2";
        let input = vec![7; 300_000];
        assert_eq!(shell(chatty, &input, PATIENT).unwrap(), input);
        let failed = shell(&format!("{chatty}; exit 1"), &input, PATIENT)
            .unwrap_err()
            .to_string();
        assert!(failed.len() < 5_000, "{}", failed.len());
        // A child that reads nothing.
        let deaf = shell("exit 3", &input, PATIENT).unwrap_err().to_string();
        assert!(deaf.contains("exit status: 3"), "{deaf}");
    }

    #[test]
    fn a_child_whose_answer_nobody_wants_is_ended() {
        let wanted = Wanted::default();
        let args = ["-c".to_owned(), "exec sleep 1000".to_owned()];
        std::thread::scope(|scope| {
            let run = scope.spawn(|| run_child(Path::new("/bin/sh"), &args, b"x", To::Memory, &wanted));
            wanted.end();
            let ended = run.join().unwrap().unwrap_err().to_string();
            assert!(ended.contains("nobody waited"), "{ended}");
        });
    }

    #[test]
    fn an_answer_may_go_to_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = ["-c".to_owned(), "cat; echo more".to_owned()];
        let wanted = Wanted::default();
        let kept = run_child(
            Path::new("/bin/sh"),
            &args,
            b"x",
            To::File(file.as_file()),
            &wanted,
        );
        assert!(kept.unwrap().is_empty());
        assert_eq!(std::fs::read(file.path()).unwrap(), b"xmore\n");
    }

    #[test]
    fn a_child_that_does_not_end_is_ended() {
        let begun = Instant::now();
        for script in [
            "exec sleep 1000",
            "exec cat /dev/zero",
            "cat >/dev/null; exec sleep 1000",
            "exec sleep 1000 >&- 2>&-",
        ] {
            let stuck = shell(script, b"x", Duration::from_millis(300))
                .unwrap_err()
                .to_string();
            assert!(
                ["longer than", "come of it", "killed"]
                    .iter()
                    .any(|why| stuck.contains(why)),
                "{stuck}"
            );
        }
        assert!(begun.elapsed() < PATIENT);
    }
}
