"""
Create an order, after the FTGO application in Richardson's Microservices Patterns, chapter 4.

Verify the consumer, create a ticket, authorize the card (the pivot), approve ticket and order.

    saga-engine worker examples.create_order.sagas
    saga-engine participant examples.create_order.services --port 9465
    saga-engine start create-order --wait --input \
        '{"order_id": 7, "consumer_id": 1, "restaurant_id": 2, "total": "61.70"}'
"""
