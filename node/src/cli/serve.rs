//! `weir serve`

use super::Usage;
use crate::boot::{self, FirstStart};
use crate::settings::{self, Settings};
use anyhow::Result;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Run a node.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Data directory of the node; created if missing.
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
    /// Host and port advertised to Kafka clients.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Address of a node of the site to join; only for the first start. Needs `--token`.
    #[arg(long, value_name = "HOST:PORT", requires = "token")]
    join: Option<String>,
    /// Token of `weir cluster invite`. In the environment, it stays hidden from `ps`.
    #[arg(long, value_name = "TOKEN", env = "WEIR_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Name or address under which other nodes and clients reach this node.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Failure domain of the node: a rack, a cabinet, a power supply.
    #[arg(long, value_name = "LABEL")]
    rack: Option<String>,
    /// Join a site of two nodes as a witness: it votes, and keeps no records. Only for the first start.
    #[arg(long)]
    witness: bool,
    /// Print every setting with its meaning, its default and the value that would be used, and exit.
    #[arg(long)]
    print_config: bool,
}

impl Serve {
    pub(crate) fn run(self) -> Result<()> {
        let settings = self.settings()?;
        if self.print_config {
            let text = settings.documented();
            std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes())?;
            return Ok(());
        }
        let first = FirstStart {
            join: self.join.zip(self.token),
            witness: self.witness,
        };
        let data = settings.data.0.clone();
        let data =
            data.ok_or_else(|| Usage("give a directory for the data: weir serve --data DIR".to_owned()))?;
        let filter =
            EnvFilter::try_new(&settings.log.0).map_err(|e| Usage(format!("`log` is no filter: {e}")))?;
        let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(color)
            .init();
        let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for (variable, nearest) in settings::unknown(variables) {
            tracing::warn!(
                variable,
                nearest,
                "a variable of the environment is not a setting of a node"
            );
        }
        raise_file_limit();
        // Before any thread starts, since threads inherit the setting.
        weir_pipeline::Priority::Prompt.ask();
        // Two threads: network and protocol. The log, its readers, the proposer and pipelines have their own.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let result = runtime.block_on(boot::serve(&data, settings, first));
        runtime.shutdown_background();
        result
    }
}

impl Serve {
    fn settings(&self) -> Result<Settings> {
        let data = self.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        let given = [
            ("data", data),
            ("quic", self.quic.map(|addr| addr.to_string())),
            ("http", self.http.map(|addr| addr.to_string())),
            ("kafka", self.kafka.clone()),
            ("advertise", self.advertise.clone()),
            ("host", self.host.clone()),
            ("rack", self.rack.clone()),
        ];
        let options: Vec<(&str, String)> = given
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let loaded = Settings::load(self.config.as_deref(), |name| std::env::var(name).ok(), &options);
        // An option of the command line that is not accepted is wrong usage.
        loaded.map_err(|error| match error.to_string().starts_with("--") {
            true => Usage(format!("{error:#}")).into(),
            false => error,
        })
    }
}

/// Raises the limit of open files: every connection is a file, and the usual limit of 1,024 is for users of
/// `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
