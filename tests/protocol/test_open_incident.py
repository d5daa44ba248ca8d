"""What a client sees of an incident."""

from saga_engine.protocol.open_incident import first_open_incident
from tests.kit.decider_scenario import DeciderScenario, sequential_saga


def test_a_client_sees_neither_payload_nor_text_of_an_incident():
    scenario = DeciderScenario(sequential_saga("a"))
    assert first_open_incident(scenario.run) is None
    scenario.malformed_reply("a")
    found = first_open_incident(scenario.run)
    assert found is not None
    assert found.text("r-1") == (
        f"incident r-1/1: {scenario.incident.cause} at step a (action),"
        f" since {scenario.now:%Y-%m-%d %H:%M:%S} UTC"
    )
    assert scenario.incident.message not in repr(found)
