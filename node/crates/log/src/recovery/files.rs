//! Opening the database: the checks before, and the errors when the database does not open.

use crate::error::{Damage, OpenError};
use crate::options::Options;
use crate::recovery::journal::Findings;
use crate::recovery::markers::{DAMAGED, JOURNALS_GONE, MADE, put_in_place};
use crate::recovery::shelter::Shelter;
use crate::store::keyspaces::Keyspaces;
use crate::store::kv::{Database, Keyspace};
use crate::store::os_error::{operating_system, unusable};
use crate::store::value_log::{VALUES, ValueLog};
use crate::store::watermark::WatermarkFile;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, KeyspaceCreateOptions, KvSeparationOptions};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_types::{Gap, GapReason};

/// A database before recovery has read any row.
pub(crate) struct Opened {
    pub(crate) keyspaces: Keyspaces,
    /// The database existed before.
    pub(crate) existed: bool,
    pub(crate) findings: Findings,
    /// Files that the database removed while opening, kept until their loss is known to be harmless.
    pub(crate) shelter: Option<Shelter>,
    /// There were payloads without a database.
    pub(crate) has_values_aside: bool,
    /// The watermark promises entries or records.
    pub(crate) was_there: bool,
    pub(crate) lock: Option<File>,
}

/// Explains a database that does not open. An error of the operating system is not damage: the file may be
/// whole.
pub(crate) fn unopened(dir: &Path, error: &fjall::Error, stake: Damage) -> OpenError {
    let refused = operating_system(error);
    match unusable(dir, refused.as_ref()) {
        Some((path, source)) => OpenError::Io { path, source },
        None => match refused {
            Some(source) => OpenError::Io {
                path: dir.to_owned(),
                source,
            },
            None => OpenError::Damaged {
                path: dir.to_owned(),
                why: error.to_string(),
                damage: stake,
            },
        },
    }
}

pub(crate) fn open_files(
    dir: &Path,
    options: &Options,
    watermark: &mut WatermarkFile,
    marked: bool,
) -> Result<Opened, OpenError> {
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let db_dir = dir.join("db");
    let lock = lock(dir)?;
    if !db_dir.exists() && dir.join(MADE).exists() {
        put_in_place(dir).map_err(io)?;
    }
    let existed = db_dir.exists();
    match std::fs::read_to_string(dir.join(DAMAGED)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        why => {
            return Err(OpenError::Damaged {
                path: dir.to_owned(),
                why: why.map_err(io)?,
                damage: all_at_stake(watermark),
            });
        }
    }
    let promised = &watermark.value;
    let was_there = !promised.groups.is_empty() || !promised.partitions.is_empty();
    if !existed && was_there {
        // The database was removed, or its file system is not mounted. Keep the files beside the database.
        return Err(OpenError::Damaged {
            path: dir.to_owned(),
            why: "`db` is not there".to_owned(),
            damage: all_at_stake(watermark),
        });
    }
    if let Some(lost) = lost_list(&db_dir).map_err(io)? {
        // The database would treat the keyspace as empty and abandon its files.
        return Err(OpenError::Damaged {
            path: dir.to_owned(),
            why: format!("`{}` is not there", lost.display()),
            damage: all_at_stake(watermark),
        });
    }
    let quarantine = dir.join("quarantine");
    let findings =
        crate::recovery::journal::check(&db_dir, &quarantine, watermark.value.clean).map_err(io)?;
    let has_values_aside = !existed && set_values_aside(dir, &quarantine).map_err(io)?;
    let values = Arc::new(ValueLog::new(dir.join(VALUES)));
    values.make_dir().map_err(io)?;
    if !existed && !marked {
        // Save the watermark before a database exists: a node killed before its first write must not seem to
        // have lost its watermarks.
        watermark.save().map_err(io)?;
    }
    let shelter = Shelter::of(dir);
    let keyspaces = open_keyspaces(&db_dir, values, options).map_err(|e| match e {
        OpenFailure::Locked => OpenError::Locked(dir.to_owned()),
        OpenFailure::Store(e) => unopened(dir, &e, all_at_stake(watermark)),
        OpenFailure::Panicked => match unusable(dir, None) {
            Some((path, source)) => OpenError::Io { path, source },
            None => OpenError::Damaged {
                path: dir.to_owned(),
                why: "the storage engine panicked while opening".to_owned(),
                damage: all_at_stake(watermark),
            },
        },
    });
    let keyspaces =
        keyspaces.and_then(
            |keyspaces| match keyspaces.lacks(&watermark.value, options.headers_only) {
                // The database lost a keyspace and made a new keyspace.
                Some(lacking) => Err(OpenError::Damaged {
                    path: dir.to_owned(),
                    why: format!("`{lacking}` is empty"),
                    damage: all_at_stake(watermark),
                }),
                None => Ok(keyspaces),
            },
        );
    let keyspaces = keyspaces.map_err(|e| match e {
        OpenError::Damaged {
            path,
            why,
            mut damage,
        } if findings.are_gone => {
            damage.notes.push(JOURNALS_GONE.to_owned());
            OpenError::Damaged { path, why, damage }
        }
        e => e,
    })?;
    Ok(Opened {
        keyspaces,
        existed,
        findings,
        shelter: Some(shelter),
        has_values_aside,
        was_there,
        lock: Some(lock),
    })
}

/// Returns the missing list of tables of a keyspace that has tables. fjall makes the list together with the
/// keyspace.
fn lost_list(db_dir: &Path) -> std::io::Result<Option<PathBuf>> {
    let entries = |dir: &Path| -> std::io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            found => found?.map(|entry| Ok(entry?.path())).collect(),
        }
    };
    for keyspace in entries(&db_dir.join("keyspaces"))? {
        if !keyspace.is_dir() {
            continue;
        }
        let current = keyspace.join("current");
        let is_used =
            !entries(&keyspace.join("tables"))?.is_empty() || !entries(&keyspace.join("blobs"))?.is_empty();
        if is_used && !current.exists() {
            return Ok(Some(current));
        }
    }
    Ok(None)
}

/// Opens a simulated disk: no other process can have it open, and there are no journals.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn open_simulated(
    dir: &Path,
    disk: &crate::store::simulated::Disk,
    watermark: &mut WatermarkFile,
) -> std::io::Result<Opened> {
    let values = Arc::new(ValueLog::new(dir.join(VALUES)));
    values.make_dir()?;
    let existed = !disk.is_new();
    if !existed {
        watermark.save()?;
    }
    let rows = disk.open();
    Ok(Opened {
        keyspaces: Keyspaces::simulated(rows, values),
        existed,
        findings: Findings::default(),
        shelter: None,
        has_values_aside: false,
        was_there: true,
        lock: None,
    })
}

/// Quarantines payloads without a database: the database was set aside, or is not mounted, so that the
/// payloads may still be needed.
pub(crate) fn set_values_aside(dir: &Path, quarantine: &Path) -> std::io::Result<bool> {
    let values = dir.join(VALUES);
    let mut files = match std::fs::read_dir(&values) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        files => files?,
    };
    if files.next().is_none() {
        return Ok(false);
    }
    std::fs::create_dir_all(quarantine)?;
    let free = (0u32..)
        .map(|n| quarantine.join(format!("{VALUES}.{n}")))
        .find(|aside| !aside.exists());
    if let Some(aside) = free {
        tracing::error!(to = %aside.display(), "the value log is set aside: there is no database that points to it");
        std::fs::rename(values, aside)?;
        File::open(quarantine)?.sync_all()?;
        File::open(dir)?.sync_all()?;
    }
    Ok(true)
}

/// Returns all promises of the watermark as endangered data.
pub(crate) fn all_at_stake(watermark: &WatermarkFile) -> Damage {
    let lost = watermark
        .value
        .partitions
        .iter()
        .filter(|(_, r)| r.log_start < r.end);
    let gap = |r: &crate::store::watermark::Reserve| Gap {
        start: r.log_start,
        end: r.end,
        reason: GapReason::Lost,
    };
    Damage {
        lost: lost.map(|(p, r)| (*p, gap(r))).collect(),
        notes: Vec::new(),
    }
}

pub(crate) enum OpenFailure {
    Locked,
    Store(fjall::Error),
    Panicked,
}

/// Locks the directory, before the journals are checked: a second process must not repair a running one's
/// files.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io)?;
    file.try_lock().map_err(|_| OpenError::Locked(dir.to_owned()))?;
    Ok(file)
}

pub(crate) fn open_keyspaces(
    db_dir: &Path,
    values: Arc<ValueLog>,
    options: &Options,
) -> Result<Keyspaces, OpenFailure> {
    let open = || -> fjall::Result<Keyspaces> {
        let db = fjall::Database::builder(db_dir)
            .cache_size(options.cache_bytes)
            .journal_compression(CompressionType::None)
            .max_journaling_size(options.journal_bytes)
            .worker_threads(2)
            .open()?;
        let plain = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                .index_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        };
        // Batches come compressed. Files of 32 MiB free space soon enough on a small disk.
        let separated = KvSeparationOptions::default()
            .compression(CompressionType::None)
            .separation_threshold(1 << 10)
            .file_target_size(32 << 20);
        Ok(Keyspaces {
            rlog: Keyspace::Files(db.keyspace("rlog", plain)?),
            data: Keyspace::Files(db.keyspace("data", || plain().with_kv_separation(Some(separated)))?),
            state: Keyspace::Files(db.keyspace("state", plain)?),
            values,
            db: Database::Files(db),
        })
    };
    // A damaged manifest can make fjall panic: turn the panic into an error for the operator.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)) {
        Ok(Ok(keyspaces)) => Ok(keyspaces),
        Ok(Err(fjall::Error::Locked)) => Err(OpenFailure::Locked),
        Ok(Err(e)) => Err(OpenFailure::Store(e)),
        Err(_) => Err(OpenFailure::Panicked),
    }
}
