// The place-order saga of examples/place_order as one Restate service: three steps, each with its
// compensation, and handlers without business logic. Its result has the trail of steps, which the
// benchmark checks.
import * as restate from "@restatedev/restate-sdk";
import http2 from "node:http2";

const reserve = async (order) => ({ reservation_id: order.order_id });
const release = async (reservation) => ({ released: reservation.reservation_id });
const charge = async (order) => ({ charge_id: order.order_id });
const refund = async (charged) => ({ refunded: charged.charge_id });
const confirm = async (order) => {
  if (order.card === "declined-late") {
    throw new restate.TerminalError("The shop is closed.", { errorCode: 409 });
  }
  return { order_id: order.order_id };
};

const placeOrder = restate.service({
  name: "PlaceOrder",
  handlers: {
    run: async (context, order) => {
      const compensations = [];
      const trail = [];
      try {
        const reserved = await context.run("reserve", () => reserve(order));
        trail.push("reserve");
        compensations.push(["release", () => release(reserved)]);
        const charged = await context.run("charge", () => charge(order));
        trail.push("charge");
        compensations.push(["refund", () => refund(charged)]);
        await context.run("confirm", () => confirm(order));
        trail.push("confirm");
        return { status: "completed", trail };
      } catch (error) {
        if (!(error instanceof restate.TerminalError)) throw error;
        for (const [name, compensate] of compensations.reverse()) {
          await context.run(name, compensate);
          trail.push(name);
        }
        return { status: "compensated", trail };
      }
    },
  },
});

const endpoint = restate.endpoint().bind(placeOrder).setLogger(() => {});
const server = http2.createServer(endpoint.http2Handler());
// Without it Node.js would exit only when Restate has closed its sessions.
process.on("SIGTERM", () => process.exit(0));
server.listen(Number(process.env.PORT), "127.0.0.1");
