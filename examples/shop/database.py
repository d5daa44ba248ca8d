"""Where the shop has its events and the tables of its read model."""

import os


def database_url() -> str:
    """Return SHOP_DATABASE_URL; without it the shop uses the engine's database."""
    url = os.environ.get("SHOP_DATABASE_URL") or os.environ.get("SAGA_ENGINE_DATABASE_URL")
    if not url:
        raise RuntimeError(
            "Set SHOP_DATABASE_URL or SAGA_ENGINE_DATABASE_URL: the shop keeps its events there."
        )
    return url
