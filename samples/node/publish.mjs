// Publishes an order and waits until the broker has it: node publish.mjs ORDER_ID
import amqp from "amqplib";

const orderId = process.argv[2] ?? "A-1001";
const connection = await amqp.connect(process.env.AMQP_URI ?? "amqp://guest:guest@localhost:5672/");
const channel = await connection.createConfirmChannel();

// "mandatory": a queue that is not there is told, instead of the order being lost.
let returned = false;
channel.on("return", () => { returned = true; });

const order = { orderId, customerId: "C-7", currency: "EUR", lines: [{ sku: "KB-01", quantity: 2, unitPrice: 49.90 }] };
// The key is yours: after a crash or a time-out send the same message again, with the same key, and it counts once.
channel.publish("", "orders", Buffer.from(JSON.stringify(order)), {
  type: "order.place", messageId: `place-${orderId}`, contentType: "application/json", persistent: true, mandatory: true, timestamp: Math.floor(Date.now() / 1000),
});
await channel.waitForConfirms();
await connection.close();
if (returned) {
  console.error(`${orderId} was returned: there is no queue "orders"`);
  process.exit(1);
}
console.log(`confirmed ${orderId}`);
