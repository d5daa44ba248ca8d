"""What is shown while it happens: a live table on a terminal, plain lines otherwise."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from saga_engine.cli.demo.orders import Order
from saga_engine.vocabulary import Status


class Show:
    """Tells the story as it goes; `async with` is not needed, it only prints."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self._orders = orders
        self._ended: dict[str, Status] = {}
        self._begin = time.monotonic()
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False) if _terminal() else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
            self._live.update(self._table(), refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Tell what happens on the stage."""
        line = f"{time.monotonic() - self._begin:5.1f} s  {text}"
        if self._live:
            self._live.console.print(line, highlight=False)
        else:
            print(line, flush=True)  # noqa: T201 - standard output is what this is for

    def ended(self, order: Order, status: Status) -> None:
        """Tell how a run ended."""
        self._ended[order.order_id] = status
        if self._live:
            self._live.update(self._table(), refresh=True)
        else:
            self.say(f"{order.order_id:<18} {status:<12} {order.story}")

    def _table(self) -> Table:
        table = Table("what happens", "orders", "running", "completed", "compensated")
        for story in dict.fromkeys(order.story for order in self._orders):
            mine = [order for order in self._orders if order.story == story]
            counts = Counter(self._ended.get(order.order_id, "running") for order in mine)
            columns = ("running", Status.COMPLETED, Status.COMPENSATED)
            table.add_row(story, str(len(mine)), *(str(counts[name] or "") for name in columns))
        return table


def _terminal() -> bool:
    return sys.stdout.isatty()
