//! Ownership of a node's directory: the directory and its content belong to this user only.
//!
//! The directory holds all records, the node's key, and native code that the node runs. So nothing in it may
//! belong to another user, be writable for others, or be a link.

use anyhow::{Context, Result, bail};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
const WRITABLE_FOR_OTHERS: u32 = 0o022;

/// Restricts all files that this process creates to this user.
pub(crate) fn keep_to_ourselves() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(OTHERS));
}

/// Creates the directory if it is missing, and closes it to other users.
///
/// # Errors
/// If the directory or its content belongs to another user, is writable for others, or is a link. The error
/// names the path and the remedy.
pub(crate) fn take(data: &Path) -> Result<()> {
    if !data.exists() && !data.is_symlink() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
        made.with_context(|| format!("cannot create `{}`", data.display()))?;
    }
    if !data.is_symlink() && !data.is_dir() {
        bail!("`{}` is not a directory", data.display());
    }
    let own = rustix::process::geteuid().as_raw();
    let mut left = vec![data.to_owned()];
    while let Some(path) = left.pop() {
        let found =
            fs::symlink_metadata(&path).with_context(|| format!("cannot examine `{}`", path.display()))?;
        check(&path, &found, own)?;
        if found.is_dir() {
            left.extend(entries(&path)?);
        }
    }
    let mode = fs::metadata(data)?.permissions().mode();
    if mode & OTHERS != 0 {
        let closed = fs::set_permissions(data, Permissions::from_mode(0o700));
        closed.with_context(|| format!("cannot restrict access to `{}`", data.display()))?;
        tracing::warn!(data = %data.display(), mode = format!("{:o}", mode & 0o777), "the directory was accessible to others; access is now restricted");
    }
    Ok(())
}

fn check(path: &Path, found: &fs::Metadata, own: u32) -> Result<()> {
    let shown = path.display();
    if found.is_symlink() {
        bail!("`{shown}` is a link and could lead elsewhere: use the directory it points to, or remove it");
    }
    if found.uid() != own {
        bail!(
            "`{shown}` belongs to user {}, but the node runs as {own}: the other user could change it. Give it to the user that \
             the node runs as (`chown -R`), or use another directory",
            found.uid()
        );
    }
    let mode = found.permissions().mode();
    if mode & WRITABLE_FOR_OTHERS != 0 {
        bail!(
            "`{shown}` can be written to by others (mode {:o}). If nobody has changed it, restrict access: `chmod -R go-w`",
            mode & 0o777
        );
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("cannot list `{}`", dir.display());
    let found = fs::read_dir(dir).with_context(what)?;
    found.map(|entry| Ok(entry.with_context(what)?.path())).collect()
}
