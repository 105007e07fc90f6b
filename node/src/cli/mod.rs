//! The command line: one file a subcommand.

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

/// Where the node is and how answers look: the same for every subcommand that talks to one.
#[derive(Clone, Debug, ClapArgs)]
struct To {
    /// Address of the node; several of one site, with commas between, where one may be away.
    #[arg(
        long,
        env = "WEIR_NODE",
        default_value = "127.0.0.1:7400",
        value_name = "ADDR",
        global = true
    )]
    node: String,
    /// Key that a node must have which is met for the first time, as `weir status` shows it on the node itself; several with
    /// commas between.
    #[arg(
        long,
        env = "WEIR_NODE_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        global = true
    )]
    key: Vec<String>,
    /// Tables for people, or JSON for programs: an object a line where there are many.
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
    /// List and describe consumer groups, set where they go on, and delete them.
    Group(group::GroupArgs),
    /// Look at records that pipelines could not take, and send them on their way again.
    Deadletter(deadletter::DeadletterArgs),
    /// Push, list, describe, test and remove modules.
    Module(module::ModuleArgs),
    /// Apply, list, describe, pause, resume and remove pipelines.
    Pipeline(pipeline::PipelineArgs),
    /// Let nodes join a site, see how they are, hand over, take one out.
    Cluster(cluster::ClusterArgs),
    /// Try out a Kafka broker, this node's or another's.
    Kafka(kafka::KafkaArgs),
    /// Show how the node is.
    Status(status::Status),
    /// Read all stored records and check them.
    Scrub(scrub::Scrub),
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Compile a component from standard input (the node's own child process).
    #[command(hide = true)]
    CompileComponent {
        /// Make a component of a core module, and no more.
        #[arg(long)]
        make: bool,
        /// With a filter of system calls.
        #[arg(long)]
        confined: bool,
    },
}

/// Wrong usage that only shows once arguments are looked at together: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// Somebody closed our standard output, as `head` does.
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
            // It takes no error from what it writes to.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "weir", &mut script);
            Ok(std::io::stdout().lock().write_all(&script)?)
        }
        Command::CompileComponent { make, confined } => {
            // The node's short slices are inherited, and nobody waits for this the way they wait for records.
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

/// One thread is enough for a tool.
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

/// Keys of nodes met before, as ssh's known_hosts.
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

/// `key=value` on the command line.
fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}
