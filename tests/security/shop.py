"""A shop of two services, each a process with a RabbitMQ user of its own: stock and payments."""

from datetime import timedelta

from saga_engine import Retry, Saga

Order = dict[str, str]
TWICE = Retry(attempts=2, initial=timedelta(milliseconds=10))

buying = Saga("buy", version=1, input=Order)


@buying.step(command="stock.take", retry=TWICE)
def take(order: Order) -> Order:
    return order


@take.compensation(command="stock.return")
def give_back(order: Order) -> Order:
    return order


@buying.step(command="payment.charge", retry=TWICE)
def charge(order: Order) -> Order:
    if order.get("mapping") == "raises":
        raise ValueError(f"no mapping for {order}")
    return order


@charge.compensation(command="payment.refund")
def refund(order: Order) -> Order:
    return order
