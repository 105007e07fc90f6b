"""The same requests to a real Kafka and to a node: each API in each version that both serve, with right and wrong arguments, before and
after the thing asked for exists. Error codes, and which fields have something, are compared; a difference that is meant has a reason in
beside.txt, and one that is not ends the run.

    beside.py KAFKA-CLIENTS.JAR KAFKA:PORT NODE:PORT
"""
import collections
import fnmatch
import os
import sys
import time
import uuid

from wire import Connection, Messages, batch

NOW = int(time.time() * 1000)
NO_TOPIC, HERE = "no-such", "here"
NO_ID = uuid.UUID("00000000-0000-4000-8000-000000000abc")


class Side:
    """A broker that is asked."""

    def __init__(self, messages, address):
        self.messages, self.address = messages, address
        self.connection = Connection(messages, address)
        answer = self.connection.call("ApiVersions", 3, {"ClientSoftwareName": "beside", "ClientSoftwareVersion": "1"})
        self.serves = {messages.name(a["ApiKey"]): (a["MinVersion"], a["MaxVersion"]) for a in answer["ApiKeys"]}
        self.node = self.connection.call("Metadata", 1, {"Topics": []})["Brokers"][0]["NodeId"]
        self.ids = {}
        self.producer = -1

    def warm_up(self):
        """Kafka makes what keeps groups and producers' numbers when they are first asked for; until then it says so."""
        deadline = time.time() + 60

        def settled(api, version, value, field="ErrorCode"):
            while time.time() < deadline:
                if self.connection.call(api, version, value)[field] not in (14, 15, 16):
                    return
                time.sleep(0.1)
            raise TimeoutError(f"{api} of {self.address} does not settle")

        settled("FindCoordinator", 3, {"Key": "g", "KeyType": 0})
        settled("OffsetFetch", 7, {"GroupId": "g", "Topics": None})
        settled("InitProducerId", 4, {"TransactionalId": None, "TransactionTimeoutMs": 1000})

    def ask(self, api, version, value):
        try:
            return self.connection.call(api, version, value)
        except (ConnectionError, OSError) as error:
            self.connection = Connection(self.messages, self.address)
            return {"Closed": type(error).__name__ if "timed out" in str(error) else "closed"}


# What is a number with a meaning of its own; of other numbers only the sign is compared.
EXACT = {"BaseOffset", "LastStableOffset", "LogStartOffset", "CommittedOffset", "LowWatermark", "EndOffset", "NumPartitions",
         "ReplicationFactor", "ResourceType", "ConfigSource", "ConfigType", "GenerationId", "Offset"}
# Texts that are compared; of others, whether there is one.
EXACT_TEXT = {"Name", "TopicName", "Topic", "GroupId", "GroupState", "GroupType", "ProtocolType", "ResourceName", "Value"}
KEYS = ("Name", "Topic", "TopicName", "GroupId", "Partition", "PartitionIndex", "ResourceName", "Key")


def shape(name, value):
    if isinstance(value, dict):
        return {field: shape(field, inner) for field, inner in value.items() if field != "ThrottleTimeMs"}
    if isinstance(value, list):
        items = [shape(name, item) for item in value]
        return sorted(items, key=lambda item: str([item.get(key) for key in KEYS]) if isinstance(item, dict) else str(item))
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if name.endswith("ErrorCode") or name in EXACT else ("-" if value < 0 else "n")
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return value if name in EXACT_TEXT or not value else "text"
    if isinstance(value, bytes):
        return "bytes" if value else "no bytes"
    if isinstance(value, uuid.UUID):
        return "no id" if value.int == 0 else "id"
    return repr(value)


def differences(path, kafka, node):
    if isinstance(kafka, dict) and isinstance(node, dict):
        for field in list(kafka) + [field for field in node if field not in kafka]:
            if field not in kafka or field not in node:
                yield f"{path}.{field}", kafka.get(field, "absent"), node.get(field, "absent")
            else:
                yield from differences(f"{path}.{field}", kafka[field], node[field])
    elif isinstance(kafka, list) and isinstance(node, list):
        named = all(isinstance(item, dict) and isinstance(item.get("Name"), str) for item in kafka + node)
        if named and [i["Name"] for i in kafka] != [i["Name"] for i in node]:
            ours, theirs = {i["Name"]: i for i in node}, {i["Name"]: i for i in kafka}
            for name in sorted(set(ours) | set(theirs)):
                yield from differences(f"{path}[{name}]", theirs.get(name, "absent"), ours.get(name, "absent"))
        elif len(kafka) != len(node):
            yield f"{path}.length", len(kafka), len(node)
        else:
            for one, other in zip(kafka, node):
                label = f"[{one['Name']}]" if isinstance(one, dict) and "Name" in one else "[]"
                yield from differences(path + label, one, other)
    elif kafka != node:
        yield path, kafka, node


def topic(side, name, version, by_id_from, fields, label="Name"):
    """A topic's part of a request: by its name, or by its id in the versions that have that."""
    if version >= by_id_from:
        return {"TopicId": side.ids.get(name, NO_ID), **fields}
    return {label: name, **fields}


def metadata(name, form="Name"):
    def make(side, v):
        entry = {"Name": name} if form == "Name" else {"Name": None, "TopicId": side.ids.get(name, NO_ID)}
        return {"Topics": [entry], "AllowAutoTopicCreation": False, "IncludeTopicAuthorizedOperations": True, "IncludeClusterAuthorizedOperations": True}
    return make


def produce(name, partition=0, data=None, acks=-1, txn=None):
    def make(side, v):
        records = batch([b"v"], NOW) if data is None else data(side)
        return {"TransactionalId": txn, "Acks": acks, "TimeoutMs": 5000, "TopicData": [
            topic(side, name, v, 13, {"PartitionData": [{"Index": partition, "Records": records}]})]}
    return make


def fetch(name, offset=0, partition=0, epoch=-1, wait=0):
    return lambda side, v: {"ReplicaId": -1, "MaxWaitMs": wait, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionId": 0, "SessionEpoch": -1, "Topics": [
        topic(side, name, v, 13, {"Partitions": [{"Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20, "CurrentLeaderEpoch": epoch}]}, "Topic")]}


def offsets(name, time, partition=0, epoch=-1):
    return lambda side, v: {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [
        {"PartitionIndex": partition, "Timestamp": time, "CurrentLeaderEpoch": epoch}]}]}


def commit(group, name, offset=1, generation=-1, member="", metadata="m"):
    return lambda side, v: {"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member, "RetentionTimeMs": -1, "Topics": [
        topic(side, name, v, 10, {"Partitions": [{"PartitionIndex": 0, "CommittedOffset": offset, "CommittedMetadata": metadata}]})]}


def committed(group, names):
    def make(side, v):
        topics = None if names is None else [topic(side, name, v, 10, {"PartitionIndexes": [0]}) for name in names]
        return {"GroupId": group, "Topics": topics if names is not None or v >= 2 else [], "Groups": [{"GroupId": group, "Topics": topics}]}
    return make


def created(partitions=1, replicas=1, name=None, configs=(), assignments=(), dry=False):
    def make(side, v):
        own = name if name is not None else f"made-{v}-{partitions}-{replicas}-{len(configs)}-{dry}"
        return {"Topics": [{"Name": own, "NumPartitions": partitions, "ReplicationFactor": replicas, "Configs": [
            {"Name": key, "Value": value} for key, value in configs], "Assignments": [
            {"PartitionIndex": i, "BrokerIds": [side.node if b == "me" else b for b in ids]} for i, ids in enumerate(assignments)]}], "TimeoutMs": 5000, "validateOnly": dry}
    return make


def deleted(name):
    return lambda side, v: {"TopicNames": [name], "Topics": [{"Name": name}], "TimeoutMs": 5000}


def deleted_by_id(side, v):
    return {"TopicNames": [], "Topics": [{"Name": None, "TopicId": NO_ID}], "TimeoutMs": 5000}


def described(kind, name, keys=None):
    return lambda side, v: {"Resources": [{"ResourceType": kind, "ResourceName": str(side.node) if name == "me" else name, "ConfigurationKeys": keys}],
                            "IncludeSynonyms": False, "IncludeDocumentation": False}


def altered(kind, name, configs):
    return lambda side, v: {"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [
        {"Name": key, "Value": value} for key, value in configs]}]}


def incremental(name, *configs, kind=2):
    return lambda side, v: {"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [
        {"Name": key, "ConfigOperation": how, "Value": value} for key, how, value in configs]}]}


def always(value):
    return lambda side, v: value


def join(group, protocols=(("range", b"\0\0\0\0\0\0"),), kind="consumer", session=10000, member=""):
    return lambda side, v: {"GroupId": group, "SessionTimeoutMs": session, "RebalanceTimeoutMs": 1000, "MemberId": member, "ProtocolType": kind,
                            "Protocols": [{"Name": n, "Metadata": m} for n, m in protocols]}


# API, what is asked, how; those of `ABOUT` before and after `here` exists, those of `ONCE` after.
ABOUT = [
    ("Metadata", "by name", metadata(HERE)),
    ("Metadata", "no such name", metadata(NO_TOPIC)),
    ("Metadata", "a bad name", metadata("not/legal")),
    ("Produce", "to it", produce(HERE)),
    ("Produce", "to no such", produce(NO_TOPIC)),
    ("Produce", "to a partition beyond", produce(HERE, 99)),
    ("Fetch", "of it", fetch(HERE)),
    ("Fetch", "of no such", fetch(NO_TOPIC)),
    ("Fetch", "of a partition beyond", fetch(HERE, partition=99)),
    ("Fetch", "beyond its end", fetch(HERE, 1000)),
    ("Fetch", "before its start", fetch(HERE, -5)),
    ("Fetch", "of a later epoch", fetch(HERE, epoch=99)),
    ("ListOffsets", "end", offsets(HERE, -1)),
    ("ListOffsets", "start", offsets(HERE, -2)),
    ("ListOffsets", "largest time", offsets(HERE, -3)),
    ("ListOffsets", "local start", offsets(HERE, -4)),
    ("ListOffsets", "last in the other store", offsets(HERE, -5)),
    ("ListOffsets", "no such meaning", offsets(HERE, -99)),
    ("ListOffsets", "a time", offsets(HERE, 5)),
    ("ListOffsets", "a time to come", offsets(HERE, NOW * 2)),
    ("ListOffsets", "of no such", offsets(NO_TOPIC, -1)),
    ("ListOffsets", "of a partition beyond", offsets(HERE, -1, partition=99)),
    ("ListOffsets", "of a later epoch", offsets(HERE, -1, epoch=99)),
    ("OffsetForLeaderEpoch", "epoch 0", always({"ReplicaId": -1, "Topics": [{"Topic": HERE, "Partitions": [{"Partition": 99, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}]})),
    ("OffsetCommit", "of it", commit("g", HERE)),
    ("OffsetCommit", "of no such", commit("g", NO_TOPIC)),
    ("OffsetCommit", "below zero", commit("g-below", HERE, -2)),
    ("OffsetCommit", "too much beside", commit("g", HERE, metadata="m" * 5000)),
    ("OffsetCommit", "of a generation", commit("g-none", HERE, generation=5, member="x")),
    ("OffsetCommit", "without a group", commit("", HERE)),
    ("OffsetFetch", "of it", committed("g", [HERE])),
    ("OffsetFetch", "below zero", committed("g-below", [HERE])),
    ("OffsetFetch", "of no such", committed("g", [NO_TOPIC])),
    ("OffsetFetch", "of all", committed("g", None)),
    ("OffsetFetch", "of no such group", committed("g-none", [HERE])),
    ("DescribeGroups", "of it", always({"Groups": ["g"], "IncludeAuthorizedOperations": True})),
    ("DescribeGroups", "of no such", always({"Groups": ["g-none"]})),
    ("ListGroups", "all", always({})),
    ("ListGroups", "by type", always({"TypesFilter": ["classic"]})),
    ("ListGroups", "by another type", always({"TypesFilter": ["consumer"]})),
    ("ListGroups", "by state", always({"StatesFilter": ["Stable"]})),
    ("DescribeConfigs", "of a topic", described(2, HERE)),
    ("DescribeConfigs", "of a topic, some", described(2, HERE, ["retention.ms", "no.such"])),
    ("DescribeConfigs", "of no such", described(2, NO_TOPIC)),
    ("DescribeConfigs", "of another node", described(4, "999")),
    ("DescribeConfigs", "of all nodes", described(4, "")),
    ("DescribeConfigs", "of the node, some", described(4, "me", ["num.partitions", "log.cleanup.policy", "min.insync.replicas", "no.such"])),
    ("DescribeConfigs", "of another kind", described(77, "x")),
    ("IncrementalAlterConfigs", "set", incremental(HERE, ("retention.ms", 0, "86400000"))),
    ("IncrementalAlterConfigs", "set what is none", incremental(HERE, ("no.such", 0, "1"))),
    ("IncrementalAlterConfigs", "set a bad value", incremental(HERE, ("retention.ms", 0, "soon"))),
    ("IncrementalAlterConfigs", "delete what is not set", incremental(HERE, ("segment.ms", 1, None))),
    ("IncrementalAlterConfigs", "delete what is none", incremental(HERE, ("no.such", 1, None))),
    ("IncrementalAlterConfigs", "append", incremental(HERE, ("cleanup.policy", 2, "compact"))),
    ("IncrementalAlterConfigs", "subtract", incremental(HERE, ("cleanup.policy", 3, "compact"))),
    ("IncrementalAlterConfigs", "append to no list", incremental(HERE, ("retention.ms", 2, "5"))),
    ("IncrementalAlterConfigs", "no such way", incremental(HERE, ("retention.ms", 9, "5"))),
    ("IncrementalAlterConfigs", "of no such", incremental(NO_TOPIC, ("retention.ms", 0, "1"))),
    ("AlterConfigs", "set", altered(2, HERE, [("retention.ms", "90000000")])),
    ("AlterConfigs", "set what is none", altered(2, HERE, [("no.such", "1")])),
    ("AlterConfigs", "of no such", altered(2, NO_TOPIC, [("retention.ms", "1")])),
    ("CreatePartitions", "as many as there are", always({"Topics": [{"Name": HERE, "Count": 2, "Assignments": None}], "TimeoutMs": 5000})),
    ("CreatePartitions", "fewer", always({"Topics": [{"Name": HERE, "Count": 1, "Assignments": None}], "TimeoutMs": 5000})),
    ("CreatePartitions", "of no such", always({"Topics": [{"Name": NO_TOPIC, "Count": 5, "Assignments": None}], "TimeoutMs": 5000})),
    ("CreatePartitions", "on no such node", always({"Topics": [{"Name": HERE, "Count": 3, "Assignments": [{"BrokerIds": [99]}]}], "TimeoutMs": 5000})),
    ("DeleteRecords", "to the end", always({"Topics": [{"Name": HERE, "Partitions": [{"PartitionIndex": 1, "Offset": -1}]}], "TimeoutMs": 5000})),
    ("DeleteRecords", "beyond the end", always({"Topics": [{"Name": HERE, "Partitions": [{"PartitionIndex": 0, "Offset": 10**9}]}], "TimeoutMs": 5000})),
    ("DeleteRecords", "of no such", always({"Topics": [{"Name": NO_TOPIC, "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}], "TimeoutMs": 300})),
    ("DescribeProducers", "of it", always({"Topics": [{"Name": HERE, "PartitionIndexes": [0]}]})),
    ("DescribeProducers", "of no such", always({"Topics": [{"Name": NO_TOPIC, "PartitionIndexes": [0]}]})),
    ("ElectLeaders", "of it", always({"ElectionType": 0, "TopicPartitions": [{"Topic": HERE, "Partitions": [0]}], "TimeoutMs": 5000})),
    ("ElectLeaders", "of no such", always({"ElectionType": 0, "TopicPartitions": [{"Topic": NO_TOPIC, "Partitions": [0]}], "TimeoutMs": 5000})),
    ("ElectLeaders", "of all", always({"ElectionType": 0, "TopicPartitions": None, "TimeoutMs": 5000})),
    ("ListPartitionReassignments", "all", always({"TimeoutMs": 5000, "Topics": None})),
    ("ListTransactions", "all", always({})),
    ("ListTransactions", "of no such state", always({"StateFilters": ["Nowhere"]})),
    ("DescribeClientQuotas", "all", always({"Components": [], "Strict": False})),
    ("DescribeQuorum", "the one", always({"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]})),
    ("DescribeQuorum", "another", always({"Topics": [{"TopicName": HERE, "Partitions": [{"PartitionIndex": 0}]}]})),
    ("ListConfigResources", "topics", always({"ResourceTypes": [2]})),
    ("ListConfigResources", "nodes", always({"ResourceTypes": [4]})),
    ("DescribeCluster", "it", always({"IncludeClusterAuthorizedOperations": True})),
    ("DescribeAcls", "all", always({"ResourceTypeFilter": 1, "PatternTypeFilter": 1, "Operation": 1, "PermissionType": 1})),
    ("CreateAcls", "one", always({"Creations": [{"ResourceType": 2, "ResourceName": "t", "ResourcePatternType": 3, "Principal": "User:a", "Host": "*", "Operation": 3, "PermissionType": 3}]})),
    ("DeleteAcls", "all", always({"Filters": [{"ResourceTypeFilter": 1, "PatternTypeFilter": 1, "Operation": 1, "PermissionType": 1}]})),
    ("DescribeLogDirs", "of it", always({"Topics": [{"Topic": HERE, "Partitions": [0]}]})),
    ("FindCoordinator", "of a group", always({"Key": "g", "KeyType": 0, "CoordinatorKeys": ["g"]})),
    ("FindCoordinator", "of nothing", always({"Key": "", "KeyType": 0, "CoordinatorKeys": [""]})),
    ("FindCoordinator", "of no kind", always({"Key": "g", "KeyType": 7, "CoordinatorKeys": ["g"]})),
    ("Heartbeat", "of nobody", always({"GroupId": "g-none", "GenerationId": 1, "MemberId": "x"})),
    ("LeaveGroup", "of nobody", always({"GroupId": "g-none", "MemberId": "x", "Members": [{"MemberId": "x"}]})),
    ("SyncGroup", "of nobody", always({"GroupId": "g-none", "GenerationId": 1, "MemberId": "x", "ProtocolType": "consumer", "ProtocolName": "range"})),
    ("JoinGroup", "without a group", join("")),
    ("JoinGroup", "without protocols", join("g-bad", protocols=())),
    ("JoinGroup", "with a short session", join("g-bad", session=10)),
    ("JoinGroup", "as nobody", join("g-bad", member="x")),
    ("DeleteGroups", "no such", always({"GroupsNames": ["g-none"]})),
    ("OffsetDelete", "of no such group", always({"GroupId": "g-none", "Topics": [{"Name": HERE, "Partitions": [{"PartitionIndex": 0}]}]})),
    ("CreateTopics", "one", created()),
    ("CreateTopics", "dry", created(dry=True, configs=[("segment.bytes", "104857600")])),
    ("CreateTopics", "with what is none", created(configs=[("no.such", "1")], name="none-1")),
    ("CreateTopics", "without partitions", created(partitions=0, name="none-2")),
    ("CreateTopics", "with too many replicas", created(replicas=99, name="none-3")),
    ("CreateTopics", "with a bad name", created(name="not/legal")),
    ("CreateTopics", "on no such node", created(partitions=-1, replicas=-1, assignments=[[99]], name="none-4")),
    ("CreateTopics", "kept by key", created(configs=[("cleanup.policy", "compact"), ("segment.ms", "1000"), ("min.insync.replicas", "1")])),
    ("DeleteTopics", "no such", deleted(NO_TOPIC)),
    ("SaslHandshake", "plain", always({"Mechanism": "PLAIN"})),
    ("InitProducerId", "a number", always({"TransactionalId": None, "TransactionTimeoutMs": 1000})),
]
ONCE = [
    ("CreateTopics", "again", created(name=HERE)),
    ("CreateTopics", "again, with what is none", created(name=HERE, configs=[("no.such", "1")])),
    ("Metadata", "all", lambda side, v: {"Topics": None if v > 0 else [], "IncludeClusterAuthorizedOperations": True}),
    ("Metadata", "by id", metadata(HERE, "Id")),
    ("Metadata", "by no such id", metadata(NO_TOPIC, "Id")),
    ("Produce", "nothing", produce(HERE, data=lambda side: b"")),
    ("Produce", "a damaged batch", produce(HERE, data=lambda side: batch([b"v"], NOW)[:-1] + b"x")),
    ("Produce", "an hour and a half ahead", produce(HERE, data=lambda side: batch([b"v"], NOW + 5_400_000))),
    ("Produce", "acks of five", produce(HERE, acks=5)),
    ("Produce", "without a key to what is kept by key", produce("by-key", data=lambda side: batch([b"v"], NOW, key=None))),
    ("Produce", "an old form", produce(HERE, data=lambda side: batch([b"v"], NOW, magic=1))),
    ("Produce", "as the broker dates", produce(HERE, data=lambda side: batch([b"v"], NOW, attributes=8))),
    ("DeleteTopics", "no such id", deleted_by_id),
    ("OffsetForLeaderEpoch", "an epoch to come", always({"ReplicaId": -1, "Topics": [{"Topic": HERE, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 9999}]}]})),
    ("DeleteRecords", "of what is kept by key", always({"Topics": [{"Name": "by-key", "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}], "TimeoutMs": 5000})),
    ("DeleteGroups", "it", always({"GroupsNames": ["g-below"]})),
]


# Versions that cannot say what is asked, or, of Produce, that Kafka only names.
SINCE = {"Produce": 3, ("Metadata", "by id"): 12, ("Metadata", "by no such id"): 12, ("DeleteTopics", "no such id"): 6, ("ListOffsets", "local start"): 1}


def main():
    jar, kafka, node = sys.argv[1:4]
    messages = Messages(jar)
    sides = [Side(messages, kafka), Side(messages, node)]
    expected = []
    with open(os.path.join(os.path.dirname(__file__), "beside.txt")) as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                pattern, _, reason = line.strip().partition("  ")
                expected.append((pattern, reason.strip()))
    used, found, asked = set(), collections.OrderedDict(), 0

    def run(phase, cases):
        nonlocal asked
        for api, label, make in cases:
            ranges = [side.serves.get(api) for side in sides]
            if not all(ranges):
                note(f"{api}", "all versions", "served" if ranges[0] else "absent", "served" if ranges[1] else "absent", phase)
                continue
            lowest = max([low for low, _ in ranges] + [SINCE.get((api, label), SINCE.get(api, 0))])
            for version in range(lowest, min(high for _, high in ranges) + 1):
                answers = [shape("", side.ask(api, version, make(side, version))) for side in sides]
                asked += 1
                for path, one, other in differences("", *answers):
                    note(f"{api} {label}{path}", version, one, other, phase)

    def note(where, version, one, other, phase):
        where = f"{phase} {where}"
        for i, (pattern, _) in enumerate(expected):
            if fnmatch.fnmatchcase(f"{where} {one} {other}", pattern):
                used.add(i)
                return
        found.setdefault((where, str(one), str(other)), []).append(version)

    for side in sides:
        side.warm_up()
    run("before", ABOUT)
    for side in sides:
        topics = [{"Name": HERE, "NumPartitions": 2, "ReplicationFactor": 1}, {"Name": "by-key", "NumPartitions": 1, "ReplicationFactor": 1, "Configs": [{"Name": "cleanup.policy", "Value": "compact"}]}]
        made = side.connection.call("CreateTopics", 7, {"Topics": topics, "TimeoutMs": 5000})
        side.ids = {one["Name"]: one["TopicId"] for one in made["Topics"]}
        deadline = time.time() + 10
        while time.time() < deadline and any(t["ErrorCode"] for t in side.connection.call("Metadata", 9, {"Topics": [{"Name": HERE}, {"Name": "by-key"}]})["Topics"]):
            time.sleep(0.05)
    run("after", ABOUT)
    run("once", ONCE)
    served = [set(side.serves) for side in sides]
    for api in sorted(served[0] ^ served[1]):
        note(f"ApiVersions {api}", "-", "served" if api in served[0] else "absent", "served" if api in served[1] else "absent", "all")
    for api in sorted(served[0] & served[1]):
        if sides[0].serves[api] != sides[1].serves[api]:
            note(f"ApiVersions {api}.range", "-", sides[0].serves[api], sides[1].serves[api], "all")
    for (where, one, other), versions in found.items():
        print(f"{where}: Kafka {one}, here {other} (versions {versions})")
    stale = [f"{pattern}  {reason}" for i, (pattern, reason) in enumerate(expected) if i not in used]
    for line in stale:
        print(f"listed, and not different (any more): {line}")
    reasons = sum(1 for _ in expected)
    print(f"{asked} requests to each, {len(found)} differences that are not listed, {reasons} that are")
    if not found and not stale:
        print("PASSED")
    sys.exit(1 if found or stale else 0)


main()
