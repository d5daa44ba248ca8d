"""The text for /metrics, in the format that the client accepts."""

from collections.abc import Iterator

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector


def render_exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """
    Return the metrics and their content type.

    Args:
        collector: of the metrics, such as a registry.
        accept: the header of the request. OpenMetrics if it has that, else text 0.0.4.
    """
    shown = _CollectorWithoutCreated(collector)
    if "application/openmetrics-text" in accept:
        text = openmetrics.generate_latest(shown)  # type: ignore[no-untyped-call]  # of theirs
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(shown), CONTENT_TYPE_PLAIN_0_0_4


class _CollectorWithoutCreated(Collector):
    """Metrics without the `_created` series, which double every counter and add no news."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Family]:
        for family in self._collector.collect():
            copy = Family(family.name, family.documentation, family.type, family.unit)
            copy.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield copy
