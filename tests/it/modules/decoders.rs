//! The decoders beside those that other people use: the same bytes mean the same.

use std::path::Path;
use std::process::Command;
use weir_tests::{module, target, weir};

/// Runs a comparison of `decoders/peers.py`, which reports differences.
fn peers(what: &str, name: &str) {
    let tools = target().join("clients/decoders");
    if !tools.join(".installed").exists() {
        eprintln!(
            "SKIPPED: cantools and pymodbus are not installed; `cargo verify` installs them where their registry can be reached"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wasm = dir.path().join("module.wasm");
    std::fs::write(&wasm, module(name)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/modules/decoders/peers.py");
    let ran = Command::new("python3")
        .env("PYTHONPATH", &tools)
        .arg(script)
        .arg(what)
        .arg(weir())
        .arg(&wasm)
        .arg(target().join("clients/cantools-source"))
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{out}{err}");
    println!("{out}");
}

#[test]
fn can_frames_decode_as_by_cantools() {
    peers("can", "can-decode");
}

#[test]
fn modbus_registers_decode_as_by_pymodbus() {
    peers("modbus", "modbus-decode");
}
