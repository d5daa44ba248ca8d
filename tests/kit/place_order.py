"""The example `place_order`: its modules, and an order."""

SAGAS, SERVICES = "examples.place_order.sagas", "examples.place_order.services"
ORDER = {"order_id": "o-1", "sku": "A1", "quantity": 1, "amount": "9.90"}
