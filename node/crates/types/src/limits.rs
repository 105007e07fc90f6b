//! Every bound in one place. Each says where its number comes from; relations are checked at compile time.

/// Longest topic name in bytes (Kafka's limit, which leaves room for a partition suffix in a file name).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Most topics on a node: listing and describing them stays one frame.
pub const TOPICS_MAX: usize = 10_000;
/// Bytes of the settings of one topic that change nothing, names and values: three times what all of them come to with usual values.
pub const TOPIC_SETTINGS_BYTES_MAX: usize = 2 << 10;
/// Names of topics that were refused lately and are remembered: a tool makes a few hundred at most.
pub const REFUSED_TOPICS_MAX: usize = 1_000;
/// Most partitions of one topic, and of a node (DESIGN.md section 2: ten thousand cost only their positions).
pub const PARTITIONS_MAX: u32 = 10_000;

/// Largest record batch that is taken in, as stored. Kafka's default `message.max.bytes` is 1 MiB; factory images
/// are larger, and a batch must fit in a frame and in the memory of a small gateway several times.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Most bytes that one batch may hold after decompression.
pub const BATCH_INFLATED_BYTES_MAX: usize = 16 << 20;
/// What a batch is expected to become for each byte of it, at most: real sensor JSON reaches 20. For more it takes room from the node's
/// ledger first.
pub const INFLATE_RATIO_USUAL: usize = 64;
/// And at least, whatever its size: small batches of equal readings compress very well.
pub const INFLATE_FREE_BYTES: usize = 1 << 20;
/// Most records in one batch; also bounds the indexes that cross to a guest.
pub const BATCH_RECORDS_MAX: u32 = 100_000;
/// Most headers on one record: ten times what clients are known to send. A header of nothing has two bytes in a batch and fifty as text.
pub const RECORD_HEADERS_MAX: u32 = 10_000;
/// Largest record that a module may make: a batch of it alone keeps room for its header, and for what a dead letter says.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - (64 << 10);

/// Largest frame of the client protocol: one batch, its envelope and some room.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + (64 << 10);
/// Largest first frame, read before anything is known of the other side.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Largest answer to one fetch.
pub const FETCH_BYTES_MAX: usize = 4 << 20;
/// Longest wait of a fetch for new records, in milliseconds.
pub const FETCH_WAIT_MS_MAX: u64 = 60_000;

/// Commands waiting for the log's writer thread: more than there can be requests, so that handing over never waits.
pub const WRITER_QUEUE_MAX: usize = 8_192;
/// One group commit takes entries until they hold this many bytes: at 512 KiB a sync costs less than the writing.
pub const GROUP_COMMIT_BYTES_MAX: usize = 4 << 20;
/// Largest entry that the proposer builds: a good size for one sync and for one message to a peer.
pub const ENTRY_BYTES_TARGET: usize = 512 << 10;
/// Largest entry, as the bytes that its ops take in a message (`weir_log::Op::bytes`): three quarters of a message to a
/// follower, so that what waited before it fits, too. What would be larger is refused before anything is computed on it.
pub const ENTRY_BYTES_MAX: usize = 24 << 20;
/// What the requests of one entry may take together; one that is larger alone is refused. The rest of the entry is for what
/// the proposer adds: windows of producers, and what merging may add to batches that do not compress.
pub const REQUEST_BYTES_MAX: usize = ENTRY_BYTES_MAX - (2 << 20);
/// Bytes that an op takes in a message beside its batch, key and value: numbers in their longest form, 53 of an append.
pub const OP_HEAD_BYTES_MAX: usize = 64;
/// The row of a producer's window, its key included: five batches of a sequence, a span and an offset, and its own numbers.
pub const PRODUCER_ROW_BYTES_MAX: usize = 256;
/// Largest row, its key included: a value of a module's state, or what describes a group of a thousand members, and a key.
pub const ROW_BYTES_MAX: usize = GROUP_ROW_BYTES_MAX + (8 << 10);
/// What one record, or one timer, may come to in a pipeline, all outputs and dead letters together: three of the largest.
pub const RECORD_EFFECTS_BYTES_MAX: usize = 12 << 20;
/// What a batch may come to in a pipeline before it is compressed: four outputs that each get all of the largest batch.
pub const BATCH_EFFECTS_BYTES_MAX: usize = 4 * BATCH_INFLATED_BYTES_MAX;
/// What a batch or a call may change of what all stages of its pipeline remember.
pub const STEP_STATE_BYTES_MAX: usize = 2 * STATE_CHANGES_BYTES_MAX;
/// Produce requests waiting for the proposer.
pub const PROPOSER_QUEUE_MAX: usize = 4_096;
/// Changes of rows waiting for the proposer: committed offsets, groups, topics. Others wait outside.
pub const PROPOSER_CHANGES_MAX: usize = 1_024;
/// Bytes of produce requests taken in and not yet answered, for the whole node.
pub const PRODUCE_INFLIGHT_BYTES_MAX: usize = 24 << 20;
/// Small batches up to this size and without a producer id are merged into one row per entry.
pub const MERGE_BYTES_MAX: usize = 16 << 10;

/// Files of the value log that are open for reading: more than there are readers, few beside the connections.
pub const VALUE_FILES_OPEN_MAX: usize = 16;
/// Entries kept for followers that are behind, after which they are purged: ten minutes at 20 ms of linger.
pub const RAFT_LOG_ENTRIES_MAX: u64 = 32_768;
/// Payload of the entries kept for followers (DESIGN.md section 2). Payloads belong to their partitions all the same:
/// this bounds what a follower is sent entry by entry before it is sent a snapshot.
pub const RAFT_LOG_BYTES_MAX: usize = 256 << 20;
/// Bytes of a group's last entries in memory, for followers and for applying; what is not yet flushed or applied is
/// there whatever its size, bounded by what may be in flight.
pub const RAFT_TAIL_BYTES_MAX: usize = 8 << 20;
/// Payload in one message to a follower: two entries of the proposer's target.
pub const REPLICATE_BYTES_MAX: usize = 1 << 20;
/// Entries in one message to a follower.
pub const REPLICATE_ENTRIES_MAX: u64 = 64;
/// Messages to a follower that it has not answered yet.
pub const REPLICATE_INFLIGHT_MAX: usize = 16;
/// Largest message between replicas: the largest entry, behind as many others as share a message with it.
pub const REPLICA_MESSAGE_BYTES_MAX: usize = 36 << 20;
/// What a message has beside its entries: a vote and two ids. Each entry has an id and a list of what is gone, whose items are
/// counted with their ops.
pub const REPLICA_MESSAGE_HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest message between replicas that is sent in parts, each no larger than [`REPLICA_MESSAGE_BYTES_MAX`]: an entry that was
/// made before entries had a bound. The largest that was seen had 459 MiB.
pub const REPLICA_PARTS_BYTES_MAX: usize = 768 << 20;
/// Bytes of rows or batches in one message of a snapshot, and at most a batch more.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Rows of a snapshot's state, which the receiver gathers before it installs them: the sum of [`SNAPSHOT_BUDGET`]. 10,000 partitions with
/// their producers and groups take a thirtieth.
pub const SNAPSHOT_STATE_BYTES_MAX: usize = 704 << 20;
/// Nodes of a site (DESIGN.md section 1: 1 to 5 gateways; centrally more). All of them have the site's group, so this is
/// also what its leader sends everything to.
pub const MEMBERS_MAX: usize = 16;
/// Of them, those that vote in the site's group: two may fail, and a third more would only make every entry wait for
/// more disks (Kafka's controllers and etcd are at most so many, too).
pub const VOTERS_MAX: usize = 5;
/// Replica groups of a site beside its own: each costs its members a heartbeat and a thread. A node leads a few.
pub const REPLICA_GROUPS_MAX: usize = 32;
/// Offsets reserved ahead per partition in the watermark file: a second of the fastest measured load times sixteen.
pub const OFFSET_RESERVE: u64 = 1 << 24;

/// Producers remembered on a node; the longest silent goes first (Redpanda's limit is 100,000 per node of far more
/// memory).
pub const PRODUCERS_MAX: usize = 10_000;
/// Batches remembered per producer and partition: as many as Kafka lets be in flight.
pub const PRODUCER_WINDOW: usize = 5;
/// Idempotent producers of one account that are remembered: somebody else's must not be forgotten for them.
pub const PRODUCERS_PER_ACCOUNT_MAX: usize = PRODUCERS_MAX / 2;
/// Committed offsets kept for all groups.
pub const GROUP_OFFSETS_MAX: usize = 100_000;
/// Longest name of a consumer group.
pub const GROUP_NAME_BYTES_MAX: usize = 249;

/// Consumer groups on a node: each has a row and a few hundred bytes.
pub const GROUPS_MAX: usize = 10_000;
/// Members of one group, those included that were only promised an id.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Metadata of one member, in all protocols that it speaks.
pub const MEMBER_BYTES_MAX: usize = 256 << 10;
/// Metadata and assignments of all groups in memory, beyond which nobody new joins.
pub const GROUPS_BYTES_MAX: usize = 64 << 20;
/// Largest row of a group: all members' metadata and assignments. It is part of an entry's header.
pub const GROUP_ROW_BYTES_MAX: usize = 1 << 20;
/// Longest metadata of one committed offset (Kafka's `offset.metadata.max.bytes`).
pub const OFFSET_METADATA_BYTES_MAX: usize = 4 << 10;

/// Largest request of a Kafka client. Kafka takes 100 MB; ours hold batches of at most 4 MiB, one a partition.
pub const KAFKA_REQUEST_BYTES_MAX: usize = 16 << 20;
/// Bytes of requests that are being received at once, over all listeners; Kafka's up to [`KAFKA_SMALL_BYTES`] and QUIC's up to
/// [`QUIC_SMALL_BYTES`] do not count.
pub const REQUESTS_BYTES_MAX: usize = 40 << 20;
/// Bytes of Kafka requests larger than [`KAFKA_SMALL_BYTES`], other than records, that have come and wait for their turn
/// behind others of their connection: the largest real ones are assignments of groups. Beyond, connections end.
pub const WAITING_BYTES_MAX: usize = 8 << 20;
/// Largest Kafka request that is read to its end and refused, so that its connection goes on (Kafka's `socket.request.max.bytes`).
pub const KAFKA_SKIPPED_BYTES_MAX: usize = 100 << 20;
/// Kinds of requests that are not served and are counted apart, by request, version and client: a site has a few clients.
pub const UNSERVED_MAX: usize = 200;
/// Requests up to this size need no leave to be received: ten thousand connections of them are bounded by themselves.
pub const KAFKA_SMALL_BYTES: usize = 8 << 10;
/// Bytes of records that are being read or sent at once, over all listeners. Beyond, a fetch waits, and gets none after a while: a
/// client that does not take its answer makes others slower, and stops nobody.
pub const ANSWERS_BYTES_MAX: usize = 64 << 20;
/// Bytes of batches that come in compressed and become much, while they are looked at: four of the largest, each for some milliseconds.
pub const UNPACKED_BYTES_MAX: usize = 64 << 20;
/// Bytes of batches that are read over HTTP, while they are not compressed.
pub const INFLATED_BYTES_MAX: usize = 64 << 20;
/// Frames of clients over QUIC up to this size need no leave to be received: as many as there may be streams are bounded by themselves.
pub const QUIC_SMALL_BYTES: usize = 16 << 10;
/// Largest head of a request over QUIC, records and modules not counted: the text of a pipeline, also of one that is refused for
/// its length in its own words. As a list of the shortest settings it takes some 12 MiB of memory.
pub const REQUEST_HEAD_BYTES_MAX: usize = 2 * PIPELINE_TEXT_BYTES_MAX;
/// Kafka connections at once: an idle one costs some kilobytes.
pub const KAFKA_CONNECTIONS_MAX: usize = 12_000;
/// Requests of one Kafka connection that wait for their turn to be answered.
pub const KAFKA_PIPELINE_MAX: usize = 64;

/// HTTP connections at once: an idle one costs some tens of kilobytes.
pub const HTTP_CONNECTIONS_MAX: usize = 1_024;
/// Files that are kept for the log, modules and peers, whatever clients do; of a small limit, half.
pub const FILES_RESERVE: usize = 512;
/// Connections of clients over QUIC at once; each costs its receive windows.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Connections over QUIC that have not said yet who they are.
pub const CONNECTIONS_NEW_MAX: usize = 512;
/// Connections of nodes of the site, which nobody else may use: two of each, while one takes the place of another.
pub const CONNECTIONS_OF_NODES_MAX: usize = 2 * MEMBERS_MAX;
/// Connections of nodes that are none of the site's, and may become so: a few joins at once.
pub const CONNECTIONS_OF_STRANGERS_MAX: usize = 16;
/// Modules that are being uploaded over QUIC at once: each may take its largest size.
pub const UPLOADS_MAX: usize = 2;
/// Answers of one connection, other than to what is written and read, that are made ahead of their turn to be sent: each may be a
/// list of ten thousand partitions.
pub const CONNECTION_ANSWERS_MAX: usize = 2;
/// Requests in flight on one connection.
pub const CONNECTION_REQUESTS_MAX: usize = 256;

/// Largest component that may be pushed: SpiderMonkey and CPython builds reach 19 MB.
pub const MODULE_BYTES_MAX: usize = 24 << 20;
/// Longest text that a module says of itself or of what happened to it: a screen of words.
pub const MODULE_TEXT_BYTES_MAX: usize = 4 << 10;
/// Longest name of a parameter or of an output of a module.
pub const MODULE_NAME_BYTES_MAX: usize = 249;
/// Parameters of one module: the largest ready-made one has nine.
pub const MODULE_PARAMETERS_MAX: usize = 64;
/// Longest text of a pipeline, in TOML: a table of a thousand lines for `enrich` takes about a quarter.
pub const PIPELINE_TEXT_BYTES_MAX: usize = 256 << 10;
/// Labels of the same bytes: a row of them is as long as what a module says of itself.
pub const MODULE_LABELS_MAX: usize = 16;
/// Modules kept on a node.
pub const MODULES_MAX: usize = 256;
/// Bytes of all modules: they are part of the site's state, which a new node is sent whole.
pub const MODULES_BYTES_MAX: usize = 128 << 20;
/// Part of a module in one frame, so that an upload never holds back the rest of a connection.
pub const MODULE_CHUNK_BYTES: usize = 1 << 20;
/// Pipelines on a node: each has a thread's worth of queue and an instance of about a megabyte.
pub const PIPELINES_MAX: usize = 128;
/// Bytes of memory that what all pipelines remember may take on the node that leads what they read, stored and put aside rows among
/// them. They are rows of a snapshot's state, too, beside the modules themselves.
pub const STATE_BYTES_MAX: usize = 96 << 20;
/// Bytes of keys and values that one batch may change of what a stage remembers: they are in the entry of its records.
pub const STATE_CHANGES_BYTES_MAX: usize = 2 << 20;
/// What waits for one partition of another replica group: pipelines that write to it wait beyond. Minutes of a gateway's stream,
/// and little beside a topic.
pub const OUTBOX_BYTES_MAX: u64 = 64 << 20;
/// Partitions of one pipeline whose instances and tables are in memory: an instance takes about a megabyte.
pub const STATEFUL_PARTITIONS_MAX: usize = 64;
/// Timers that one call of a module is told of: as many as a large batch has records.
pub const TIMERS_FIRED_MAX: usize = 1_000;
/// Steps of a pipeline that no batch made and that are not decided: enough that the disk has something to do while the next is
/// computed.
pub const STEPS_UNDECIDED_MAX: usize = 4;
/// Those steps of all pipelines that are with the proposer: they must not take the places of produce requests.
pub const STEPS_QUEUED_MAX: usize = 256;
/// And their bytes: half of what producers may have in flight, which waits behind them.
pub const STEPS_QUEUED_BYTES_MAX: usize = PRODUCE_INFLIGHT_BYTES_MAX / 2;
/// Partitions of one pipeline behind the log that are at work, where nothing is remembered: each has a chain and a place in
/// its sources, and what was read and is not used yet.
pub const LOG_PARTITIONS_MAX: usize = 512;
/// Partitions of one of its threads that hold what was read and is not used yet until it is their turn again: the others read it
/// again, which is cheaper than the memory.
pub const HOLDING_PARTITIONS_MAX: usize = 16;
/// Bytes that a pipeline behind the log reads of one partition at once: half an entry, as what it makes of them is often about as
/// much.
pub const LOG_TURN_BYTES: usize = ENTRY_BYTES_TARGET / 2;
/// Topics that one pipeline reads.
pub const SOURCES_MAX: usize = 8;
/// Threads of one pipeline behind the log.
pub const PIPELINE_THREADS_MAX: usize = 8;
/// Revisions of a pipeline that are kept: a year of one a week.
pub const REVISIONS_MAX: u64 = 52;
/// Stages in one pipeline.
pub const STAGES_MAX: usize = 16;
/// Batches waiting for one pipeline.
pub const PIPELINE_QUEUE_MAX: usize = 256;
/// Outputs of one module: routes are a byte, 1 to 250.
pub const OUTPUTS_MAX: usize = 250;

/// Bytes of what consumers commit beside their offsets, over all groups.
pub const OFFSETS_METADATA_BYTES_MAX: usize = 16 << 20;
/// Bytes of the rows of all pipelines.
pub const PIPELINES_BYTES_MAX: usize = 32 << 20;
/// Bytes of the revisions of one pipeline that are kept beside the last: fewer, the larger they are.
pub const REVISIONS_BYTES_MAX: usize = 128 << 10;
/// Rows that say how far pipelines have read: one for each source and partition of a pipeline behind the log.
pub const PLACES_MAX: usize = 64 << 10;
/// Rows of the time index of one group, one for each MiB of its records: 4 TiB.
const TIME_INDEX_ROWS: usize = 4 << 20;
/// Rows of gaps of one group. They come of damage and eviction, and go when records are expired.
const GAP_ROWS: usize = 512 << 10;
/// Bytes of a small row and its key: some numbers.
const SMALL_ROW_BYTES: usize = 64;
/// Bytes of a row with a name in it or in its key, beside the name.
const NAMED_ROW_BYTES: usize = 256;

/// What each kind of row that a group's replicas have in common may come to: together, the state of a snapshot, which whoever gets one
/// holds in memory.
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
    // With the timers, which are in the same quota.
    ("Table", STATE_BYTES_MAX),
    ("Timer", 0),
    (
        "Progress",
        PIPELINES_MAX * LOG_PARTITIONS_MAX * (TOPIC_NAME_BYTES_MAX + SMALL_ROW_BYTES),
    ),
    ("Input", PLACES_MAX * (2 * TOPIC_NAME_BYTES_MAX + SMALL_ROW_BYTES)),
    // Each keeps its last, whatever its size.
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
    // The largest legal entry fits a message to a follower, behind what is sent with it.
    assert!(
        REPLICATE_BYTES_MAX + ENTRY_BYTES_MAX + REPLICA_MESSAGE_HEAD_BYTES_MAX <= REPLICA_MESSAGE_BYTES_MAX
    );
    assert!(REPLICATE_ENTRIES_MAX as usize * 2 * OP_HEAD_BYTES_MAX <= REPLICA_MESSAGE_HEAD_BYTES_MAX);
    // What each kind of request may come to fits an entry with what the proposer adds.
    assert!(
        REQUEST_BYTES_MAX + PROPOSER_QUEUE_MAX * (PRODUCER_ROW_BYTES_MAX + OP_HEAD_BYTES_MAX)
            <= ENTRY_BYTES_MAX - REQUEST_BYTES_MAX / 64
    );
    assert!(BATCH_BYTES_MAX + RECORD_EFFECTS_BYTES_MAX + STEP_STATE_BYTES_MAX < REQUEST_BYTES_MAX);
    assert!(ROW_BYTES_MAX <= REQUEST_BYTES_MAX);
    // What one look at the log may read and make beside what is full already.
    assert!(ENTRY_BYTES_TARGET + RECORD_EFFECTS_BYTES_MAX + STEP_STATE_BYTES_MAX < REQUEST_BYTES_MAX);
    assert!(RECORD_EFFECTS_BYTES_MAX >= 3 * RECORD_BYTES_MAX);
    assert!(REPLICA_PARTS_BYTES_MAX < u32::MAX as usize / 2);
    let (mut kind, mut all) = (0, 0);
    while kind < SNAPSHOT_BUDGET.len() {
        all += SNAPSHOT_BUDGET[kind].1;
        kind += 1;
    }
    assert!(all <= SNAPSHOT_STATE_BYTES_MAX);
    // One address may have half of it.
    assert!(KAFKA_REQUEST_BYTES_MAX <= REQUESTS_BYTES_MAX / 2 && FRAME_BYTES_MAX <= REQUESTS_BYTES_MAX / 2);
    assert!(FETCH_BYTES_MAX <= ANSWERS_BYTES_MAX / 2 && BATCH_INFLATED_BYTES_MAX <= INFLATED_BYTES_MAX / 2);
    assert!(BATCH_INFLATED_BYTES_MAX <= UNPACKED_BYTES_MAX / 2);
    assert!(BATCH_BYTES_MAX <= PRODUCE_INFLIGHT_BYTES_MAX / 4);
    assert!(UPLOADS_MAX >= 2);
    assert!(BATCH_BYTES_MAX < KAFKA_REQUEST_BYTES_MAX);
};
