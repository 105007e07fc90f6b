"""aiokafka: asynchronous, behind the same calls."""

import asyncio
import sys
import time

import aiokafka
import suite
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code
from aiokafka.structs import OffsetAndMetadata


class Record:
    def __init__(self, m):
        self.key, self.value, self.offset, self.partition = m.key, m.value, m.offset, m.partition
        self.headers = list(m.headers)


class Client:
    name = "aiokafka"
    version = aiokafka.__version__
    codecs = suite.CODECS

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap.split(",")
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def do(self, work):
        return self.loop.run_until_complete(work)

    async def with_admin(self, work):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            return await work(admin)
        finally:
            await admin.close()

    def admin(self, work):
        return self.do(self.with_admin(work))

    def create_topic(self, name, partitions, config):
        answer = self.admin(lambda a: a.create_topics([NewTopic(name, partitions, len(self.bootstrap), topic_configs=config)]))
        for topic in answer.topic_errors:
            if topic[1]:
                raise for_code(topic[1])

    def delete_topic(self, name):
        self.admin(lambda a: a.delete_topics([name]))

    def grow(self, name, count):
        self.admin(lambda a: a.create_partitions({name: NewPartitions(count)}))

    def config(self, name):
        answer = self.admin(lambda a: a.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]))
        return {c[0]: c[1] for part in answer for r in part.resources for c in r[4]}

    def alter(self, name, key, value):
        self.admin(lambda a: a.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: value})]))

    def groups(self):
        return [g[0] for g in self.admin(lambda a: a.list_consumer_groups())]

    def topics(self):
        return self.admin(lambda a: a.list_topics())

    def partitions(self, name):
        return len(self.admin(lambda a: a.describe_topics([name]))[0]["partitions"])

    def produce(self, topic, records, codec="none", acks="all", timestamp=None):
        async def work():
            producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks=acks, linger_ms=5, max_request_size=8 << 20,
                                        enable_idempotence=acks == "all",
                                        compression_type=None if codec == "none" else codec)
            await producer.start()
            try:
                waiting = [await producer.send(topic, v, k, headers=h, timestamp_ms=timestamp) for k, v, h in records]
                await producer.flush()
                await asyncio.gather(*waiting)
            finally:
                await producer.stop()

        self.do(work())

    def produce_large(self, topic, size):
        self.produce(topic, [(None, bytes(size), [])])

    async def poll(self, consumer, count):
        got, deadline = [], time.time() + 30
        while len(got) < count and time.time() < deadline:
            for records in (await consumer.getmany(timeout_ms=500, max_records=count - len(got))).values():
                got += [Record(r) for r in records]
        suite.must(len(got) == count, f"{len(got)} of {count} records came")
        return got

    def consume(self, topic, count):
        places = [TopicPartition(topic, p) for p in range(self.partitions(topic))]

        async def work():
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=None)
            await consumer.start()
            try:
                consumer.assign(places)
                await consumer.seek_to_beginning()
                return await self.poll(consumer, count)
            finally:
                await consumer.stop()

        return self.do(work())

    def group_read(self, topic, group, count):
        async def work():
            consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False,
                                        auto_offset_reset="earliest")
            await consumer.start()
            try:
                got = await self.poll(consumer, count)
                offset = got[-1].offset + 1
                await consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(offset, "noted")})
                suite.must(await consumer.committed(TopicPartition(topic, 0)) == offset, "the offset is kept")
                return got
            finally:
                await consumer.stop()

        return self.do(work())

    def two_members(self, topic, group):
        async def work():
            members = [AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap, group_id=group) for _ in range(2)]
            await asyncio.gather(*(m.start() for m in members))
            deadline, shares = time.time() + 60, []
            while time.time() < deadline:
                await asyncio.gather(*(m.getmany(timeout_ms=100) for m in members))
                shares = [[p.partition for p in m.assignment()] for m in members]
                if [len(s) for s in shares] == [2, 2]:
                    break
            await asyncio.gather(*(m.stop() for m in members))
            return shares

        return self.do(work())

    def offset_at(self, topic, timestamp):
        async def work():
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
            await consumer.start()
            place = TopicPartition(topic, 0)
            found = (await consumer.offsets_for_times({place: timestamp}))[place]
            await consumer.stop()
            return None if found is None else found.offset

        return self.do(work())

    def end(self, topic):
        async def work():
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
            await consumer.start()
            place = TopicPartition(topic, 0)
            end = (await consumer.end_offsets([place]))[place]
            await consumer.stop()
            return end

        return self.do(work())

    def error_of(self, call):
        try:
            call()
        except KafkaError as e:
            name = type(e).__name__
            return {"TopicAlreadyExistsError": "EXISTS", "InvalidTopicError": "INVALID", "InvalidConfigurationError": "CONFIG",
                    "MessageSizeTooLargeError": "SIZE"}.get(name, name)
        return "nothing"


suite.run(Client(sys.argv[1]), sys.argv[1], kills="kills" in sys.argv)
