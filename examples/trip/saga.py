from pydantic import BaseModel

from saga_engine import Saga


class Trip(BaseModel):
    trip_id: str
    city: str


class Flight(BaseModel):
    number: str


trips = Saga("book-trip", version=1, input=Trip)


@trips.step(command="flight.book", reply=Flight)
def book_flight(trip: Trip) -> Trip:
    return trip


@book_flight.compensation(command="flight.cancel")
def cancel_flight(trip: Trip) -> Trip:
    return trip


@trips.step(command="hotel.book")
def book_hotel(trip: Trip, book_flight: Flight) -> dict[str, str]:
    return {"trip_id": trip.trip_id, "city": trip.city, "arriving_with": book_flight.number}


@book_hotel.compensation(command="hotel.cancel")
def cancel_hotel(trip: Trip) -> Trip:
    return trip
