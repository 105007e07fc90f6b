//! Opening the database: what is looked at before, and what is told when it does not open.

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

/// What was found before anything was read.
pub(crate) struct Opened {
    pub(crate) keyspaces: Keyspaces,
    /// There was a database.
    pub(crate) existed: bool,
    pub(crate) findings: Findings,
    /// What the database has removed, until it is known whether it should have.
    pub(crate) shelter: Option<Shelter>,
    /// Payloads were there, and no database that points to them.
    pub(crate) has_values_aside: bool,
    /// Something was promised.
    pub(crate) was_there: bool,
    pub(crate) lock: Option<File>,
}

/// Why a database does not open. An error of the operating system is no damage: what cannot be read now may be whole.
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
                damage: everything(watermark),
            });
        }
    }
    let promised = &watermark.value;
    let was_there = !promised.groups.is_empty() || !promised.partitions.is_empty();
    if !existed && was_there {
        // It was removed, or is on a file system that is not mounted. What lies beside it is not given up for that.
        return Err(OpenError::Damaged {
            path: dir.to_owned(),
            why: "`db` is not there".to_owned(),
            damage: everything(watermark),
        });
    }
    if let Some(lost) = lost_list(&db_dir).map_err(io)? {
        // The database would take it for empty, and go on without what its files hold.
        return Err(OpenError::Damaged {
            path: dir.to_owned(),
            why: format!("`{}` is not there", lost.display()),
            damage: everything(watermark),
        });
    }
    let quarantine = dir.join("quarantine");
    let findings =
        crate::recovery::journal::check(&db_dir, &quarantine, watermark.value.clean).map_err(io)?;
    let has_values_aside = !existed && set_values_aside(dir, &quarantine).map_err(io)?;
    let values = Arc::new(ValueLog::new(dir.join(VALUES)));
    values.make_dir().map_err(io)?;
    if !existed && !marked {
        // Before there is a database: a node that is killed before its first write must not look as if it had lost
        // its marks.
        watermark.save().map_err(io)?;
    }
    let shelter = Shelter::of(dir);
    let keyspaces = open_keyspaces(&db_dir, values, options).map_err(|e| match e {
        OpenFailure::Locked => OpenError::Locked(dir.to_owned()),
        OpenFailure::Store(e) => unopened(dir, &e, everything(watermark)),
        OpenFailure::Panicked => match unusable(dir, None) {
            Some((path, source)) => OpenError::Io { path, source },
            None => OpenError::Damaged {
                path: dir.to_owned(),
                why: "the storage engine panicked while opening".to_owned(),
                damage: everything(watermark),
            },
        },
    });
    let keyspaces =
        keyspaces.and_then(
            |keyspaces| match keyspaces.lacks(&watermark.value, options.headers_only) {
                // It forgot what it had, and made it anew.
                Some(lacking) => Err(OpenError::Damaged {
                    path: dir.to_owned(),
                    why: format!("`{lacking}` is empty"),
                    damage: everything(watermark),
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

/// The file that says which tables of a keyspace count, where there are tables and it is not. fjall makes it with the keyspace.
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

/// No other process can have it, and it has no journals.
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

/// Payloads without a database that points to them: it was set aside, or is not mounted. They are not nobody's.
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

/// What the watermark promised, all of it at stake.
pub(crate) fn everything(watermark: &WatermarkFile) -> Damage {
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

/// Held from before the journals are looked at, so that a second process does not mend what a running one writes.
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
        // Batches come compressed; files of 32 MiB give space back soon enough on a small disk.
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
    // A damaged manifest can make fjall panic, which is no way to tell an operator.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)) {
        Ok(Ok(keyspaces)) => Ok(keyspaces),
        Ok(Err(fjall::Error::Locked)) => Err(OpenFailure::Locked),
        Ok(Err(e)) => Err(OpenFailure::Store(e)),
        Err(_) => Err(OpenFailure::Panicked),
    }
}
