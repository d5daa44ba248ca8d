"""A shop of two services, each a process with a RabbitMQ user of its own: stock and payments."""

from saga_engine import Saga

Order = dict[str, str]

buying = Saga("buy", version=1, input=Order)


@buying.step(command="stock.take")
def take(order: Order) -> Order:
    return order


@take.compensation(command="stock.return")
def give_back(order: Order) -> Order:
    return order


@buying.step(command="payment.charge")
def charge(order: Order) -> Order:
    if order.get("mapping") == "raises":
        raise ValueError(f"no mapping for {order}")
    return order


@charge.compensation(command="payment.refund")
def refund(order: Order) -> Order:
    return order
