"""kafka-python, the versions before and after its rewrite."""

import sys
import threading
import time

import suite
import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

OLD = kafka.__version__.startswith("2.0")


def noted(offset):
    return OffsetAndMetadata(offset, "noted") if OLD else OffsetAndMetadata(offset, "noted", -1)


class Record:
    def __init__(self, m):
        self.key, self.value, self.offset, self.partition = m.key, m.value, m.offset, m.partition
        self.headers = [(k, v) for k, v in m.headers]


class Client:
    name = "kafka-python-2" if OLD else "kafka-python-3"
    version = kafka.__version__
    codecs = ["none", "gzip"] if OLD else suite.CODECS

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap.split(",")
        self.admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def create_topic(self, name, partitions, config):
        response = self.admin.create_topics([NewTopic(name, partitions, len(self.bootstrap), topic_configs=config)])
        self.check(response)

    def check(self, response):
        """Some versions raise, some answer with the code."""
        for topic in getattr(response, "topics", None) or getattr(response, "topic_errors", None) or []:
            code = topic[1] if isinstance(topic, tuple) else topic.error_code
            if code:
                raise kafka.errors.for_code(code)

    def delete_topic(self, name):
        self.admin.delete_topics([name])

    def grow(self, name, count):
        self.admin.create_partitions({name: NewPartitions(count)})

    def config(self, name):
        asked = [ConfigResource(ConfigResourceType.TOPIC, name)]
        if OLD:
            return {c[0]: c[1] for a in self.admin.describe_configs(asked) for r in a.resources for c in r[4]}
        found = self.admin.describe_configs(asked, config_filter="all")["topic"][name]
        return {key: entry["value"] for key, entry in found.items()}

    def alter(self, name, key, value):
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: value})])

    def groups(self):
        found = (self.admin.list_consumer_groups if OLD else getattr(self.admin, "list_groups", None)
                 or self.admin.list_consumer_groups)()
        return [g[0] if isinstance(g, tuple) else g["group_id"] if isinstance(g, dict) else g.group_id for g in found]

    def topics(self):
        return list(self.admin.list_topics())

    def partitions(self, name):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        count = len(consumer.partitions_for_topic(name) or ())
        consumer.close()
        return count

    def produce(self, topic, records, codec="none", acks="all", timestamp=None):
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks=acks, linger_ms=5, max_request_size=8 << 20,
                                 compression_type=None if codec == "none" else codec)
        futures = [producer.send(topic, value=v, key=k, headers=h, timestamp_ms=timestamp) for k, v, h in records]
        producer.flush(30)
        for future in futures:
            future.get(30)
        producer.close()

    def produce_large(self, topic, size):
        self.produce(topic, [(None, bytes(size), [])])

    def consume(self, topic, count):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=None)
        consumer.assign([TopicPartition(topic, p) for p in range(self.partitions(topic))])
        consumer.seek_to_beginning()
        got = self.poll(consumer, count)
        consumer.close()
        return got

    def poll(self, consumer, count):
        got, deadline = [], time.time() + 30
        while len(got) < count and time.time() < deadline:
            for records in consumer.poll(500, max_records=count - len(got)).values():
                got += [Record(r) for r in records]
        suite.must(len(got) == count, f"{len(got)} of {count} records came")
        return got

    def group_read(self, topic, group, count):
        consumer = KafkaConsumer(topic, bootstrap_servers=self.bootstrap, group_id=group, auto_offset_reset="earliest",
                                 enable_auto_commit=False)
        got = self.poll(consumer, count)
        offset = got[-1].offset + 1
        place = TopicPartition(topic, 0)
        consumer.commit({place: noted(offset)})
        committed = consumer.committed(place, metadata=True)
        suite.must(committed.offset == offset and committed.metadata == "noted", "offset and metadata are kept")
        consumer.close()
        return got

    def two_members(self, topic, group):
        members = [KafkaConsumer(topic, bootstrap_servers=self.bootstrap, group_id=group) for _ in range(2)]
        done = threading.Event()

        def work(member):
            while not done.is_set():
                member.poll(100)

        threads = [threading.Thread(target=work, args=(m,)) for m in members]
        [t.start() for t in threads]
        deadline, shares = time.time() + 60, []
        while time.time() < deadline:
            shares = [[p.partition for p in m.assignment()] for m in members]
            if [len(s) for s in shares] == [2, 2]:
                break
            time.sleep(0.1)
        done.set()
        [t.join() for t in threads]
        [m.close() for m in members]
        return shares

    def offset_at(self, topic, timestamp):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        place = TopicPartition(topic, 0)
        found = consumer.offsets_for_times({place: timestamp})[place]
        consumer.close()
        return None if found is None or found.offset < 0 else found.offset

    def end(self, topic):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        place = TopicPartition(topic, 0)
        end = consumer.end_offsets([place])[place]
        consumer.close()
        return end

    def error_of(self, call):
        try:
            call()
        except KafkaError as e:
            name = type(e).__name__
            return {"TopicAlreadyExistsError": "EXISTS", "InvalidTopicError": "INVALID", "InvalidConfigurationError": "CONFIG",
                    "MessageSizeTooLargeError": "SIZE"}.get(name, name)
        except Exception as e:  # a class, in old versions
            return f"{e!r}"
        return "nothing"


suite.run(Client(sys.argv[1]), sys.argv[1], kills="kills" in sys.argv)
