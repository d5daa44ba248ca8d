"""Rules that no tool checks: sizes, first lines, package maps, exports, settings, and tests."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import saga_engine
from saga_engine.settings import Settings
from tests.kit.every_file import every_file

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "saga_engine"
MODULES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "simulation").rglob("*.py")])
PACKAGES = sorted(path for path in MODULES if path.name == "__init__.py")
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

MODULE_LINES, FUNCTION_LINES = 350, 50
LONGER: dict[str, str] = {}
"""Modules (`path`) and functions (`path:name`) that may be longer, each with a reason."""

MAY_SLEEP: dict[str, str] = {
    "tests/load/services.py": "it is a slow participant",
}
"""Test modules that may call sleep, each with a reason."""

MAY_READ_CLOCK: dict[str, str] = {
    "tests/faults/load_generator.py": "it separates recent starts from those a fault may have lost",
    "tests/faults/suite.py": "it prints the progress of the suite",
    "tests/kit/growth.py": "it compares two measurements of one process",
    "tests/hostile/fuzzing.py": "it runs for a given time",
    "tests/kit/load_environment.py": "it measures, and `make test` does not run it",
    "tests/test_shutdown.py": "it compares the deadlines of waits",
    "tests/kit/certificates.py": "certificates have dates",
    "tests/events/feeds/test_webhook_endpoint.py": "it compares the ends of pauses",
    "tests/events/feeds/test_webhook_signature.py": "another library takes new messages only",
    "tests/simulation/__main__.py": "it chooses a seed",
    "tests/simulation/campaign.py": "it prints the number of simulated runs per second",
    "tests/simulation/test_process.py": "it reads the clock of the simulation",
    "tests/simulation/test_virtual_time.py": "it reads the clock of the simulation",
    "tests/simulation/test_promises.py": "it chooses a seed",
}
"""Test modules that may read a clock, each with a reason; none depends on the machine's speed."""

CLOCK_FUNCTIONS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")

MAY_SKIP = {
    "tests/kit/servers.py": "RabbitMQ may be missing; on CI that is a failure",
    "tests/environments/pgbouncer.py": "PgBouncer may be missing; on CI that is a failure",
    "tests/kit/pid_namespace.py": "PID namespaces may be forbidden; not on CI",
    "tests/embedded/test_postgres.py": "some tests require root",
    "tests/telemetry/test_endpoint.py": "a machine may have no IPv6",
    "tests/telemetry/exposition.py": "promtool may be missing; on CI that is a failure",
    "tests/foreign/test_foreign.py": "Node.js may be missing; on CI that is a failure",
    "tests/postgres/test_pool.py": "network namespaces may be forbidden",
}
"""Test modules that may skip, each with a reason."""

TESTED_ELSEWHERE = {
    "saga_engine/amqp/declaring_channel.py": "test_declare.py declares with it",
    "saga_engine/amqp/stream_queues.py": "test_stream_topology.py declares and compares streams",
    "saga_engine/events/feeds/stream_client.py": "test_stream_connection.py tests what it raises",
    "saga_engine/events/consumers/stream_probe.py": "test_consumer_lag.py measures with it",
    "saga_engine/events/consumers/stream_subscription.py": "test_changed_source.py begins with it",
    "saga_engine/events/declared_events.py": "test_schemas.py registers the events of each kind",
    "saga_engine/cli/declared_schemas.py": "test_schemas.py checks and registers what it loads",
    "saga_engine/cli/event_database.py": "test_feeds.py and test_projections.py open it",
    "saga_engine/cli/operator_actions.py": "test_feeds.py and test_projections.py print them",
    "saga_engine/cli/process_commands.py": "test_services.py and test_supervisor.py run them",
    "saga_engine/cli/service_options.py": "test_services.py and test_projector.py set them",
    "saga_engine/client/handle.py": "it declares a record",
    "saga_engine/decider/decision.py": "test_decide.py tests what it builds",
    "saga_engine/decider/events.py": "it declares the events of decide",
    "saga_engine/decider/triggers.py": "it declares the inputs of decide",
    "saga_engine/events/projections/event_batch.py": "it declares records",
    "saga_engine/events/projections/stopped_report.py": "test_projector.py and test_read_models.py"
    " start processes that report it",
    "saga_engine/events/event_store/expected_version.py": "it declares an enum",
    "saga_engine/events/readers/event_source.py": "test_projector.py reads from one",
    "saga_engine/events/feeds/exchange_sink.py": "test_feed_publisher.py publishes to it",
    "saga_engine/events/feeds/feed_checkpoint.py": "test_feed_publisher.py keeps positions",
    "saga_engine/events/feeds/feed_sink.py": "it declares interfaces",
    "saga_engine/events/feeds/sink_opener.py": "test_feed_publisher.py opens sinks",
    "saga_engine/events/event_store/consumer_tables.py": "test_tables.py compares them",
    "saga_engine/events/consumers/batch_result.py": "test_consumer_batch.py reads them",
    "saga_engine/events/consumers/consumer_failures.py": "test_consumer_actions.py tests it",
    "saga_engine/events/consumers/failure_retry.py": "test_consumer_actions.py tests it",
    "saga_engine/events/consumers/interfaces.py": "it declares interfaces",
    "saga_engine/events/consumers/kept_messages.py": "test_consumer_batch.py tests it",
    "saga_engine/events/consumers/partition_runner.py": "test_event_consumption.py tests it",
    "saga_engine/events/consumers/partition_writer.py": "test_consumer_batch.py tests it",
    "saga_engine/events/consumers/queue_source.py": "test_event_consumption.py tests it",
    "saga_engine/events/consumers/received.py": "test_event_reader.py tests it",
    "saga_engine/events/consumers/service.py": "tests/cli/test_consumers.py runs it",
    "saga_engine/events/consumers/source_opener.py": "test_event_consumption.py opens sources",
    "saga_engine/events/consumers/source_options.py": "it declares records",
    "saga_engine/events/handlers/event_handler.py": "test_projection.py tests it",
    "saga_engine/events/handlers/handler_connection.py": "test_projection_batch.py tests it",
    "saga_engine/events/handlers/on_poison.py": "it declares an enum",
    "saga_engine/events/handlers/poison_event.py": "test_projection_batch.py tests it",
    "saga_engine/events/handlers/sql_call.py": "test_projection_batch.py tests it",
    "saga_engine/events/feeds/interfaces.py": "it declares interfaces",
    "saga_engine/events/feeds/owned_feed.py": "it declares a record",
    "saga_engine/events/feeds/webhook_backlog.py": "test_webhook_sink.py tests its loop",
    "saga_engine/events/feeds/webhook_client.py": "test_webhook_sink.py sends with it",
    "saga_engine/events/feeds/sql_feed_store.py": "its methods call tested functions",
    "saga_engine/events/projections/sql_projection_store.py": "its methods call tested functions",
    "saga_engine/events/projections/interfaces.py": "it declares an interface",
    "saga_engine/events/readers/interfaces.py": "it declares interfaces",
    "saga_engine/events/readers/owned_loop.py": "test_projector.py tests the loop",
    "saga_engine/events/projections/locked_version.py": "test_projection_batch.py tests it",
    "saga_engine/events/projections/overdue_call.py": "test_projection_batch.py tests it",
    "saga_engine/events/projections/poison_search.py": "test_projection_batch.py tests it",
    "saga_engine/events/projections/projection_failures.py": "test_projection_batch.py tests it",
    "saga_engine/events/projections/projection_key.py": "it declares an interface",
    "saga_engine/events/projections/projection_runner.py": "test_projector.py tests the loop",
    "saga_engine/events/projections/stream_retry.py": "test_projection_batch.py tests it",
    "saga_engine/events/read_models/read_model.py": "test_run_statistics.py executes what it makes",
    "saga_engine/events/read_models/read_model_runner.py": "test_read_models.py tests the loop",
    "saga_engine/events/projections/projection_version.py": "it declares a record",
    "saga_engine/events/event_store/recorded.py": "it declares records",
    "saga_engine/events/readers/sql_event_store.py": "its methods call tested functions",
    "saga_engine/events/event_store/savepoint.py": "test_read_model_batch.py tests what it undoes",
    "saga_engine/events/aggregates/source_hash.py": "test_fingerprint.py tests what it reads",
    "saga_engine/events/readers/stored_name.py": "test_projection_rules.py tests it",
    "saga_engine/events/projections/table_exchange.py": "test_projection_switch.py tests it",
    "saga_engine/participant/driver_barrier_table.py": "test_sql_barrier_table.py tests both",
    "saga_engine/participant/failure_codes.py": "it declares an enum",
    "saga_engine/participant/interfaces.py": "it declares an interface",
    "saga_engine/payload/annotations.py": "it declares a type",
    "saga_engine/payload/ports.py": "it declares a record",
    "saga_engine/postgres/session_changes.py": "tests/participant/test_session_changes.py",
    "saga_engine/protocol/dead_letter_reason.py": "it declares an enum",
    "saga_engine/protocol/failure.py": "test_reply.py tests what it writes",
    "saga_engine/protocol/message.py": "it declares records",
    "saga_engine/protocol/unreadable.py": "it declares a record",
    "saga_engine/schemas/avro_record.py": "test_avro_schema.py and test_avro_codec.py test it",
    "saga_engine/schemas/avro_union.py": "test_avro_schema.py and test_avro_codec.py test it",
    "saga_engine/schemas/avro_values.py": "test_avro_schema.py and test_avro_codec.py test it",
    "saga_engine/schemas/stored_schema.py": "it declares records",
    "saga_engine/store/interfaces.py": "it declares interfaces",
    "saga_engine/store/partition_tables.py": "test_partitions.py tests what the statements do",
    "saga_engine/store/sql_store.py": "each method calls a function of a module that has tests",
    "saga_engine/telemetry/consumer_metrics.py": "test_metrics.py tests every event",
    "saga_engine/telemetry/exposition.py": "test_metrics.py and test_merged_metrics.py render it",
    "saga_engine/telemetry/metric_catalogue.py": "it declares metrics; test_document.py reads them",
    "saga_engine/telemetry/operations.py": "it declares an enum",
}
"""Modules without a test file of their name, each with the reason."""

SLEEP_FUNCTIONS = ("asyncio.sleep", "time.sleep")
SKIP_FUNCTIONS = ("pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.xfail")
ENTRY = re.compile(r"^    (\w+/?) {2,}\S", re.MULTILINE)
"""A line of a package map: a module, or a package with a slash, and its purpose."""
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|home|root|Users|mnt)/")


def relative(path):
    return str(path.relative_to(ROOT))


@every_file(MODULES)
def test_a_module_is_short_and_its_first_line_describes_it(module):
    source = module.read_text()
    assert source.count("\n") <= MODULE_LINES or relative(module) in LONGER
    first = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
    assert len(first.split()) >= 3, "the first line describes nothing"
    assert first.endswith((".", ":", ",", "?")), first


@every_file(PACKAGES)
def test_a_package_map_names_every_module_and_no_other(package):
    named = ENTRY.findall(ast.get_docstring(ast.parse(package.read_text()), clean=False) or "")
    modules = [path.stem for path in package.parent.glob("*.py") if path.stem[:2] != "__"]
    packages = [f"{path.parent.name}/" for path in package.parent.glob("*/__init__.py")]
    assert sorted(named) == sorted([*modules, *packages])


@every_file(MODULES)
def test_a_function_is_short(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            name = f"{relative(module)}:{node.name}"
            assert length <= FUNCTION_LINES or name in LONGER, f"{name} has {length} lines"


def test_every_longer_module_and_function_exists():
    for name in LONGER:
        path, _, function = name.partition(":")
        assert f"def {function}" in (ROOT / path).read_text()


def test_imports_point_down():
    lint = Path(sys.executable).with_name("lint-imports")
    lint_run = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert lint_run.returncode == 0, lint_run.stdout


def test_the_stub_declares_the_public_names():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    declared = {
        alias.asname or alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    package: Any = saga_engine  # the stub does not declare the names of the loader
    assert declared == package._MODULES
    assert sorted(declared) == sorted(package.__all__)
    for name in declared:
        assert getattr(saga_engine, name).__doc__


@cache
def names_that_are_read():
    """Each name behind a dot, in the modules that use settings."""
    return {
        name
        for path in MODULES
        if "settings" not in path.parts
        for name in re.findall(r"\.(?:require_)?(\w+)", path.read_text())
    }


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_a_setting_is_described_and_used(name):
    assert Settings.model_fields[name].description
    base = name.removesuffix("_url")
    assert names_that_are_read() & {base, f"{base}_url"}, f"nothing reads {name}"


def expected_test_files(module: Path) -> list[Path]:
    """
    The files in which a reader looks for the tests of a module.

    Those of `store/runs.py` are in `tests/store/test_runs.py`, those of `tls.py` in
    `tests/test_tls.py`. A package is tested as a whole where it has a file of its name, such as
    `tests/test_settings.py` and `tests/embedded/test_broker.py`.
    """
    names = module.with_suffix("").relative_to(PACKAGE).parts
    return [
        (ROOT / "tests").joinpath(*names[:depth], f"test_{names[depth]}.py")
        for depth in range(len(names))
    ]


@every_file(sorted(PACKAGE.rglob("[!_]*.py")))
def test_the_tests_of_a_module_are_found_by_its_name(module):
    expected = expected_test_files(module)
    assert any(each.exists() for each in expected) or relative(module) in TESTED_ELSEWHERE


def test_every_module_that_is_tested_elsewhere_exists_and_has_no_test_file():
    for name in TESTED_ELSEWHERE:
        assert (ROOT / name).exists(), name
        assert not any(each.exists() for each in expected_test_files(ROOT / name)), name


@every_file(TESTS)
def test_no_file_imports_from_a_test_file(path):
    imported = [
        (node.module or "").rpartition(".")[2]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    ]
    assert not [name for name in imported if name.startswith("test_")], "use tests/kit"


@every_file([*MODULES, *DOCUMENTS])
def test_no_path_of_a_machine_is_in_the_repository(path):
    assert not MACHINE_PATH.findall(path.read_text())


@every_file(TESTS)
def test_a_test_neither_sleeps_nor_skips(path):
    functions = (*SLEEP_FUNCTIONS, *SKIP_FUNCTIONS)
    last_names = {name.rpartition(".")[2] for name in functions}
    called = [
        (ast.unparse(node), node.lineno)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in last_names
    ]
    if relative(path) not in MAY_SLEEP:
        sleeping = [line for name, line in called if name in SLEEP_FUNCTIONS]
        assert not sleeping, "wait for a signal"
    if relative(path) not in MAY_SKIP:
        skipping = [line for name, line in called if name in SKIP_FUNCTIONS]
        assert not skipping, "use tests/kit/servers.py, which fails on CI"


def clocks_read(source: str) -> list[int]:
    """The lines that read a clock: of the module `time`, or of an event loop."""
    found = []
    names = {f"time.{each}{ns}" for each in CLOCK_FUNCTIONS for ns in ("", "_ns")}
    last_names = {name.rpartition(".")[2] for name in names}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [node.lineno for each in node.names if f"time.{each.name}" in names]
        elif isinstance(node, ast.Attribute) and node.attr in last_names:
            of = ast.unparse(node.value)
            loops = node.attr == "time" and of.removesuffix("()").endswith("loop")
            found += [node.lineno] if loops or ast.unparse(node) in names else []
    return found


@every_file(TESTS)
def test_a_test_does_not_read_a_clock(path):
    read = clocks_read(path.read_text())
    assert not read or relative(path) in MAY_READ_CLOCK, "count, or wait for a signal"


def test_every_module_that_may_read_a_clock_does():
    assert [each for each in MAY_READ_CLOCK if not clocks_read((ROOT / each).read_text())] == []


@pytest.mark.parametrize(
    "source",
    [
        "from time import perf_counter",
        "import time\ntime.monotonic()",
        "clock = time.monotonic_ns",
        "asyncio.get_running_loop().time()",
        "self.loop.time",
    ],
)
def test_a_read_clock_is_found(source):
    assert clocks_read(source)
