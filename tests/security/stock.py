"""The shop's stock, without a database."""

from saga_engine import Participant
from tests.security.buy_saga import Order

stock = Participant("stock")


@stock.command("stock.take")
async def take_stock(order: Order) -> Order:
    if order.get("stock") == "explodes":
        raise RuntimeError(f"cannot take {order}")
    return order


@stock.command("stock.return")
async def return_stock(order: Order) -> None:
    pass
