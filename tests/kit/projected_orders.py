"""A module for `saga-engine projector`: the read model of orders."""

from tests.kit.read_model import history_projection, orders_projection

orders = orders_projection()
history = history_projection()
