"""Prints each event once, in the order of its order's stream: python3 consume.py QUEUE [HOW_MANY]"""
import json
import os
import sys

import pika

queue = sys.argv[1] if len(sys.argv) > 1 else "my-orders"
left = int(sys.argv[2]) if len(sys.argv) > 2 else -1
connection = pika.BlockingConnection(pika.URLParameters(os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")))
channel = connection.channel()
channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
channel.queue_bind(queue, "order-events", "order.*")
channel.basic_qos(prefetch_count=100)
print(f"waiting for events in {queue}", flush=True)

# In a real consumer this is a table with a unique key, written in the transaction of whatever the event changes.
seen = set()
for method, _, body in channel.consume(queue):
    event = json.loads(body)
    if event["id"] not in seen:
        seen.add(event["id"])
        print(event["type"], event["subject"], event.get("sequence", "-"), flush=True)
        left -= 1
    # Only now: what was not acknowledged comes again.
    channel.basic_ack(method.delivery_tag)
    if left == 0:
        break
channel.cancel()
connection.close()
