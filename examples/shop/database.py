"""Where the shop has its events and the tables of its read model."""

import os


def database_url() -> str:
    """Return SHOP_DATABASE_URL; without it the shop uses the engine's database."""
    return os.environ.get("SHOP_DATABASE_URL") or os.environ["SAGA_ENGINE_DATABASE_URL"]
