"""A module for `saga-engine projector`: four feeds to the exchange, each of its own category."""

from saga_engine.events import Feed

CATEGORIES = ("order", "invoice", "parcel", "refund")


def _feed(category: str) -> Feed:
    feed = Feed(f"{category}s", streams=[f"{category}-*"])
    feed.to_exchange()
    return feed


orders, invoices, parcels, refunds = map(_feed, CATEGORIES)
