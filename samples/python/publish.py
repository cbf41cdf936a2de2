"""Publishes an order and waits until the broker has it: python3 publish.py ORDER_ID"""
import json
import os
import sys
import time

import pika

order_id = sys.argv[1] if len(sys.argv) > 1 else "A-1001"
connection = pika.BlockingConnection(pika.URLParameters(os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")))
channel = connection.channel()
# From here on basic_publish returns when the broker has confirmed, and raises when it did not.
channel.confirm_delivery()

order = {"orderId": order_id, "customerId": "C-7", "currency": "EUR", "lines": [{"sku": "KB-01", "quantity": 2, "unitPrice": 49.90}]}
try:
    channel.basic_publish(
        exchange="",
        routing_key="orders",
        body=json.dumps(order).encode(),
        # The key is yours: after a crash or a time-out send the same message again, with the same key, and it counts once.
        properties=pika.BasicProperties(
            type="order.place", message_id=f"place-{order_id}", content_type="application/json", delivery_mode=2, timestamp=int(time.time())),
        # A queue that is not there is told, instead of the order being lost.
        mandatory=True,
    )
except pika.exceptions.UnroutableError:
    sys.exit(f'{order_id} was returned: there is no queue "orders"')
except pika.exceptions.NackError:
    sys.exit(f"{order_id} was not taken; send it again")
finally:
    connection.close()
print(f"confirmed {order_id}")
