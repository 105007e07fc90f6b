"""confluent-kafka-python (librdkafka)."""

import sys
import time

import suite
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition, libversion, version
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic


class Record:
    def __init__(self, m):
        self.key, self.value, self.offset, self.partition = m.key(), m.value(), m.offset(), m.partition()
        self.headers = m.headers() or []


class Client:
    name = "confluent-kafka-python"
    version = f"{version()} on librdkafka {libversion()[0]}"
    codecs = suite.CODECS

    def __init__(self, bootstrap):
        self.conf = {"bootstrap.servers": bootstrap}
        self.admin = AdminClient(self.conf)

    def wait(self, futures):
        for future in futures.values():
            future.result(20)

    def create_topic(self, name, partitions, config):
        self.wait(self.admin.create_topics([NewTopic(name, partitions, -1, config=config)]))

    def delete_topic(self, name):
        self.wait(self.admin.delete_topics([name]))

    def grow(self, name, count):
        self.wait(self.admin.create_partitions([NewPartitions(name, count)]))

    def config(self, name):
        futures = self.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)])
        return {k: v.value for f in futures.values() for k, v in f.result(20).items()}

    def alter(self, name, key, value):
        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
        self.wait(self.admin.incremental_alter_configs([resource]))

    def groups(self):
        return [g.group_id for g in self.admin.list_consumer_groups().result(20).valid]

    def topics(self):
        return list(self.admin.list_topics(timeout=20).topics)

    def partitions(self, name):
        return len(self.admin.list_topics(name, timeout=20).topics[name].partitions)

    def produce(self, topic, records, codec="none", acks="all", timestamp=0):
        failures = []
        idempotent = acks == "all"
        producer = Producer({**self.conf, "compression.type": codec, "acks": acks, "linger.ms": 5,
                             "enable.idempotence": idempotent, "message.max.bytes": 8 << 20})
        for key, value, headers in records:
            producer.produce(topic, value, key, headers=headers, timestamp=timestamp,
                             on_delivery=lambda e, _: e and failures.append(e))
        suite.must(producer.flush(30) == 0, "everything was delivered")
        if failures:
            raise KafkaException(failures[0])

    def produce_large(self, topic, size):
        self.produce(topic, [(None, bytes(size), [])])

    def consume(self, topic, count):
        consumer = Consumer({**self.conf, "group.id": "reader", "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, p, 0) for p in range(self.partitions(topic))])
        got = self.poll(consumer, count)
        consumer.close()
        return got

    def poll(self, consumer, count):
        got, deadline = [], time.time() + 30
        while len(got) < count and time.time() < deadline:
            for m in consumer.consume(count - len(got), 0.5):
                suite.must(not m.error(), m.error())
                got.append(Record(m))
        suite.must(len(got) == count, f"{len(got)} of {count} records came")
        return got

    def group_read(self, topic, group, count):
        consumer = Consumer({**self.conf, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
        consumer.subscribe([topic])
        got = self.poll(consumer, count)
        offset = got[-1].offset + 1
        consumer.commit(offsets=[TopicPartition(topic, 0, offset, metadata="noted")], asynchronous=False)
        committed = consumer.committed([TopicPartition(topic, 0)], 20)[0]
        suite.must(committed.offset == offset and committed.metadata == "noted", "offset and metadata are kept")
        consumer.close()
        return got

    def two_members(self, topic, group):
        shares = []
        for strategy in ("range", "cooperative-sticky"):
            conf = {**self.conf, "group.id": f"{group}-{strategy}", "partition.assignment.strategy": strategy}
            members = [Consumer(conf), Consumer(conf)]
            for m in members:
                m.subscribe([topic])
            deadline = time.time() + 60
            while time.time() < deadline:
                for m in members:
                    m.poll(0.1)
                shares = [[p.partition for p in m.assignment()] for m in members]
                if [len(s) for s in shares] == [2, 2]:
                    break
            members[1].close()
            while len(members[0].assignment()) < 4 and time.time() < deadline:
                members[0].poll(0.1)
            suite.must(len(members[0].assignment()) == 4, f"{strategy}: who stays gets all")
            members[0].close()
        return shares

    def offset_at(self, topic, timestamp):
        consumer = Consumer({**self.conf, "group.id": "times"})
        found = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], 20)[0].offset
        consumer.close()
        end = self.end(topic)
        return None if found in (-1, end) else found

    def end(self, topic):
        consumer = Consumer({**self.conf, "group.id": "ends"})
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), 20)
        consumer.close()
        suite.must(low == 0, "nothing was deleted")
        return high

    def error_of(self, call):
        try:
            call()
        except KafkaException as e:
            name = e.args[0].name()
            return {"TOPIC_ALREADY_EXISTS": "EXISTS", "TOPIC_EXCEPTION": "INVALID", "INVALID_CONFIG": "CONFIG",
                    "MSG_SIZE_TOO_LARGE": "SIZE"}.get(name, name)
        return "nothing"


suite.run(Client(sys.argv[1]), sys.argv[1], kills="kills" in sys.argv)
