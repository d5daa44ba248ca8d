"""A module for `saga-engine consume`: a consumer of orders."""

from tests.kit.consumers import billing_consumer

billing = billing_consumer()
