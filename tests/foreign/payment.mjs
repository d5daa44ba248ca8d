// The payments of place-order in plain amqplib: all it knows is docs/protocol.md.
import amqp from "amqplib";

const queue = "saga.participant.payment";
const answers = new Map(); // A real service keeps these with its effects.
const undone = new Set();

function perform(name, step, payload) {
  if (name === "payment.refund") {
    undone.add(step);
    return ["succeeded", null];
  }
  if (undone.has(step)) return ["rejected", { code: "compensated" }];
  if (payload.card === "declined")
    return ["rejected", { code: "card_declined", message: "The bank says no." }];
  return ["succeeded", { charge_id: `c-${payload.order_id}` }];
}

const connection = await amqp.connect(process.argv[2]);
const channel = await connection.createConfirmChannel();
await channel.assertExchange("saga.commands", "topic", { durable: true });
await channel.assertExchange("saga.replies", "direct", { durable: true });
await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
for (const command of ["payment.charge", "payment.refund"])
  await channel.bindQueue(queue, "saga.commands", command);
await channel.prefetch(10);
await channel.consume(queue, async (message) => {
  const { type, correlationId, replyTo, headers } = message.properties;
  const key = headers["idempotency-key"];
  const payload = JSON.parse(message.content);
  const known = answers.has(key);
  const step = `${headers["saga-run-id"]}/${headers["saga-step"]}`;
  if (!known) answers.set(key, perform(type, step, payload));
  const [outcome, answer] = answers.get(key);
  console.log(type, payload.order_id, known ? "again" : outcome);
  channel.publish("saga.replies", replyTo, Buffer.from(JSON.stringify(answer)), {
    correlationId, contentType: "application/json", persistent: true, mandatory: true,
    headers: { "saga-outcome": outcome },
  });
  await channel.waitForConfirms();
  channel.ack(message);
});
console.log("ready");
