"""A sample belongs to the group of its innermost frame that has one."""

from benchmarks.runs.profile_groups import OTHER, group_of, shares

LOOP = "run_forever (asyncio/base_events.py:607)"
DECIDE = "decide (saga_engine/decider/decide.py:40)"


def test_the_innermost_frame_with_a_group_decides():
    assert group_of(f"{LOOP};{DECIDE};replace (copy.py:3)") == "decider"
    assert group_of(f"{LOOP};send (socket.py:1)") == "event loop"
    assert group_of("main (site.py:1)") == OTHER


def test_the_shares_are_percentages_of_all_samples():
    assert shares([f"{LOOP};{DECIDE} 3", f"{LOOP} 1", ""]) == {"decider": 75.0, "event loop": 25.0}


def test_a_thread_that_waits_is_not_counted():
    waiting = "run (watch.py:1);Event.wait (threading.py:629);Condition.wait (threading.py:327)"
    assert shares([f"{LOOP};{DECIDE} 3", f"{waiting} 9"]) == {"decider": 100.0}
