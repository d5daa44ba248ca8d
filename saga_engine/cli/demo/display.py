"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from saga_engine.cli.demo.orders import DemoOrder
from saga_engine.vocabulary import Status


class Display:
    """Prints events, and the status of each order when its run finishes."""

    def __init__(self) -> None:
        self._orders: list[DemoOrder] = []
        self._statuses: dict[str, Status] = {}
        self._started_at = time.monotonic()
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False) if _is_terminal() else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def add_orders(self, orders: Sequence[DemoOrder]) -> None:
        """Show the statuses of these orders from now on."""
        self._orders += orders
        if self._live:
            self._live.update(self._table(), refresh=True)

    def print_event(self, text: str) -> None:
        """Print an event with the seconds since the start."""
        line = f"{time.monotonic() - self._started_at:5.1f} s  {text}"
        if self._live:
            self._live.console.print(line, highlight=False)
        else:
            print(line, flush=True)  # noqa: T201 - the output of a command

    def run_ended(self, order: DemoOrder, status: Status) -> None:
        """Show the final status of a run."""
        self._statuses[order.order_id] = status
        if self._live:
            self._live.update(self._table(), refresh=True)
        else:
            self.print_event(f"{order.order_id:<18} {status:<12} {order.scenario}")

    def _table(self) -> Table:
        table = Table("scenario", "orders", "running", "completed", "compensated")
        for scenario in dict.fromkeys(order.scenario for order in self._orders):
            scenario_orders = [order for order in self._orders if order.scenario == scenario]
            counts = Counter(
                self._statuses.get(order.order_id, "running") for order in scenario_orders
            )
            columns = ("running", Status.COMPLETED, Status.COMPENSATED)
            table.add_row(
                scenario, str(len(scenario_orders)), *(str(counts[name] or "") for name in columns)
            )
        return table


def _is_terminal() -> bool:
    return sys.stdout.isatty()
