// Prints each event once, in the order of its order's stream: node consume.mjs QUEUE [HOW_MANY]
import amqp from "amqplib";

const [queue = "my-orders", howMany = "Infinity"] = process.argv.slice(2);
const connection = await amqp.connect(process.env.AMQP_URI ?? "amqp://guest:guest@localhost:5672/");
const channel = await connection.createChannel();
await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
await channel.bindQueue(queue, "order-events", "order.*");
await channel.prefetch(100);

// In a real consumer this is a table with a unique key, written in the transaction of whatever the event changes.
const seen = new Set();
let left = Number(howMany);

await channel.consume(queue, async (message) => {
  if (message === null) throw new Error("the queue was deleted");
  const event = JSON.parse(message.content.toString("utf8"));
  if (!seen.has(event.id)) {
    seen.add(event.id);
    console.log(`${event.type} ${event.subject} ${event.sequence ?? "-"}`);
    left--;
  }
  // Only now: what was not acknowledged comes again.
  channel.ack(message);
  if (left === 0) {
    await channel.close();
    await connection.close();
  }
});
console.log(`waiting for events in ${queue}`);
