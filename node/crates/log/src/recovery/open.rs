//! Opening a database and recovering its contents.

use crate::error::{Damage, OpenError};
use crate::options::{Options, Store};
#[cfg(any(test, feature = "testing"))]
use crate::recovery::files::open_simulated;
use crate::recovery::files::{Opened, all_at_stake, open_files, open_keyspaces, unopened};
use crate::recovery::journal::Findings;
use crate::recovery::markers::{ENDS_GONE, JOURNALS_GONE, REPAIRED, note_damage};
use crate::recovery::report::Recovered;
use crate::recovery::state::{Failure, Recovery, State};
use crate::store::os_error::unusable;
use crate::store::value_log::{VALUES, ValueLog};
use crate::store::watermark::WatermarkFile;
use std::path::Path;
use std::sync::Arc;

/// Opens the log in `dir` and repairs missing data.
///
/// # Errors
/// Fails when the log cannot be opened, or is damaged and must not be repaired.
pub(crate) fn open(dir: &Path, options: &Options, store: &Store) -> Result<State, OpenError> {
    let opened = open_whole(dir, options, store);
    if let Err(OpenError::Damaged { why, damage, .. }) = &opened
        && dir.join("db").exists()
    {
        note_damage(dir, why, &damage.notes);
    }
    opened.map_err(|e| match e {
        OpenError::Io { path, source } if path == dir => match unusable(dir, Some(&source)) {
            Some((path, source)) => OpenError::Io { path, source },
            None => OpenError::Io { path, source },
        },
        e => e,
    })
}

/// Adds the gaps to a rebuilt database, and restarts the groups' logs behind their end.
///
/// # Errors
/// Fails when the database cannot be opened.
pub(crate) fn mend_rebuilt(
    dir: &Path,
    db_dir: &Path,
    options: &Options,
    findings: Findings,
) -> Result<Recovered, OpenError> {
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let (watermark, marked) = WatermarkFile::load(dir).map_err(io)?;
    let values = Arc::new(ValueLog::new(dir.join(VALUES)));
    let keyspaces = open_keyspaces(db_dir, values, options)
        .map_err(|_| io(std::io::Error::other("the database that was made does not open")))?;
    let opened = Opened {
        keyspaces,
        existed: true,
        findings,
        shelter: None,
        has_values_aside: false,
        was_there: true,
        lock: None,
    };
    let state = recover(dir, options, opened, watermark, marked, true)?;
    Ok(state.recovered)
}

pub(super) fn open_whole(dir: &Path, options: &Options, store: &Store) -> Result<State, OpenError> {
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let (mut watermark, marked) = WatermarkFile::load(dir).map_err(io)?;
    let opened = match store {
        Store::Files => open_files(dir, options, &mut watermark, marked)?,
        #[cfg(any(test, feature = "testing"))]
        Store::Simulated(disk) => open_simulated(dir, disk, &mut watermark).map_err(io)?,
    };
    recover(dir, options, opened, watermark, marked, false)
}

/// Recovers the contents of an open database and repairs missing data.
pub(super) fn recover(
    dir: &Path,
    options: &Options,
    opened: Opened,
    watermark: WatermarkFile,
    marked: bool,
    is_rebuilt: bool,
) -> Result<State, OpenError> {
    let Opened {
        keyspaces,
        existed,
        findings,
        shelter,
        has_values_aside,
        was_there,
        lock,
    } = opened;
    let journals_gone = findings.are_gone && existed && was_there;
    // Without either, the ends are unknown. A node killed at any moment has at least one of the two.
    let ends_gone = findings.are_gone && existed && !marked;
    if ends_gone && !is_rebuilt {
        return Err(OpenError::Damaged {
            path: dir.to_owned(),
            why: "the journals and both watermark files are not there".to_owned(),
            damage: Damage {
                notes: vec![ENDS_GONE.to_owned()],
                ..Damage::default()
            },
        });
    }
    let mut recovery = Recovery {
        recovered: Recovered {
            clean: watermark.value.clean || !existed,
            torn_bytes: findings.torn_bytes,
            frames_repaired: findings.frames_repaired,
            ..Recovered::default()
        },
        suspect: findings.frames_lost > 0 || journals_gone || is_rebuilt,
        // After an orderly stop the ends are known.
        is_tail_unknown: journals_gone && !watermark.value.clean,
        is_rebuilt,
        only_whole: options.only_whole && !is_rebuilt,
        dir: dir.to_owned(),
        quarantine: dir.join("quarantine"),
        value_file_bytes: options.value_file_bytes,
        headers_only: options.headers_only,
        keyspaces,
        watermark,
        lock,
    };
    if findings.frames_lost > 0 {
        recovery.note(format!(
            "{} damaged journal frames were set aside",
            findings.frames_lost
        ));
    }
    if journals_gone {
        recovery.note(JOURNALS_GONE.to_owned());
    }
    if has_values_aside {
        recovery.note("payloads without a database are set aside under `quarantine/`".to_owned());
    }
    if let Ok(lost) = std::fs::read_to_string(dir.join(REPAIRED)) {
        recovery.note(format!("a repair made the database again: {lost}"));
    }
    if ends_gone {
        recovery.note(ENDS_GONE.to_owned());
    }
    if is_rebuilt {
        recovery.note("the database was made again from what could be read".to_owned());
    }
    recovery.suspect |= !existed && marked;
    if existed && !marked {
        recovery.note("both watermark files are missing or damaged".to_owned());
        recovery.suspect = true;
    }
    let stake = all_at_stake(&recovery.watermark);
    let ran = recovery.run().map_err(|failure| match failure {
        Failure::Store(e) => unopened(dir, &e, stake),
        Failure::NotWhole(damage) => OpenError::Damaged {
            path: dir.to_owned(),
            why: "something is missing".to_owned(),
            damage,
        },
        Failure::Format(why) => OpenError::Newer {
            path: dir.to_owned(),
            why,
        },
    });
    let is_damaged = match &ran {
        Ok(state) => !state.recovered.damage.is_none(),
        // Files refused by the system may be whole: keep everything.
        Err(OpenError::Io { .. }) => return ran,
        Err(_) => true,
    };
    if let Some(shelter) = shelter {
        shelter.settle(is_damaged).map_err(|source| OpenError::Io {
            path: dir.to_owned(),
            source,
        })?;
    }
    ran
}
