"""A shop of two services, each a process with a RabbitMQ user of its own: stock and payments."""

from datetime import timedelta

from saga_engine import Retry, Saga

Order = dict[str, str]
TWO_ATTEMPTS = Retry(attempts=2, initial=timedelta(milliseconds=10))

buy_saga = Saga("buy", version=1, input=Order)


@buy_saga.step(command="stock.take", retry=TWO_ATTEMPTS)
def take(order: Order) -> Order:
    return order


@take.compensation(command="stock.return")
def return_stock(order: Order) -> Order:
    return order


@buy_saga.step(command="payment.charge", retry=TWO_ATTEMPTS)
def charge(order: Order) -> Order:
    if order.get("mapping") == "raises":
        raise ValueError(f"no mapping for {order}")
    return order


@charge.compensation(command="payment.refund")
def refund(order: Order) -> Order:
    return order
