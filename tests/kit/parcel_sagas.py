"""The parcels as a module for `saga-engine worker`."""

from tests.kit.parcels import parcels

SAGA = parcels()
