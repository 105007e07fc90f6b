//! Settings of a node: one typed struct. `weir serve --print-config`, the names in the environment and the page of settings come
//! from the struct and its documentation.

mod value;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;
use value::{
    Advertised, Directory, Filter, Host, Label, Limit, Listener, Names, Switch, TimingProfile, Whole,
};
use weir_types::limits::PARTITIONS_MAX;

/// More memory than any machine gives to one part of a node.
const MEMORY_BYTES_MAX: u64 = 1 << 40;
const DISK_BYTES_MAX: u64 = 1 << 50;
/// A repair reads no larger file.
const VALUE_FILE_BYTES_MAX: u64 = 1 << 30;
/// The storage engine takes no smaller journal.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;
/// Variables that no node reads as a setting: of the command line, and of tests.
const OTHER_VARIABLES: [&str; 5] = [
    "WEIR_NODE",
    "WEIR_NODE_KEY",
    "WEIR_TOKEN",
    "WEIR_KNOWN_NODES",
    "WEIR_STOP_AT",
];

/// Makes the struct, its defaults and the table of names with their documentation out of one list.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr;)+) => {
        /// All settings of a node.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct Settings {
            $(
                $(#[doc = $doc])+
                #[serde(deserialize_with = "value::read", serialize_with = "value::write")]
                pub(crate) $name: $type,
            )+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        /// Name and documentation of each setting, in the order of a file.
        const DOCUMENTED: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];
    };
}

settings! {
    /// Directory of the node's data. Required, here or as `--data`.
    data: Directory = Directory(None);
    /// Address for the command line, clients and other nodes.
    quic: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7400));
    /// Address for HTTP.
    http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7480));
    /// Names by which HTTP clients may address this node, with commas between, besides its addresses, `localhost` and `host`.
    http_names: Names = Names(Vec::new());
    /// Address for Kafka clients, or "off".
    kafka: Listener = Listener(Some(SocketAddr::from(([127, 0, 0, 1], 9092))));
    /// HOST:PORT for Kafka clients to connect to. Empty: the address that a client came to.
    advertise: Advertised = Advertised(None);
    /// Name or address by which other nodes and clients reach this node. Empty: the address that it listens on.
    host: Host = Host(None);
    /// Failure domain of this node: a cabinet, a power supply. `weir cluster status` shows it.
    rack: Label = Label(String::new());
    /// Timeouts of replication: "edge" (heartbeat 150 ms, election 400 to 600 ms) or "central" (50 ms, 150 to 300 ms).
    timing: TimingProfile = TimingProfile::Edge;
    /// Creates a topic when a Kafka client first asks for its name: true or false.
    auto_create_topics: Switch = Switch(true);
    /// Partitions of a topic that a Kafka client creates without a number of partitions.
    default_partitions: Whole<1, { PARTITIONS_MAX as u64 }> = Whole(1);
    /// Milliseconds that the first rebalance of an empty consumer group waits for more members.
    group_initial_rebalance_delay_ms: Whole<0, 600_000> = Whole(500);
    /// Minutes that committed offsets of a consumer group without members are kept.
    offsets_retention_minutes: Whole<1, 5_256_000> = Whole(7 * 24 * 60);
    /// Log level: error, warn, info, debug, or a filter as `weir_log=debug,info`.
    log: Filter = Filter("info,openraft=error".to_owned());
    /// Milliseconds that a request waits for others to share its sync. 20 spares flash memory.
    linger_ms: Whole<0, 1_000> = Whole(1);
    /// Bytes of records to keep; beyond, the least important are evicted. 0: no limit.
    disk_budget_bytes: Limit = Whole(0);
    /// Bytes of the disk kept free of records. 0: 5 % of the disk, at least 256 MiB, at most 5 GiB or a quarter.
    disk_reserve_bytes: Limit = Whole(0);
    /// Bytes of read blocks kept in memory.
    cache_bytes: Whole<{ 1 << 20 }, MEMORY_BYTES_MAX> = Whole(weir_log::Options::default().cache_bytes);
    /// Bytes gathered in memory before a table is written.
    memtable_bytes: Whole<{ 1 << 20 }, MEMORY_BYTES_MAX> = Whole(weir_log::Options::default().memtable_bytes);
    /// Bytes of journals on the disk.
    journal_bytes: Whole<JOURNAL_BYTES_MIN, DISK_BYTES_MAX> = Whole(weir_log::Options::default().journal_bytes);
    /// Payload bytes in one sync from which records go to the value log: written once, at the price of a second sync.
    value_log_from_bytes: Whole<0, { usize::MAX as u64 }> =
        Whole(weir_log::Options::default().value_log_from_bytes as u64);
    /// Bytes of a segment of the value log. Space is reclaimed a segment at a time.
    value_file_bytes: Whole<{ 64 << 10 }, VALUE_FILE_BYTES_MAX> = Whole(weir_log::Options::default().value_file_bytes);
    /// Bytes of memory for the modules of all pipelines together. 0: half of the machine's memory.
    modules_memory_bytes: Limit = Whole(0);
    /// Quota in bytes per second of each client address, at each port, for producing. 0: none.
    produce_bytes_per_s: Limit = Whole(0);
    /// Quota in bytes per second of each client address, at each port, for reading. 0: none.
    fetch_bytes_per_s: Limit = Whole(0);
}

impl Settings {
    /// Returns the defaults, changed by `file`, then by `environment`, then by the `options` of the command line (name and value).
    ///
    /// # Errors
    ///
    /// A file that cannot be read, an unknown name in the file (with the nearest known one), and a value that is not accepted,
    /// each with its source.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        options: &[(&str, String)],
    ) -> Result<Self> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let in_file = || format!("in `{}`", path.display());
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let parsed: Result<toml::Table, _> = toml::from_str(&text);
            let parsed = parsed.map_err(|e| anyhow::anyhow!("{}", e.to_string().trim_end()));
            for (name, value) in parsed.with_context(in_file)? {
                check(&name, &value).with_context(in_file)?;
                table.insert(name, value);
            }
        }
        for (name, _) in DOCUMENTED {
            let variable = variable_of(name);
            if let Some(text) = environment(&variable) {
                let value = toml::Value::String(text);
                check(name, &value).with_context(|| format!("in the environment, {variable}"))?;
                table.insert((*name).to_owned(), value);
            }
        }
        for (name, text) in options {
            let value = toml::Value::String(text.clone());
            check(name, &value).with_context(|| format!("--{}", name.replace('_', "-")))?;
            table.insert((*name).to_owned(), value);
        }
        Ok(Self::deserialize(table)?)
    }

    /// Returns a file of all settings with their documentation and these values. A value other than the default says so.
    pub(crate) fn documented(&self) -> String {
        let (values, defaults) = (self.table(), Self::default().table());
        let mut out = String::new();
        for (name, about) in DOCUMENTED {
            let value = values.get(*name).map(ToString::to_string).unwrap_or_default();
            let default = defaults.get(*name).map(ToString::to_string).unwrap_or_default();
            let about = about.trim();
            out.push_str(&format!("# {about} ({})\n", variable_of(name)));
            if value != default {
                out.push_str(&format!("# Default: {default}\n"));
            }
            match (*name, value.as_str()) {
                ("data", r#""""#) => out.push_str("# data = \"/var/lib/weir\"\n\n"),
                _ => out.push_str(&format!("{name} = {value}\n\n")),
            }
        }
        out
    }

    fn table(&self) -> toml::Table {
        // Every value is a number, a boolean or a string.
        toml::Table::try_from(self).expect("settings have a TOML form")
    }
}

/// Checks one setting by itself, so that the error names it.
fn check(name: &str, value: &toml::Value) -> Result<()> {
    if !DOCUMENTED.iter().any(|(known, _)| *known == name) {
        bail!("there is no setting `{name}`; the nearest is `{}`", nearest(name));
    }
    let alone = toml::Table::from_iter([(name.to_owned(), value.clone())]);
    let Err(error) = Settings::deserialize(alone) else {
        return Ok(());
    };
    let shown = match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let error = error.to_string();
    bail!(
        "`{name}` cannot be `{shown}`: {}",
        error.lines().next().unwrap_or_default()
    )
}

/// Returns the variables that start as settings do and are none, each with the nearest variable of a setting.
pub(crate) fn unknown(variables: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let is_known = |variable: &str| {
        OTHER_VARIABLES.contains(&variable)
            || DOCUMENTED.iter().any(|(name, _)| variable_of(name) == variable)
    };
    let ours = variables.filter(|variable| variable.starts_with("WEIR_") && !is_known(variable));
    ours.map(|variable| {
        let nearest = nearest(&variable.trim_start_matches("WEIR_").to_lowercase());
        (variable, variable_of(nearest))
    })
    .collect()
}

fn variable_of(name: &str) -> String {
    format!("WEIR_{}", name.to_uppercase())
}

fn nearest(name: &str) -> &'static str {
    let likeness = |known: &str| (strsim::jaro_winkler(known, name) * 1_000.0) as u32;
    let nearest = DOCUMENTED.iter().max_by_key(|(known, _)| likeness(known));
    nearest.map_or("", |(known, _)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], options: &[(&str, &str)]) -> Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.toml");
        std::fs::write(&path, file).unwrap();
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let options: Vec<(&str, String)> = options.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        Settings::load(Some(&path), variable, &options)
    }

    #[test]
    fn later_sources_win() {
        let file = "linger_ms = 20\nhttp = \"127.0.0.1:1\"\nkafka = \"off\"\nrack = \"file\"\n";
        let environment = [("WEIR_HTTP", "127.0.0.1:2"), ("WEIR_RACK", "17")];
        let settings = load(file, &environment, &[("kafka", "127.0.0.1:3")]).unwrap();
        assert_eq!(settings.linger_ms, Whole(20));
        assert_eq!((settings.http.port(), settings.quic.port()), (2, 7400));
        assert_eq!(settings.kafka.0.unwrap().port(), 3);
        assert_eq!(settings.rack, Label("17".to_owned()));
    }

    #[test]
    fn refuses_unknown_names_with_the_nearest() {
        let error = format!("{:#}", load("lingr_ms = 20\n", &[], &[]).unwrap_err());
        assert!(
            error.contains("`lingr_ms`") && error.contains("`linger_ms`"),
            "{error}"
        );
        let variables = ["WEIR_JOURNAL_BYTE", "WEIR_NODE", "WEIR_QUIC", "PATH"].map(str::to_owned);
        let found = unknown(variables.into_iter());
        assert_eq!(
            found,
            [("WEIR_JOURNAL_BYTE".to_owned(), "WEIR_JOURNAL_BYTES".to_owned())]
        );
    }

    #[test]
    fn refuses_values_with_the_accepted_ones_and_their_source() {
        for (name, value, want) in [
            ("journal_bytes", "1", "67108864 to"),
            ("value_file_bytes", "1", "65536 to 1073741824"),
            ("linger_ms", "1001", "0 to 1000"),
            ("cache_bytes", "x", "use a number"),
            ("default_partitions", "0", "1 to"),
            ("log", "verbose", "use a level"),
            ("host", "a b", "a name or an IP address"),
            ("host", "gw:7400", "a name or an IP address"),
            ("log", "info,weir_log=loud", "use a level"),
            ("timing", "fast", "edge or central"),
            ("auto_create_topics", "yes", "true or false"),
            ("produce_bytes_per_s", "-1", "use a number"),
        ] {
            let error = format!("{:#}", load("", &[(&variable_of(name), value)], &[]).unwrap_err());
            let named = error.contains(&format!("`{name}` cannot be `{value}`"));
            assert!(
                named && error.contains(want) && error.contains(&variable_of(name)),
                "{error}"
            );
            let error = format!("{:#}", load("", &[], &[(name, value)]).unwrap_err());
            assert!(error.contains(want) && error.contains("--"), "{error}");
            let file = format!("{name} = {}", toml::Value::String(value.to_owned()));
            let error = format!("{:#}", load(&file, &[], &[]).unwrap_err());
            assert!(error.contains(want) && error.contains("weir.toml"), "{error}");
        }
        let error = format!("{:#}", load("rack = [1]", &[], &[]).unwrap_err());
        assert!(error.contains("`rack` cannot be `[1]`"), "{error}");
    }

    #[test]
    fn a_documented_file_reads_back_as_the_settings_that_it_shows() {
        let defaults = load(&Settings::default().documented(), &[], &[]).unwrap();
        assert_eq!(defaults, Settings::default());
        let environment = [
            ("WEIR_LINGER_MS", "7"),
            ("WEIR_ADVERTISE", "[fe80::1]:9"),
            ("WEIR_KAFKA", "off"),
            ("WEIR_RACK", "a \"b\""),
            ("WEIR_DATA", "/x"),
            ("WEIR_AUTO_CREATE_TOPICS", "false"),
        ];
        let changed = load("", &environment, &[]).unwrap();
        let shown = changed.documented();
        assert!(
            shown.contains("# Default: 1\nlinger_ms = 7\n") && shown.contains("data = \"/x\""),
            "{shown}"
        );
        assert_eq!(load(&shown, &[], &[]).unwrap(), changed);
    }
}
