//! The command line: a file for each subcommand.

mod cluster;
mod consume;
mod deadletter;
mod group;
mod input;
mod kafka;
mod module;
mod new;
mod order;
mod output;
mod pipeline;
mod produce;
mod scrub;
mod serve;
mod shadow;
mod state;
mod status;
mod topic;

pub(crate) use order::in_order;

use anyhow::{Context, Result};
use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use weir_client::{Client, KnownNodes};

/// Event streaming for the edge: a durable log, Wasm modules in-line, one small binary.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Address of the node and format of answers: the same for every subcommand that talks to a node.
#[derive(Clone, Debug, ClapArgs)]
struct To {
    /// Address of the node; or addresses of several nodes of a site, separated by commas.
    #[arg(
        long,
        env = "WEIR_NODE",
        default_value = "127.0.0.1:7400",
        value_name = "ADDR",
        global = true
    )]
    node: String,
    /// Expected key of a node that is contacted for the first time, as `weir status` shows it; several,
    /// separated by commas.
    #[arg(
        long,
        env = "WEIR_NODE_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        global = true
    )]
    key: Vec<String>,
    /// Tables for people, or JSON for programs: a line for each object.
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Serve(serve::Serve),
    /// Create, list, describe, alter and delete topics.
    Topic(topic::TopicArgs),
    /// Send records from standard input or a file.
    Produce(produce::Produce),
    /// Read records.
    Consume(consume::Consume),
    /// List, describe, reset and delete consumer groups.
    Group(group::GroupArgs),
    /// List, show and replay dead letters of pipelines.
    Deadletter(deadletter::DeadletterArgs),
    /// Create, test, push, list, describe and remove modules.
    Module(module::ModuleArgs),
    /// Plan, apply, list, describe, change and remove pipelines.
    Pipeline(pipeline::PipelineArgs),
    /// Manage the nodes of a site: status, invite, transfer, rebalance, drain, remove.
    Cluster(cluster::ClusterArgs),
    /// Check a Kafka broker: this node or another broker.
    Kafka(kafka::KafkaArgs),
    /// Show the status of a node.
    Status(status::Status),
    /// Read and check all stored records.
    Scrub(scrub::Scrub),
    /// Print a completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Compile a component from standard input (the node's own child process).
    #[command(hide = true)]
    CompileComponent {
        /// Only make a component of a core module.
        #[arg(long)]
        make: bool,
        /// Filter system calls.
        #[arg(long)]
        confined: bool,
    },
}

/// Wrong usage that only the combination of arguments shows: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// Tells whether an error is a closed standard output, as `head` leaves behind.
pub(crate) fn is_broken_pipe(e: &anyhow::Error) -> bool {
    let io = e.chain().find_map(|c| c.downcast_ref::<std::io::Error>());
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Serve(serve) => serve.run(),
        Command::Topic(args) => block_on(args.run()),
        Command::Produce(args) => block_on(args.run()),
        Command::Consume(args) => block_on(args.run()),
        Command::Group(args) => block_on(args.run()),
        Command::Deadletter(args) => block_on(args.run()),
        Command::Module(args) => args.run(),
        Command::Pipeline(args) => block_on(args.run()),
        Command::Cluster(args) => block_on(args.run()),
        Command::Kafka(args) => block_on(args.run()),
        Command::Status(args) => block_on(args.run()),
        Command::Scrub(args) => args.run(),
        Command::Completions { shell } => {
            // The generator ignores errors of its output.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "weir", &mut script);
            Ok(std::io::stdout().lock().write_all(&script)?)
        }
        Command::CompileComponent { make, confined } => {
            // The node's short time slices are inherited, and compiling is less urgent than records.
            weir_pipeline::Priority::Behind.ask();
            let made = if make {
                weir_runtime::componentize_in_child(confined)
            } else {
                weir_runtime::compile_in_child(confined)
            };
            Ok(made?)
        }
    }
}

/// Runs a future on a single thread, which is enough for a tool.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

impl To {
    async fn connect(&self) -> Result<Client> {
        let seeds = self.node.split(',').map(resolve).collect::<Result<Vec<_>>>()?;
        let name = format!("weir-cli/{}", std::process::id());
        let known = KnownNodes::at(known_nodes()?)?.expecting(self.key.clone());
        Ok(Client::connect_any(&seeds, &known, &name).await?)
    }
}

fn resolve(node: &str) -> Result<SocketAddr> {
    let mut addrs = node
        .to_socket_addrs()
        .with_context(|| format!("`{node}` is no HOST:PORT"))?;
    addrs.next().with_context(|| format!("`{node}` has no address"))
}

/// Returns the file of known node keys, like known_hosts of ssh.
fn known_nodes() -> Result<PathBuf> {
    let under = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let config = under("XDG_CONFIG_HOME").or_else(|| under("HOME").map(|h| h.join(".config")));
    let path = under("WEIR_KNOWN_NODES").or_else(|| config.map(|dir| dir.join("weir").join("known_nodes")));
    path.context(
        "there is no place for the keys of nodes that were met: set HOME, XDG_CONFIG_HOME or WEIR_KNOWN_NODES to an absolute path",
    )
}

/// Parses `key=value`.
fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}
