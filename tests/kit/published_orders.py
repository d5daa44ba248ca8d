"""A module for `saga-engine projector`: a feed of orders."""

from tests.kit.feeds import order_feed

feed = order_feed(unroutable="stop")
