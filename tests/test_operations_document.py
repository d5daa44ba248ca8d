"""The settings, metrics and commands of docs/operations.md exist, and its commands run."""

import re
from pathlib import Path
from random import Random

from saga_engine.cli.main import make_app
from saga_engine.environment import PREFIX, is_injected
from saga_engine.events.read_models.read_models import READ_MODELS, register
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.schema import REVISION
from saga_engine.telemetry.metric_catalogue import METRIC_CATALOGUE
from saga_engine.worker import admission
from tests.kit.command_line import saga_engine
from tests.kit.read_models import append_random, applier, apply_all
from tests.kit.run_histories import STEPS

TEXT = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
STATISTICS = re.search(r"## Statistics\n.*?\n## ", TEXT, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


def test_its_settings_exist_with_their_documented_defaults():
    named = re.findall(rf"{PREFIX}(\w+)`(?: seconds)?(?: \(([\d.,]*\d))?", TEXT)
    assert len(named) > 5
    for name, default in named:
        if is_injected(f"{PREFIX}{name}", ""):
            continue
        field = Settings.model_fields[name.lower()]
        assert not default or field.default == float(default.replace(",", "")), name


def test_its_metrics_exist():
    names = {each.name for each in METRIC_CATALOGUE}
    endings = "total|open|seconds|admission|stranded|definition|suspects|partition"
    for name in re.findall(rf"\bsaga_[a-z_]+_(?:{endings})\b", TEXT):
        assert name in names, name


def test_its_numbers_of_slots_are_those_of_the_code():
    prose = " ".join(TEXT.split())
    assert f"starts with {admission.INITIAL_SLOTS} slots" in prose
    assert f"never fewer than {admission.MIN_SLOTS}" in prose
    assert (admission.FAST_SHARE, admission.SLOW_SHARE) == (0.25, 0.5)


async def test_its_commands_run(database, migrated_url):
    async with database.transaction() as tx:
        await register(tx)  # as `worker --events` does
    lines = [each for block in SHELL for each in block.splitlines()]
    commands = [each for each in lines if each.startswith("saga-engine ")]
    assert {each.split()[1] for each in commands} <= set(make_app())
    assert len(commands) >= 3
    for command in commands:
        arguments = re.findall(r'"([^"]*)"|(\S+)', command)
        given = [quoted or plain for quoted, plain in arguments][1:]
        ran = await saga_engine(*given, database_url=migrated_url)
        assert ran.exit_code == 0, f"{command}: {ran.err}"


def test_it_names_the_newest_migration():
    assert f"this version needs {REVISION}" in TEXT


async def test_its_queries_of_statistics_answer(database, definition_id):
    histories = await append_random(database, Random(0), definition_id, 50)
    for model in READ_MODELS:
        await applier(database, model)
        await apply_all(database, model)
    assert STATISTICS is not None
    [queries] = re.findall(r"```sql\n(.*?)```", STATISTICS[0], re.DOTALL)
    async with database.transaction() as tx:
        found = [(await tx.execute(text(each))).all() for each in queries.split(";")[:3]]
        assert sum(runs for _, _, runs in found[0]) == len(histories)
        assert [step for _, step, *_ in found[1]] == sorted(STEPS)
        assert all(p95 > 0 for *_, p95 in found[1])
        assert len(found[2]) == 20
        for model in READ_MODELS:
            assert f"`{model.table}`" in STATISTICS[0]
            assert f"`{model.name}`" in STATISTICS[0]
