"""Placing orders: start the run of each, wait for its end, and compare it with the expected one."""

import asyncio

from saga_engine.cli.demo.display import Display
from saga_engine.cli.demo.orders import DemoOrder
from saga_engine.client import Client
from saga_engine.vocabulary import Status

RUN_TIMEOUT = 120.0
"""Seconds for an order to finish; the slowest takes about 20."""


class OrderPlacement:
    """
    Places orders.

    `statuses` has the status of each run that has ended, by the order's id; `mismatches` has a
    sentence for each that is not the expected one.
    """

    def __init__(self, client: Client, display: Display) -> None:
        self.statuses: dict[str, Status] = {}
        self.mismatches: list[str] = []
        self._client = client
        self._display = display

    async def place(self, order: DemoOrder, accepted: asyncio.Event | None = None) -> None:
        """Place an order and wait for its run; `accepted` is set when the run has started."""
        handle = await self._client.start(order.saga, order.input, key=order.order_id)
        if accepted is not None:
            accepted.set()
        result = await self._client.result(handle.run_id, timeout=RUN_TIMEOUT)
        self.statuses[order.order_id] = result.status
        if result.status is not order.expected_status:
            self.mismatches.append(
                f"{order.order_id} ended {result.status}, expected {order.expected_status}"
            )
        self._display.run_ended(order, result.status)
