"""faust as shipped: a word count in a table with a changelog topic."""
import asyncio
import os
import sys
import tempfile

import faust

WORDS = ["one", "two", "three", "four", "five"]
EACH = 40
bootstrap = sys.argv[1].split(",")
app = faust.App("count", broker=[f"kafka://{node}" for node in bootstrap], datadir=tempfile.mkdtemp(), topic_replication_factor=len(bootstrap),
                topic_partitions=1, web_enabled=False, stream_wait_empty=False, broker_commit_interval=0.3)
words = app.topic("said", key_type=str, value_type=str)
counts = app.Table("counts", default=int)


@app.agent(words)
async def count(stream):
    async for word in stream:
        counts[word] += 1


@app.task
async def feed():
    for _ in range(EACH):
        for word in WORDS:
            await words.send(key=word, value=word)
    for _ in range(600):
        if dict(counts.items()) == dict.fromkeys(WORDS, EACH):
            # What is printed here goes to faust's own log.
            os.write(1, b"PASSED faust\n")
            os._exit(0)
        await asyncio.sleep(0.1)
    os.write(1, f"FAILED {dict(counts.items())}\n".encode())
    os._exit(1)


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "-l", "error"]
    app.main()
