"""The shop's payments, with a database and so with the barrier."""

import os
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine import Failed, Participant, Rejected
from tests.security.buy_saga import Order

payments = Participant("payments", database=os.environ.get("SHOP_DATABASE_URL"))


@payments.command("payment.charge")
async def charge_card(order: Order, tx: AsyncConnection) -> Any:
    match order.get("card"):
        case "declined":
            raise Rejected("declined", "The bank says no.", {"order": order})
        case "flaky":
            raise Failed("flaky", "The bank is unavailable.", {"order": order})
        case "unstorable":
            await tx.exec_driver_sql("SELECT CAST($1 AS int)", (order,))
        case _:
            pass
    return {"charged": order}


@payments.compensation("payment.refund", of="payment.charge")
async def refund_card(order: Order, tx: AsyncConnection) -> None:
    pass
