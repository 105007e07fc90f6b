//! Every bound in a single place. Each states the origin of its number; relations are checked at compile
//! time.

/// Longest topic name in bytes (Kafka's limit, which leaves room for a partition suffix in a file name).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Most topics on a node: listing and describing them fits a frame.
pub const TOPICS_MAX: usize = 10_000;
/// Bytes of a topic's settings without effect, names and values: three times all of them with usual values.
pub const TOPIC_SETTINGS_BYTES_MAX: usize = 2 << 10;
/// Remembered names of refused topics: a tool makes a few hundred at most.
pub const REFUSED_TOPICS_MAX: usize = 1_000;
/// Most partitions of a topic, and of a node: ten thousand cost only their positions.
pub const PARTITIONS_MAX: u32 = 10_000;

/// Largest accepted record batch, as stored. Kafka's default `message.max.bytes` is 1 MiB; factory images are
/// larger. A batch must fit a frame, and several times the memory of a small gateway.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a batch after decompression.
pub const BATCH_INFLATED_BYTES_MAX: usize = 16 << 20;
/// Usual ratio of decompression, at most: real sensor JSON reaches 20. Larger batches take room from the
/// node's ledger first.
pub const INFLATE_RATIO_USUAL: usize = 64;
/// Usual size of a decompressed batch in any case: small batches of equal readings compress very well.
pub const INFLATE_FREE_BYTES: usize = 1 << 20;
/// Most records in a batch; also bounds the indexes that cross to a guest.
pub const BATCH_RECORDS_MAX: u32 = 100_000;
/// Most headers of a record: ten times the known use of clients. An empty header has two bytes in a batch and
/// fifty as text.
pub const RECORD_HEADERS_MAX: u32 = 10_000;
/// Largest record of a module: a batch of the record alone keeps room for its header and for the reason of a
/// dead letter.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - (64 << 10);

/// Largest frame of the client protocol: a batch, its envelope and some room.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + (64 << 10);
/// Largest first frame, read before the other side is known.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Largest answer to a fetch.
pub const FETCH_BYTES_MAX: usize = 4 << 20;
/// Longest wait of a fetch for new records, in milliseconds.
pub const FETCH_WAIT_MS_MAX: u64 = 60_000;

/// Commands that wait for the log's writer: more than possible requests, so that a hand-over never waits.
pub const WRITER_QUEUE_MAX: usize = 8_192;
/// Bytes of entries in a group commit: at 512 KiB a sync costs less than the writing.
pub const GROUP_COMMIT_BYTES_MAX: usize = 4 << 20;
/// Target size of the proposer's entries: good for a sync and for a message to a peer.
pub const ENTRY_BYTES_TARGET: usize = 512 << 10;
/// Largest entry, as bytes of its ops in a message (`weir_log::Op::bytes`): three quarters of a message to a
/// follower, so that waiting entries fit, too. Larger entries are refused before anything is computed on
/// them.
pub const ENTRY_BYTES_MAX: usize = 24 << 20;
/// Bytes of the requests in an entry together; a larger request is refused. The rest of the entry is for the
/// proposer: windows of producers, and growth of incompressible batches by merging.
pub const REQUEST_BYTES_MAX: usize = ENTRY_BYTES_MAX - (2 << 20);
/// Bytes of an op in a message beside its batch, key and value: numbers in their longest form, 53 of an
/// append.
pub const OP_HEAD_BYTES_MAX: usize = 64;
/// Bytes of a producer's row with its key: five batches of a sequence, a span and an offset, and its own
/// numbers.
pub const PRODUCER_ROW_BYTES_MAX: usize = 256;
/// Largest row with its key: a value of a module's state, or the description of a group of a thousand
/// members.
pub const ROW_BYTES_MAX: usize = GROUP_ROW_BYTES_MAX + (8 << 10);
/// Bytes that a record or a timer may produce in a pipeline, all outputs and dead letters together: three of
/// the largest.
pub const RECORD_EFFECTS_BYTES_MAX: usize = 12 << 20;
/// Bytes that a batch may produce in a pipeline before compression: four outputs that each get all of the
/// largest batch.
pub const BATCH_EFFECTS_BYTES_MAX: usize = 4 * BATCH_INFLATED_BYTES_MAX;
/// Bytes of state that a batch or a call may change in all stages of its pipeline.
pub const STEP_STATE_BYTES_MAX: usize = 2 * STATE_CHANGES_BYTES_MAX;
/// Produce requests that wait for the proposer.
pub const PROPOSER_QUEUE_MAX: usize = 4_096;
/// Changes of rows that wait for the proposer: committed offsets, groups, topics. Others wait outside.
pub const PROPOSER_CHANGES_MAX: usize = 1_024;
/// Bytes of unanswered produce requests on a node.
pub const PRODUCE_INFLIGHT_BYTES_MAX: usize = 24 << 20;
/// Largest batches, without a producer id, that are merged into a single row per entry.
pub const MERGE_BYTES_MAX: usize = 16 << 10;

/// Segments of the value log open for reading: more than readers, few beside the connections.
pub const VALUE_FILES_OPEN_MAX: usize = 16;
/// Entries kept for slow followers before a purge: ten minutes at 20 ms of linger.
pub const RAFT_LOG_ENTRIES_MAX: u64 = 32_768;
/// Payload bytes of the entries kept for slow followers. Payloads belong to their partitions anyway: this
/// bounds the entries that a follower gets before it gets a snapshot.
pub const RAFT_LOG_BYTES_MAX: usize = 256 << 20;
/// Bytes of a group's last entries in memory, for followers and for applying. Entries not yet flushed or
/// applied stay in any case, bounded by the proposals under way.
pub const RAFT_TAIL_BYTES_MAX: usize = 8 << 20;
/// Payload bytes of a message to a follower: two entries of the proposer's target.
pub const REPLICATE_BYTES_MAX: usize = 1 << 20;
/// Entries in a message to a follower.
pub const REPLICATE_ENTRIES_MAX: u64 = 64;
/// Unanswered messages to a follower.
pub const REPLICATE_INFLIGHT_MAX: usize = 16;
/// Largest message between replicas: the largest entry, with the entries that share its message.
pub const REPLICA_MESSAGE_BYTES_MAX: usize = 36 << 20;
/// Bytes of a message beside its entries: a vote and two ids. Each entry has an id and a list of removed
/// batches, counted with their ops.
pub const REPLICA_MESSAGE_HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest message between replicas that is sent in parts of up to [`REPLICA_MESSAGE_BYTES_MAX`]: an entry
/// from before the limit on entries. The largest known had 459 MiB.
pub const REPLICA_PARTS_BYTES_MAX: usize = 768 << 20;
/// Bytes of rows or batches in a message of a snapshot, plus at most a batch.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a snapshot's rows, which the receiver gathers before the installation: the sum of
/// [`SNAPSHOT_BUDGET`]. 10,000 partitions with their producers and groups take a thirtieth.
pub const SNAPSHOT_STATE_BYTES_MAX: usize = 704 << 20;
/// Nodes of a site (1 to 5 gateways; centrally more). All of them are in the site's group, so this also
/// bounds its followers.
pub const MEMBERS_MAX: usize = 16;
/// Voters of the site's group: two may fail, and more voters would only make every entry wait for more disks.
/// Kafka's controllers and etcd have the same bound.
pub const VOTERS_MAX: usize = 5;
/// Replica groups of a site beside its own: each costs its members a heartbeat and a thread. A node leads a
/// few.
pub const REPLICA_GROUPS_MAX: usize = 32;
/// Offsets reserved ahead per partition in the watermark file: a second of the fastest measured load times
/// sixteen.
pub const OFFSET_RESERVE: u64 = 1 << 24;

/// Producers remembered on a node; the longest silent is forgotten first. Redpanda's limit is 100,000 on
/// nodes of far more memory.
pub const PRODUCERS_MAX: usize = 10_000;
/// Batches remembered per producer and partition: as many as Kafka allows in flight.
pub const PRODUCER_WINDOW: usize = 5;
/// Remembered idempotent producers of an account, so that others are not forgotten for them.
pub const PRODUCERS_PER_ACCOUNT_MAX: usize = PRODUCERS_MAX / 2;
/// Committed offsets kept for all groups.
pub const GROUP_OFFSETS_MAX: usize = 100_000;
/// Longest name of a consumer group.
pub const GROUP_NAME_BYTES_MAX: usize = 249;

/// Consumer groups on a node: each has a row and a few hundred bytes.
pub const GROUPS_MAX: usize = 10_000;
/// Members of a group, including those that only have an id.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Metadata of a member, in all of its protocols.
pub const MEMBER_BYTES_MAX: usize = 256 << 10;
/// Metadata and assignments of all groups in memory, beyond which no new member joins.
pub const GROUPS_BYTES_MAX: usize = 64 << 20;
/// Largest row of a group: all members' metadata and assignments. Part of an entry's header.
pub const GROUP_ROW_BYTES_MAX: usize = 1 << 20;
/// Longest metadata of a committed offset (Kafka's `offset.metadata.max.bytes`).
pub const OFFSET_METADATA_BYTES_MAX: usize = 4 << 10;

/// Largest request of a Kafka client. Kafka allows 100 MB; our requests hold batches of at most 4 MiB, a
/// single batch per partition.
pub const KAFKA_REQUEST_BYTES_MAX: usize = 16 << 20;
/// Bytes of requests being received, over all listeners. Kafka's up to [`KAFKA_SMALL_BYTES`] and QUIC's up to
/// [`QUIC_SMALL_BYTES`] do not count.
pub const REQUESTS_BYTES_MAX: usize = 40 << 20;
/// Bytes of received Kafka requests larger than [`KAFKA_SMALL_BYTES`], other than records, that wait for
/// earlier ones of their connection. The largest real requests are assignments of groups. Beyond, connections
/// end.
pub const WAITING_BYTES_MAX: usize = 8 << 20;
/// Largest Kafka request that is read to its end and refused, so that its connection stays (Kafka's
/// `socket.request.max.bytes`).
pub const KAFKA_SKIPPED_BYTES_MAX: usize = 100 << 20;
/// Kinds of unserved requests that are counted apart, by request, version and client: a site has a few
/// clients.
pub const UNSERVED_MAX: usize = 200;
/// Largest request that is received without a reservation: ten thousand connections bound the total.
pub const KAFKA_SMALL_BYTES: usize = 8 << 10;
/// Bytes of records being read or sent, over all listeners. Beyond, a fetch waits, and after a while gets
/// nothing: a client that does not read its answer slows others down, but stops nobody.
pub const ANSWERS_BYTES_MAX: usize = 64 << 20;
/// Bytes of strongly compressed batches during validation: four of the largest, each for some milliseconds.
pub const UNPACKED_BYTES_MAX: usize = 64 << 20;
/// Bytes of decompressed batches being read over HTTP.
pub const INFLATED_BYTES_MAX: usize = 64 << 20;
/// Largest frame over QUIC that is received without a reservation: the number of streams bounds the total.
pub const QUIC_SMALL_BYTES: usize = 16 << 10;
/// Largest head of a request over QUIC, without records and modules: the text of a pipeline, also of a text
/// refused for its length. As a list of the shortest settings it takes some 12 MiB of memory.
pub const REQUEST_HEAD_BYTES_MAX: usize = 2 * PIPELINE_TEXT_BYTES_MAX;
/// Kafka connections: an idle connection costs some kilobytes.
pub const KAFKA_CONNECTIONS_MAX: usize = 12_000;
/// Requests of a Kafka connection that wait for their answers.
pub const KAFKA_PIPELINE_MAX: usize = 64;

/// HTTP connections: an idle connection costs some tens of kilobytes.
pub const HTTP_CONNECTIONS_MAX: usize = 1_024;
/// Files reserved for the log, modules and peers; half of a small limit.
pub const FILES_RESERVE: usize = 512;
/// Connections of clients over QUIC; each costs its receive windows.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Connections over QUIC without an identity yet.
pub const CONNECTIONS_NEW_MAX: usize = 512;
/// Reserved connections of nodes of the site: two of each, during a replacement.
pub const CONNECTIONS_OF_NODES_MAX: usize = 2 * MEMBERS_MAX;
/// Connections of nodes outside of the site that may join: a few at once.
pub const CONNECTIONS_OF_STRANGERS_MAX: usize = 16;
/// Modules being uploaded over QUIC: each may have the largest size.
pub const UPLOADS_MAX: usize = 2;
/// Answers of a connection, other than to writes and reads, that are made before their turn: each may be a
/// list of ten thousand partitions.
pub const CONNECTION_ANSWERS_MAX: usize = 2;
/// Requests in flight on a connection.
pub const CONNECTION_REQUESTS_MAX: usize = 256;

/// Largest component: SpiderMonkey and CPython builds reach 19 MB.
pub const MODULE_BYTES_MAX: usize = 24 << 20;
/// Longest text of a module about itself or about an error: a screen of words.
pub const MODULE_TEXT_BYTES_MAX: usize = 4 << 10;
/// Longest name of a module's parameter or output.
pub const MODULE_NAME_BYTES_MAX: usize = 249;
/// Parameters of a module: the largest ready-made module has nine.
pub const MODULE_PARAMETERS_MAX: usize = 64;
/// Longest text of a pipeline, in TOML: a table of a thousand lines for `enrich` takes about a quarter.
pub const PIPELINE_TEXT_BYTES_MAX: usize = 256 << 10;
/// Labels of the same bytes: their row is as long as a module's description.
pub const MODULE_LABELS_MAX: usize = 16;
/// Modules kept on a node.
pub const MODULES_MAX: usize = 256;
/// Bytes of all modules: part of the site's state, which a new node receives whole.
pub const MODULES_BYTES_MAX: usize = 128 << 20;
/// Bytes of a module in a frame, so that an upload never holds back its connection.
pub const MODULE_CHUNK_BYTES: usize = 1 << 20;
/// Pipelines on a node: each has a thread's worth of queue and an instance of about a megabyte.
pub const PIPELINES_MAX: usize = 128;
/// Bytes of memory of all pipelines' state on the node that leads their sources, stored and evicted rows
/// included. They are rows of a snapshot's state, too, beside the modules.
pub const STATE_BYTES_MAX: usize = 96 << 20;
/// Bytes of keys and values that a batch may change in a stage's state: part of the records' entry.
pub const STATE_CHANGES_BYTES_MAX: usize = 2 << 20;
/// Bytes that wait for a partition of another replica group, beyond which pipelines wait. Minutes of a
/// gateway's stream, and little beside a topic.
pub const OUTBOX_BYTES_MAX: u64 = 64 << 20;
/// Partitions of a pipeline with instances and tables in memory: an instance takes about a megabyte.
pub const STATEFUL_PARTITIONS_MAX: usize = 64;
/// Timers passed to a module in a call: as many as a large batch has records.
pub const TIMERS_FIRED_MAX: usize = 1_000;
/// Undecided steps of a pipeline without a batch: enough to keep the disk busy while the next is computed.
pub const STEPS_UNDECIDED_MAX: usize = 4;
/// Such steps of all pipelines at the proposer: they must not displace produce requests.
pub const STEPS_QUEUED_MAX: usize = 256;
/// Bytes of such steps: half of the producers' limit in flight, which waits behind them.
pub const STEPS_QUEUED_BYTES_MAX: usize = PRODUCE_INFLIGHT_BYTES_MAX / 2;
/// Active partitions of a log pipeline without state: each has a session, a position in its sources, and
/// unprocessed records.
pub const LOG_PARTITIONS_MAX: usize = 512;
/// Partitions of a thread that keep unprocessed records until their turn: the others read them again, which
/// is cheaper than the memory.
pub const HOLDING_PARTITIONS_MAX: usize = 16;
/// Bytes that a log pipeline reads of a partition at once: half an entry, since the output is often as large.
pub const LOG_TURN_BYTES: usize = ENTRY_BYTES_TARGET / 2;
/// Topics read by a pipeline.
pub const SOURCES_MAX: usize = 8;
/// Threads of a log pipeline.
pub const PIPELINE_THREADS_MAX: usize = 8;
/// Kept revisions of a pipeline: a revision per week for a year.
pub const REVISIONS_MAX: u64 = 52;
/// Stages of a pipeline.
pub const STAGES_MAX: usize = 16;
/// Batches that wait for a pipeline.
pub const PIPELINE_QUEUE_MAX: usize = 256;
/// Outputs of a module: routes are a byte, 1 to 250.
pub const OUTPUTS_MAX: usize = 250;

/// Bytes of metadata beside committed offsets, over all groups.
pub const OFFSETS_METADATA_BYTES_MAX: usize = 16 << 20;
/// Bytes of the rows of all pipelines.
pub const PIPELINES_BYTES_MAX: usize = 32 << 20;
/// Bytes of a pipeline's kept revisions beside the last: fewer, the larger they are.
pub const REVISIONS_BYTES_MAX: usize = 128 << 10;
/// Rows of log pipelines' positions: a row for each source and partition.
pub const PLACES_MAX: usize = 64 << 10;
/// Rows of a group's time index, a row per MiB of records: 4 TiB.
const TIME_INDEX_ROWS: usize = 4 << 20;
/// Rows of a group's gaps. Damage and eviction make them, and expiry removes them.
const GAP_ROWS: usize = 512 << 10;
/// Bytes of a small row and its key: some numbers.
const SMALL_ROW_BYTES: usize = 64;
/// Bytes of a row with a name in its value or key, beside the name.
const NAMED_ROW_BYTES: usize = 256;

/// Bytes of each kind of row that a group's replicas share: together the state of a snapshot, which its
/// receiver holds in memory.
pub const SNAPSHOT_BUDGET: [(&str, usize); 27] = [
    ("Members", MEMBERS_MAX * 4 * NAMED_ROW_BYTES),
    ("Position", PARTITIONS_MAX as usize * SMALL_ROW_BYTES),
    ("Gap", GAP_ROWS * 22),
    ("TimeIndex", TIME_INDEX_ROWS * 21),
    (
        "Topic",
        TOPICS_MAX * (2 * TOPIC_NAME_BYTES_MAX + NAMED_ROW_BYTES + TOPIC_SETTINGS_BYTES_MAX)
            + PARTITIONS_MAX as usize * 5,
    ),
    ("Producer", PRODUCERS_MAX * (PRODUCER_ROW_BYTES_MAX + 16)),
    (
        "GroupOffset",
        GROUP_OFFSETS_MAX * (GROUP_NAME_BYTES_MAX + SMALL_ROW_BYTES) + OFFSETS_METADATA_BYTES_MAX,
    ),
    ("Counter", 256 * SMALL_ROW_BYTES),
    ("Pipeline", PIPELINES_BYTES_MAX),
    (
        "Module",
        MODULES_MAX
            * (MODULE_TEXT_BYTES_MAX
                + (MODULE_LABELS_MAX + MODULE_PARAMETERS_MAX) * 2 * MODULE_NAME_BYTES_MAX),
    ),
    ("Group", GROUPS_BYTES_MAX),
    (
        "ModulePart",
        MODULES_BYTES_MAX + MODULES_MAX * 32 * SMALL_ROW_BYTES,
    ),
    ("Site", 256 * NAMED_ROW_BYTES),
    ("ReplicaGroup", REPLICA_GROUPS_MAX * NAMED_ROW_BYTES),
    ("Leader", REPLICA_GROUPS_MAX * NAMED_ROW_BYTES),
    ("Located", PARTITIONS_MAX as usize * SMALL_ROW_BYTES),
    ("Move", PARTITIONS_MAX as usize * SMALL_ROW_BYTES),
    ("Sealed", PARTITIONS_MAX as usize * SMALL_ROW_BYTES),
    ("Heeded", REPLICA_GROUPS_MAX * SMALL_ROW_BYTES),
    // With the timers, which share the quota.
    ("Table", STATE_BYTES_MAX),
    ("Timer", 0),
    (
        "Progress",
        PIPELINES_MAX * LOG_PARTITIONS_MAX * (TOPIC_NAME_BYTES_MAX + SMALL_ROW_BYTES),
    ),
    ("Input", PLACES_MAX * (2 * TOPIC_NAME_BYTES_MAX + SMALL_ROW_BYTES)),
    // Each keeps its last, whatever the size.
    (
        "Revision",
        PIPELINES_MAX * REVISIONS_BYTES_MAX + 2 * PIPELINES_BYTES_MAX,
    ),
    (
        "Channel",
        REPLICA_GROUPS_MAX * PARTITIONS_MAX as usize * SMALL_ROW_BYTES,
    ),
    ("StoredAt", PARTITIONS_MAX as usize * 32 * 24),
    ("Age", REPLICA_GROUPS_MAX * SMALL_ROW_BYTES),
];

const _: () = {
    assert!(BATCH_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(BATCH_BYTES_MAX <= BATCH_INFLATED_BYTES_MAX);
    assert!(ENTRY_BYTES_TARGET <= GROUP_COMMIT_BYTES_MAX);
    assert!(BATCH_BYTES_MAX <= PRODUCE_INFLIGHT_BYTES_MAX);
    assert!(WRITER_QUEUE_MAX >= PROPOSER_QUEUE_MAX);
    assert!(MERGE_BYTES_MAX < ENTRY_BYTES_TARGET);
    assert!(FETCH_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(FETCH_BYTES_MAX >= BATCH_BYTES_MAX);
    // The largest legal entry fits a message to a follower, with the entries sent along.
    assert!(
        REPLICATE_BYTES_MAX + ENTRY_BYTES_MAX + REPLICA_MESSAGE_HEAD_BYTES_MAX <= REPLICA_MESSAGE_BYTES_MAX
    );
    assert!(REPLICATE_ENTRIES_MAX as usize * 2 * OP_HEAD_BYTES_MAX <= REPLICA_MESSAGE_HEAD_BYTES_MAX);
    // Each kind of request fits an entry with the proposer's additions.
    assert!(
        REQUEST_BYTES_MAX + PROPOSER_QUEUE_MAX * (PRODUCER_ROW_BYTES_MAX + OP_HEAD_BYTES_MAX)
            <= ENTRY_BYTES_MAX - REQUEST_BYTES_MAX / 64
    );
    assert!(BATCH_BYTES_MAX + RECORD_EFFECTS_BYTES_MAX + STEP_STATE_BYTES_MAX < REQUEST_BYTES_MAX);
    assert!(ROW_BYTES_MAX <= REQUEST_BYTES_MAX);
    // A read of the log and its output, beside a full target.
    assert!(ENTRY_BYTES_TARGET + RECORD_EFFECTS_BYTES_MAX + STEP_STATE_BYTES_MAX < REQUEST_BYTES_MAX);
    assert!(RECORD_EFFECTS_BYTES_MAX >= 3 * RECORD_BYTES_MAX);
    assert!(REPLICA_PARTS_BYTES_MAX < u32::MAX as usize / 2);
    let (mut kind, mut all) = (0, 0);
    while kind < SNAPSHOT_BUDGET.len() {
        all += SNAPSHOT_BUDGET[kind].1;
        kind += 1;
    }
    assert!(all <= SNAPSHOT_STATE_BYTES_MAX);
    // A single address may have half.
    assert!(KAFKA_REQUEST_BYTES_MAX <= REQUESTS_BYTES_MAX / 2 && FRAME_BYTES_MAX <= REQUESTS_BYTES_MAX / 2);
    assert!(FETCH_BYTES_MAX <= ANSWERS_BYTES_MAX / 2 && BATCH_INFLATED_BYTES_MAX <= INFLATED_BYTES_MAX / 2);
    assert!(BATCH_INFLATED_BYTES_MAX <= UNPACKED_BYTES_MAX / 2);
    assert!(BATCH_BYTES_MAX <= PRODUCE_INFLIGHT_BYTES_MAX / 4);
    assert!(UPLOADS_MAX >= 2);
    assert!(BATCH_BYTES_MAX < KAFKA_REQUEST_BYTES_MAX);
};
