//! The official Java clients, tools and frameworks of Kafka 4.4, as shipped, on a site of three; and a real
//! Kafka beside a node.

use super::clients;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use weir_tests::site::Site;
use weir_tests::{DEADLINE, Node, within};

/// Returns the directory of Apache Kafka, if installed.
fn kafka() -> Option<std::path::PathBuf> {
    let dir = clients("kafka");
    if !dir.join(".installed").exists() {
        eprintln!(
            "SKIPPED: Apache Kafka is not installed; `cargo verify` installs it where there is Java and Maven"
        );
        return None;
    }
    Some(dir)
}

/// Builds the command of a Kafka program, or of a program beside `kafka.sh`.
fn program(dir: &Path, what: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.arg(weir_tests::root().join("tests/clients/java/kafka.sh"));
    command.arg(what).arg(dir).args(args);
    command
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Runs a tool, which must succeed; returns its output.
fn run(dir: &Path, args: &[&str]) -> String {
    let output = program(dir, "run", args).output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{args:?}: {said}");
    said
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn three(dir: &Path) -> Site {
    let env = [
        ("WEIR_GROUP_INITIAL_REBALANCE_DELAY_MS", "100"),
        ("WEIR_AUTO_CREATE_TOPICS", "false"),
    ];
    let site = Site::of_three(dir, &env).unwrap();
    site.until_in_step().unwrap();
    site
}

/// The address of a node that does not lead, for Kafka clients.
fn follower(site: &Site) -> String {
    let leader = site.leader().unwrap();
    let other = (1..=3).find(|n| *n != leader).unwrap();
    site.node(other).unwrap().kafka.to_string()
}

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "org.apache.kafka.tools.ConfigCommand";

#[test]
fn kafka_tools_work_at_a_follower() {
    let Some(dir) = kafka() else { return };
    let data = tempfile::tempdir().unwrap();
    let site = three(data.path());
    let node = follower(&site);
    let tool = |class: &str, args: &[&str]| {
        let args = [&[class, "--bootstrap-server", &node], args].concat();
        run(&dir, &args)
    };
    let template = [
        "--create",
        "--topic",
        "t",
        "--partitions",
        "2",
        "--replication-factor",
        "3",
        "--config",
        "min.insync.replicas=2",
        "--config",
        "segment.bytes=104857600",
        "--config",
        "cleanup.policy=compact",
    ];
    tool(TOPICS, &template);
    tool(TOPICS, &["--alter", "--topic", "t", "--partitions", "3"]);
    let described = tool(TOPICS, &["--describe", "--topic", "t"]);
    assert!(
        described.contains("PartitionCount: 3") && described.contains("ReplicationFactor: 3"),
        "{described}"
    );
    assert!(
        described.contains("cleanup.policy=compact")
            && !described.contains("TopicId: AAAAAAAAAAAAAAAAAAAAAA"),
        "{described}"
    );
    // The existence of a topic is checked before its settings.
    let again = program(
        &dir,
        "run",
        &[
            TOPICS,
            "--bootstrap-server",
            &node,
            "--create",
            "--topic",
            "t",
            "--config",
            "segment.bytes=1048576",
        ],
    )
    .output();
    let again = said(&again.unwrap());
    assert!(again.contains("exists already"), "{again}");
    let of_topic = |args: &[&str]| {
        tool(
            CONFIGS,
            &[args, &["--entity-type", "topics", "--entity-name", "t"]].concat(),
        )
    };
    of_topic(&[
        "--alter",
        "--add-config",
        "retention.ms=7000000,delete.retention.ms=5",
    ]);
    of_topic(&["--alter", "--delete-config", "segment.ms,no.such"]);
    let settings = of_topic(&["--describe", "--all"]);
    for set in [
        "retention.ms=7000000",
        "delete.retention.ms=5",
        "segment.bytes=104857600",
        "segment.ms=604800000",
        "durability=sync",
    ] {
        assert!(settings.contains(set), "{set}: {settings}");
    }
    let groups = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    tool(groups, &["--list"]);
    let quorum = tool(
        "org.apache.kafka.tools.MetadataQuorumCommand",
        &["describe", "--status"],
    );
    assert!(quorum.contains("CurrentVoters"), "{quorum}");
    tool(
        "org.apache.kafka.tools.LeaderElectionCommand",
        &["--election-type", "preferred", "--all-topic-partitions"],
    );
    tool("org.apache.kafka.tools.TransactionsCommand", &["list"]);
    tool(TOPICS, &["--delete", "--topic", "t"]);
    let listed = tool(TOPICS, &["--list"]);
    assert!(!listed.lines().any(|line| line == "t"), "{listed}");
}

#[test]
fn java_producers_and_streams_work_unmodified() {
    let Some(dir) = kafka() else { return };
    let data = tempfile::tempdir().unwrap();
    let site = three(data.path());
    let state = tempfile::tempdir().unwrap();
    let (node, state) = (follower(&site), state.path().to_string_lossy().into_owned());
    for args in [&["Producers", &node][..], &["Words", &node, &state]] {
        let passed = run(&dir, args);
        assert!(passed.contains("PASSED"), "{passed}");
    }
}

#[test]
fn connect_distributed_resumes_at_its_offset() {
    let Some(dir) = kafka() else { return };
    let data = tempfile::tempdir().unwrap();
    let site = three(data.path());
    let http = super::free_port();
    let settings = data.path().join("connect.properties");
    let text = format!(
        "bootstrap.servers={}\ngroup.id=connect\nlisteners=http://{http}\nplugin.discovery=service_load\noffset.flush.interval.ms=200\n\
         key.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter=org.apache.kafka.connect.json.JsonConverter\n\
         offset.storage.topic=offsets\noffset.storage.partitions=2\noffset.storage.replication.factor=3\n\
         config.storage.topic=configs\nconfig.storage.replication.factor=3\n\
         status.storage.topic=status\nstatus.storage.partitions=2\nstatus.storage.replication.factor=3\n",
        follower(&site)
    );
    std::fs::write(&settings, text).unwrap();
    let count = || {
        site.cli(&["topic", "describe", "numbers", "-o", "json"])
            .map_or(0, |text| {
                let topic: serde_json::Value = serde_json::from_str(&text).unwrap();
                topic["partitions"][0]["committed_end"].as_u64().unwrap()
            })
    };
    let mut before = 0;
    for _ in 0..2 {
        let worker = program(
            &dir,
            "run",
            &[
                "org.apache.kafka.connect.cli.ConnectDistributed",
                &settings.to_string_lossy(),
            ],
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
        let _worker = Running(worker.unwrap());
        // The second time, Connect finds its connector in the topic.
        within(3 * DEADLINE, "Connect writes 20 numbers", || {
            let written = count();
            if written >= before + 20 {
                return Ok(());
            }
            let put = Command::new("curl")
                .args(["--silent", "--max-time", "5", "-X", "PUT", "-H", "content-type: application/json"])
                .arg(format!("http://{http}/connectors/count/config"))
                .args(["-d", r#"{"connector.class":"Counting","tasks.max":"1","topic":"numbers","topic.creation.default.replication.factor":"-1","topic.creation.default.partitions":"1"}"#])
                .output();
            put.unwrap();
            std::thread::sleep(std::time::Duration::from_millis(300));
            Err(format!("{written} numbers; {}", site.said()))
        });
        before = count();
    }
    let read = site
        .cli(&["consume", "numbers", "--count", &before.to_string()])
        .unwrap();
    let number = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        record["payload"].as_u64()
    };
    // At least once: records in flight at the end come again, and none is missing.
    let mut sorted: Vec<u64> = read.lines().filter_map(number).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let all: Vec<u64> = (0..sorted.len() as u64).collect();
    assert_eq!(sorted, all, "{read}");
}

#[test]
fn answers_equal_those_of_apache_kafka() {
    let Some(dir) = kafka() else { return };
    let data = tempfile::tempdir().unwrap();
    let port = super::free_ports();
    let log = std::fs::File::create(data.path().join("kafka.log")).unwrap();
    let broker = program(
        &dir,
        "start",
        &[&port.to_string(), &data.path().join("kafka").to_string_lossy()],
    )
    .stdout(log.try_clone().unwrap())
    .stderr(log)
    .spawn();
    let _broker = Running(broker.unwrap());
    let node = Node::start(
        data.path(),
        &[
            ("WEIR_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
            ("WEIR_AUTO_CREATE_TOPICS", "false"),
        ],
    )
    .unwrap();
    within(3 * DEADLINE, "Kafka starts", || {
        let said = || std::fs::read_to_string(data.path().join("kafka.log")).unwrap();
        TcpStream::connect(("127.0.0.1", port)).map_err(|_| said())
    });
    let classpath = std::fs::read_to_string(dir.join("classpath")).unwrap();
    let jar = classpath
        .trim()
        .split(':')
        .find(|jar| jar.contains("/kafka-clients-"))
        .unwrap();
    let compared = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(weir_tests::root().join("tests/clients/beside.py"))
        .args([jar, &format!("127.0.0.1:{port}"), &node.kafka.to_string()])
        .output();
    let compared = compared.unwrap();
    assert!(compared.status.success(), "{}", said(&compared));
    println!("{}", said(&compared));
}
