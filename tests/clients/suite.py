"""What every Python client is put through. A client is an object with the calls below; each check says what it did."""

import sys
import time

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def run(client, bootstrap, kills=False):
    tag = f"{client.name}-{int(time.time() * 1000)}"
    checks = [
        create, compression_and_acks, headers_and_nulls, large_messages, keyed_order, seek_by_time,
        commit_and_resume, rebalance, admin, errors,
    ]
    if kills:
        checks.append(leader_killed)
    skipped = getattr(client, "skips", {})
    for check in checks:
        why = skipped.get(check.__name__)
        if why:
            print(f"  -- {client.name}: {check.__name__}: {why}", flush=True)
            continue
        check(client, tag)
        print(f"  ok {client.name}: {check.__name__}", flush=True)
    print(f"PASSED {client.name} {client.version}")


def must(condition, what):
    if not condition:
        print(f"FAILED {what}", file=sys.stderr, flush=True)
        sys.exit(1)


def create(c, tag):
    c.create_topic(f"{tag}-t", 3, {"retention.ms": "-1"})
    must(c.partitions(f"{tag}-t") == 3, "the topic has three partitions")


def compression_and_acks(c, tag):
    for codec in c.codecs:
        for acks in (0, 1, "all"):
            topic = f"{tag}-{codec}-{acks}"
            c.create_topic(topic, 1, {})
            sent = [(None, f"{codec} {acks} {i} ".encode() * 20, []) for i in range(200)]
            c.produce(topic, sent, codec=codec, acks=acks)
            got = c.consume(topic, 200)
            must([r.value for r in got] == [v for _, v, _ in sent], f"{codec}, acks {acks}: all in order")
            must([r.offset for r in got] == list(range(200)), f"{codec}: offsets count up")


def headers_and_nulls(c, tag):
    topic = f"{tag}-headers"
    c.create_topic(topic, 1, {})
    headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("b", b"\x00\xff")]
    c.produce(topic, [(b"k", None, headers), (None, b"v", []), (b"", b"", [])])
    got = c.consume(topic, 3)
    must(got[0].key == b"k" and got[0].value is None, "a null value stays null")
    must(got[0].headers == headers, f"headers come back, repeated names too: {got[0].headers}")
    must(got[1].key is None and got[1].value == b"v", "a null key stays null")
    must(got[2].key == b"" and got[2].value == b"", "empty is not null")


def large_messages(c, tag):
    topic = f"{tag}-large"
    c.create_topic(topic, 1, {})
    big = bytes(range(256)) * 3500
    c.produce(topic, [(None, big, []), (None, b"small", []), (None, big[::-1], [])])
    got = c.consume(topic, 3)
    must(got[0].value == big and got[1].value == b"small" and got[2].value == big[::-1], "900 kB records come back")


def keyed_order(c, tag):
    topic = f"{tag}-t"
    c.produce(topic, [(f"key{i % 17}".encode(), str(i).encode(), []) for i in range(2000)])
    got = c.consume(topic, 2000)
    last, where = {}, {}
    for r in got:
        must(where.setdefault(r.key, r.partition) == r.partition, "a key stays on its partition")
        must(last.get(r.key, -1) < int(r.value), "records of a key stay in order")
        last[r.key] = int(r.value)
    must(len(set(where.values())) == 3, "keys spread over all partitions")


def seek_by_time(c, tag):
    topic = f"{tag}-time"
    c.create_topic(topic, 1, {"retention.ms": "-1"})
    base = int(time.time() * 1000) - 100_000
    for i in range(10):
        c.produce(topic, [(None, str(i).encode(), [])], timestamp=base + i * 1000)
    must(c.offset_at(topic, base + 4500) == 5, "the first record at or after a time")
    must(c.offset_at(topic, base) == 0, "the first record")
    must(c.offset_at(topic, base + 60_000_000) is None, "no record is that late")


def commit_and_resume(c, tag):
    topic, group = f"{tag}-resume", f"{tag}-g"
    c.create_topic(topic, 1, {})
    c.produce(topic, [(None, str(i).encode(), []) for i in range(100)])
    first = c.group_read(topic, group, 40)
    second = c.group_read(topic, group, 60)
    got = [int(r.value) for r in first + second]
    must(got == list(range(100)), f"a group goes on where it was: {got[:5]} {len(got)}")


def rebalance(c, tag):
    topic, group = f"{tag}-shared", f"{tag}-two"
    c.create_topic(topic, 4, {})
    shares = c.two_members(topic, group)
    must(len(shares[0]) + len(shares[1]) == 4 and shares[0] and shares[1], f"two members share: {shares}")
    must(not set(shares[0]) & set(shares[1]), f"no partition has two readers: {shares}")


def admin(c, tag):
    topic = f"{tag}-admin"
    c.create_topic(topic, 1, {"retention.ms": "60000"})
    must(c.config(topic)["retention.ms"] == "60000", "the setting is there")
    must(c.config(topic)["cleanup.policy"] == "delete", "so is the cleanup policy")
    c.alter(topic, "retention.ms", "120000")
    must(c.config(topic)["retention.ms"] == "120000", "the setting changed")
    c.grow(topic, 3)
    must(c.partitions(topic) == 3, "partitions were added")
    must(f"{tag}-g" in c.groups(), "the group is listed")
    c.delete_topic(topic)
    deadline = time.time() + 10
    while topic in c.topics() and time.time() < deadline:
        time.sleep(0.05)
    must(topic not in c.topics(), "the topic is gone")


def errors(c, tag):
    must("EXISTS" in c.error_of(lambda: c.create_topic(f"{tag}-t", 3, {})), "a topic is made once")
    must("INVALID" in c.error_of(lambda: c.create_topic("no/slash", 1, {})), "a bad name is refused")
    must("SIZE" in c.error_of(lambda: c.produce_large(f"{tag}-t", 6 << 20)), "too large is refused")


def leader_killed(c, tag):
    """Whoever runs this kills the node that leads when it is told to."""
    topic = f"{tag}-killed"
    c.create_topic(topic, 1, {})
    print("KILL", flush=True)
    acknowledged, deadline = [], time.time() + 60
    until = time.time() + 8
    while time.time() < until or not acknowledged:
        must(time.time() < deadline, "records are taken again after a leader was killed")
        values = [f"{len(acknowledged)} {time.time()} {i}".encode() for i in range(20)]
        try:
            c.produce(topic, [(None, value, []) for value in values])
            acknowledged += values
        except Exception as error:
            print(f"     {type(error).__name__}: records of unknown fate", flush=True)
    # Of those of unknown fate some may be there, too.
    got = [r.value for r in c.consume(topic, c.end(topic))]
    missing = set(acknowledged) - set(got)
    must(not missing, f"{len(missing)} of {len(acknowledged)} acknowledged records are missing")
    order = [v for v in got if v in set(acknowledged)]
    must(list(dict.fromkeys(order)) == acknowledged, "they are in order")
