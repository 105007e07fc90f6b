//! `weir serve`

use super::Usage;
use crate::config::{Config, documented};
use anyhow::Result;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Run a node.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Directory of the node's data; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for the command line and clients.
    #[arg(long, value_name = "ADDR")]
    quic: Option<SocketAddr>,
    /// Address for HTTP.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Address for Kafka clients, or `off`.
    #[arg(long, value_name = "ADDR")]
    kafka: Option<String>,
    /// Host and port that Kafka clients are told to connect to.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Address of a node of the site that this one shall belong to; only for its first start. Needs `--token`.
    #[arg(long, value_name = "HOST:PORT", requires = "token")]
    join: Option<String>,
    /// What `weir cluster invite` printed there. Also from the environment, where `ps` does not show it.
    #[arg(long, value_name = "TOKEN", env = "WEIR_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Name or address by which other nodes and clients reach this one.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// What fails together with this node: a cabinet, a power supply.
    #[arg(long, value_name = "LABEL")]
    rack: Option<String>,
    /// Join a site of two as a third vote that keeps no records; only for its first start.
    #[arg(long)]
    witness: bool,
    /// Print every setting with its default and what it means, and stop.
    #[arg(long)]
    print_config: bool,
}

impl Serve {
    pub(crate) fn run(self) -> Result<()> {
        if self.print_config {
            std::io::Write::write_all(&mut std::io::stdout().lock(), documented().as_bytes())?;
            return Ok(());
        }
        let mut config = Config::load(self.config.as_deref(), |name| std::env::var(name).ok())?;
        config.quic = self.quic.unwrap_or(config.quic);
        config.http = self.http.unwrap_or(config.http);
        let given = [
            ("kafka", &self.kafka),
            ("advertise", &self.advertise),
            ("host", &self.host),
            ("rack", &self.rack),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                config.set(name, value).map_err(|e| Usage(e.to_string()))?;
            }
        }
        config.join = self.join.zip(self.token);
        config.witness = self.witness;
        let data = self.data.or(config.data.clone());
        let data =
            data.ok_or_else(|| Usage("give a directory for the data: weir serve --data DIR".to_owned()))?;
        let filter =
            EnvFilter::try_new(&config.log).map_err(|e| Usage(format!("`log` is no filter: {e}")))?;
        let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(color)
            .init();
        let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for (variable, nearest) in crate::config::unknown(variables) {
            tracing::warn!(
                variable,
                nearest,
                "the environment has what is no setting of a node"
            );
        }
        raise_file_limit();
        // Before any thread is started: they inherit it.
        weir_pipeline::Priority::Prompt.ask();
        // Two threads: network and protocol. The log, its readers, the proposer and pipelines have their own.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let result = runtime.block_on(crate::boot::serve(&data, config));
        runtime.shutdown_background();
        result
    }
}

/// Every connection is a file, and the usual soft limit of 1,024 is for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
