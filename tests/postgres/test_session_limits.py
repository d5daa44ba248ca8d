"""The limits of a session, made of the settings."""

from saga_engine.postgres.session_limits import session_arguments
from saga_engine.settings import Settings


def test_the_limits_follow_the_settings():
    settings = Settings(
        database_transaction_timeout=2.5, database_lock_timeout=0.25, database_connect_timeout=3.0
    )
    arguments = session_arguments(settings)
    assert (arguments["timeout"], arguments["command_timeout"]) == (3.0, 2.5)
    limits = arguments["server_settings"]
    assert (limits["statement_timeout"], limits["lock_timeout"]) == ("2500", "250")
    assert limits["idle_in_transaction_session_timeout"] == "2500"
