"""No message can name code: nothing that the engine receives is evaluated or imported."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path for package in ("saga_engine", "simulation") for path in (ROOT / package).rglob("*.py")
)

CODE_FUNCTIONS = {
    *("eval", "exec", "compile", "__import__", "execfile", "input", "breakpoint"),
    *("globals", "locals", "import_module", "find_spec", "run_module", "run_path"),
    *("load_module", "exec_module", "setattr", "delattr", "system", "popen"),
}
"""Functions that turn text into code, or could. `getattr` has a test of its own."""

OBJECT_FORMATS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle",
                  "yaml", "joblib", "code", "codeop", "runpy", "imp"}  # fmt: skip
"""Modules that read objects or code, not only data."""

ALLOWED_CALLS = {
    ("saga_engine/__init__.py", "import_module"): "the exports of this package",
    ("saga_engine/events/__init__.py", "import_module"): "the exports of this package",
    (
        "saga_engine/events/projections/column_types.py",
        "compile",
    ): "a type, made into SQL",
    (
        "saga_engine/events/event_store/event_types.py",
        "setattr",
    ): "a constant name, on a class",
    ("saga_engine/loading.py", "import_module"): "the module named on the command line",
    ("saga_engine/cli/demo/place_order.py", "import_module"): "the example of the demo",
    ("saga_engine/cli/demo/shop.py", "import_module"): "the example of the demo",
    ("saga_engine/cli/demo/servers.py", "find_spec"): "the example of the demo",
    ("saga_engine/embedded/programs.py", "find_spec"): "the wheel of PostgreSQL",
    ("saga_engine/cli/standard_streams.py", "setattr"): "three constant names",
}

COMPUTED_NAMES = {
    "saga_engine/__init__.py": "an export, from the table of exports",
    "saga_engine/events/__init__.py": "an export, from the table of exports",
    "saga_engine/events/event_store/append.py": "a field, from a tuple of names",
    "saga_engine/decider/events.py": "a field, from the fields of Incident",
    "saga_engine/participant/handler_connection.py": "an attribute that SQLAlchemy reads",
    "saga_engine/loading.py": "the object named on the command line",
    "saga_engine/cli/config.py": "a setting, from the fields of Settings",
    "saga_engine/embedded/broker/arguments.py": "three constant names",
    "saga_engine/embedded/broker/virtual_host.py": "three constant names",
    "saga_engine/cli/standard_streams.py": "three constant names",
    "saga_engine/payload/serialization.py": "a field, from the fields of the record's class",
    "saga_engine/payload/equality.py": "a field, from the fields of the author's class",
    "saga_engine/store/incidents.py": "a column, from a tuple of names",
    "saga_engine/store/crash_suspects.py": "a column, from a tuple of names",
    "saga_engine/store/dead_letters.py": "a column, from a tuple of names",
    "simulation/repro.py": "a field of SimulationConfig, from a constant table",
    "saga_engine/telemetry/logs.py": "a field, from the fields of the event's class",
}
"""Modules that look up an attribute by a computed name, and the source of the name."""

FORMAT_TEMPLATES = {
    "saga_engine/saga/diagrams.py": "a constant shape of Mermaid; the label is inserted",
    "saga_engine/tls.py": "a constant message for an OpenSSL error; words of the URL are inserted",
    "saga_engine/store/partition_tables.py": "a constant statement; a month of the catalog",
}
"""Modules that choose the template from constants."""


def calls(module):
    """Each call in a module, with the name of the function."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", None) or getattr(function, "id", "")
            yield name, node


def relative(module):
    return str(module.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_no_text_becomes_code(module):
    for name, call in calls(module):
        if name == "compile" and ast.unparse(call.func) == "re.compile":
            continue
        if name in CODE_FUNCTIONS:
            location = f"{relative(module)}:{call.lineno}: {name}"
            assert (relative(module), name) in ALLOWED_CALLS, location


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_no_format_that_can_hold_objects_is_read(module):
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert OBJECT_FORMATS.isdisjoint(name.partition(".")[0] for name in names), module


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_attributes_are_looked_up_by_constant_names(module):
    computed = [
        call.lineno
        for name, call in calls(module)
        if name == "getattr" and not isinstance(call.args[1], ast.Constant)
    ]
    assert not computed or relative(module) in COMPUTED_NAMES, f"{relative(module)}:{computed}"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_format_templates_are_constants(module):
    """`"{0.__class__}".format(x)` reads attributes, so no template may come from a message."""
    for name, call in calls(module):
        if name in ("format", "format_map") and isinstance(call.func, ast.Attribute):
            text = call.func.value
            constant = isinstance(text, ast.Name) and text.id.isupper()
            allowed = isinstance(text, ast.Constant) or relative(module) in FORMAT_TEMPLATES
            assert constant or allowed, f"{relative(module)}:{call.lineno}"


def test_every_exception_is_still_needed():
    found = {(relative(module), name) for module in MODULES for name, _ in calls(module)}
    assert ALLOWED_CALLS.keys() <= found
    assert {(module, "getattr") for module in COMPUTED_NAMES} <= found
