"""
Place an order: reserve stock, charge the card, confirm; compensated by release, refund, cancel.

    saga-engine worker examples.place_order.sagas
    saga-engine participant examples.place_order.services --port 9465
    saga-engine start place-order --wait --input \
        '{"order_id": "o-1", "sku": "A1", "quantity": 1, "amount": "9.90", "card": "ok"}'
"""
