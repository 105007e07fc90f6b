//! Errors of the operating system. They are not damage: the file may be whole.

use crate::store::value_log::{Unopened, VALUES};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Returns the operating system's error, if the cause is not damage. A missing file is damage; so is an
/// unexpected or a short file.
pub(crate) fn operating_system(error: &fjall::Error) -> Option<std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let unopened = io.get_ref().and_then(|e| e.downcast_ref::<Unopened>());
            let io = unopened.map_or(io, |unopened| &unopened.source);
            let code = io.raw_os_error().filter(|_| {
                !matches!(
                    io.kind(),
                    ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::InvalidInput
                )
            })?;
            return Some(std::io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    None
}

/// Returns true when a write found no space.
pub(crate) fn is_full(error: &fjall::Error) -> bool {
    operating_system(error).is_some_and(|e| e.kind() == ErrorKind::StorageFull)
}

/// Bytes read at a time.
const LOOKED_AT_BYTES: usize = 1 << 20;

/// Returns the first file of the log that the operating system refuses, with the error. After an I/O error
/// each file is read to its end.
pub(crate) fn unusable(dir: &Path, refused: Option<&std::io::Error>) -> Option<(PathBuf, std::io::Error)> {
    let is_of_the_disk =
        refused.is_some_and(|e| e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()));
    let mut left: Vec<PathBuf> = ["db", VALUES, "watermark.a", "watermark.b", "lock"]
        .map(|name| dir.join(name))
        .to_vec();
    let mut buffer = vec![0; LOOKED_AT_BYTES];
    while let Some(path) = left.pop() {
        let looked = std::fs::metadata(&path).and_then(|found| {
            if found.is_dir() {
                for entry in std::fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
                return Ok(());
            }
            let mut file = File::open(&path)?;
            while is_of_the_disk && std::io::Read::read(&mut file, &mut buffer)? > 0 {}
            Ok(())
        });
        match looked {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Some((path, e)),
            _ => {}
        }
    }
    None
}

/// Returns true for a shortage of the process or the system, or for missing permissions.
pub(crate) fn is_shortage(e: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ACCESS,
        Errno::PERM,
        Errno::NOSPC,
        Errno::DQUOT,
    ];
    let unopened = e.get_ref().and_then(|e| e.downcast_ref::<Unopened>());
    let code = unopened.map_or(e, |unopened| &unopened.source).raw_os_error();
    code.is_some_and(|code| shortages.iter().any(|s| s.raw_os_error() == code))
}
