"""The parcels as a module for `saga-engine worker`."""

from tests.worker.parcels import parcels

SAGA = parcels()
