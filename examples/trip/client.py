import asyncio

from examples.trip.saga import Trip, trips
from saga_engine import Client


async def book(trip: Trip) -> str:
    async with Client() as client:
        handle = await client.start(trips, trip, key=trip.trip_id)
        result = await client.result(handle.run_id, timeout=60)
        return result.status


if __name__ == "__main__":
    print(asyncio.run(book(Trip(trip_id="t-1", city="Lisbon"))))
    print(asyncio.run(book(Trip(trip_id="t-2", city="Atlantis"))))
