//! Inspection of a component before any compilation.

use crate::digest::Digest;
use crate::error::LoadError;
use crate::limits::FUNCTION_BYTES_MAX;
use wasmparser::{Encoding, Parser, Payload};
use weir_types::limits::MODULE_BYTES_MAX;

/// Findings of an inspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The component's identity.
    pub digest: Digest,
    /// Interfaces with imported functions.
    pub imports: Vec<String>,
}

/// Interfaces of the contract that hold only types: importing them grants nothing.
const TYPES: &str = "weir:module/types@0.1";

/// Import of modules with state.
pub(crate) const STATE: &str = "weir:module/state@0.1";

/// Import of modules that set timers, and export for the calls.
pub(crate) const TIMERS: &str = "weir:module/timers@0.1";

const TIMED: &str = "weir:module/timed@0.1";

/// Allowed imports: the first two for all modules, the others where a stage grants them.
const KNOWN: [&str; 4] = ["weir:module/log@0.1", "weir:module/metrics@0.1", STATE, TIMERS];

/// Inspects `bytes`. Refuses anything but a component of the contract, of bounded size and with known
/// imports.
///
/// # Errors
/// Names the problem and the remedy.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(LoadError::TooLarge {
            bytes: bytes.len(),
            limit: MODULE_BYTES_MAX,
        });
    }
    let malformed = |e: wasmparser::BinaryReaderError| LoadError::NotAComponent(e.message().to_owned());
    let (mut depth, mut imports, mut exports) = (0u32, Vec::new(), Vec::new());
    let mut locals = 0u64;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(LoadError::NotAComponent("it is a core module".to_owned()));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::CodeSectionEntry(body) if body.as_bytes().len() > FUNCTION_BYTES_MAX => {
                let bytes = body.as_bytes().len();
                return Err(LoadError::FunctionTooLarge {
                    bytes,
                    limit: FUNCTION_BYTES_MAX,
                });
            }
            Payload::CodeSectionEntry(body) => {
                for declared in body.get_locals_reader().map_err(malformed)? {
                    locals += u64::from(declared.map_err(malformed)?.0);
                }
                if locals > bytes.len() as u64 {
                    return Err(LoadError::Locals(bytes.len()));
                }
            }
            _ => {}
        }
    }
    imports.retain(|i| !i.starts_with(TYPES));
    let known = |i: &String| KNOWN.iter().any(|g| i.starts_with(g)) || crate::host::wasi::serves(i);
    if let Some(import) = imports.iter().find(|i| !known(i)) {
        return Err(LoadError::Import {
            import: import.clone(),
        });
    }
    if !exports.iter().any(|e| e.starts_with("weir:module/transform@0.1")) {
        return Err(LoadError::NoExport);
    }
    let (sets, is_called) = (
        imports.iter().any(|i| i.starts_with(TIMERS)),
        exports.iter().any(|e| e.starts_with(TIMED)),
    );
    if sets && !is_called {
        return Err(LoadError::NotTimed);
    }
    Ok(Inspection {
        digest: Digest::of(bytes),
        imports,
    })
}
