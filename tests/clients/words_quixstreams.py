"""quixstreams as shipped: a word count whose state is in a changelog topic, by a worker that is stopped and one that goes on."""
import sys
import tempfile
import time

import suite
from confluent_kafka import Consumer
from quixstreams import Application

WORDS = ["one", "two", "three", "four", "five"]
EACH = 40


def application(bootstrap):
    return Application(broker_address=bootstrap, consumer_group="count", auto_offset_reset="earliest", commit_interval=0.5,
                       state_dir=tempfile.mkdtemp(), loglevel="WARNING")


def count(bootstrap, records):
    """Counts so many words with a state that is not there yet: what was counted before comes from the changelog."""
    app = application(bootstrap)
    words, counts = app.topic("words", value_deserializer="str"), app.topic("counts", value_serializer="int")

    def counted(_, state):
        n = state.get("n", 0) + 1
        state.set("n", n)
        return n

    app.dataframe(words).apply(counted, stateful=True).to_topic(counts)
    app.run(count=records, timeout=60)


def main():
    bootstrap = sys.argv[1]
    app = application(bootstrap)
    words = app.topic("words", value_serializer="str")
    with app.get_producer() as producer:
        for _ in range(EACH):
            for word in WORDS:
                message = words.serialize(key=word, value=word)
                producer.produce("words", key=message.key, value=message.value)
    half = EACH * len(WORDS) // 2
    count(bootstrap, half)
    count(bootstrap, EACH * len(WORDS) - half)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "check", "auto.offset.reset": "earliest"})
    consumer.subscribe(["counts"])
    last, deadline = {}, time.time() + 30
    while time.time() < deadline and list(last.values()) != [EACH] * len(WORDS):
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            last[message.key().decode()] = max(last.get(message.key().decode(), 0), int.from_bytes(message.value(), "big"))
    consumer.close()
    suite.must(last == dict.fromkeys(WORDS, EACH), f"each word was counted {EACH} times: {last}")
    print("PASSED quixstreams")


main()
