"""
The README's example: book a flight and a hotel, or neither.

    saga-engine worker examples.trip.saga
    saga-engine participant examples.trip.services --port 9465
    saga-engine start book-trip --wait --input '{"trip_id": "t-1", "city": "Lisbon"}'
"""
