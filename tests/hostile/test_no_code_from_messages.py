"""No message can name code: nothing here unpickles, evaluates or imports what it is told."""

import ast
from pathlib import Path

import pytest

import saga_engine

PACKAGE = Path(saga_engine.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

MAKES_CODE = {
    *("eval", "exec", "compile", "__import__", "execfile", "input", "breakpoint"),
    *("globals", "locals", "import_module", "find_spec", "run_module", "run_path"),
    *("load_module", "exec_module", "setattr", "delattr", "system", "popen"),
}
"""Functions that make code of text, or could; `getattr` has a test of its own."""

READS_OBJECTS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle",
                 "yaml", "joblib", "code", "codeop", "runpy", "imp"}  # fmt: skip

ALLOWED = {
    ("saga_engine/__init__.py", "import_module"): "the names of this package's own exports",
    ("saga_engine/loading.py", "import_module"): "the module named on the command line",
    ("saga_engine/cli/demo/scenario.py", "import_module"): "the demo's own example",
    ("saga_engine/cli/demo/servers.py", "find_spec"): "the same",
    ("saga_engine/embedded/programs.py", "find_spec"): "PostgreSQL's wheel",
    ("saga_engine/cli/standard_streams.py", "setattr"): "three words that stand there",
}

COMPUTED = {
    "saga_engine/__init__.py": "an export, by its own table",
    "saga_engine/loading.py": "the object named on the command line",
    "saga_engine/cli/config.py": "a setting, by the fields of Settings",
    "saga_engine/embedded/broker/arguments.py": "three words that stand there",
    "saga_engine/embedded/broker/virtual_host.py": "the same",
    "saga_engine/cli/standard_streams.py": "three words that stand there",
    "saga_engine/payload/serialization.py": "a field, by the fields of the record's class",
    "saga_engine/payload/equality.py": "a field, by the fields of the author's class",
    "saga_engine/decider/triggers.py": "a field, by the fields of the trigger's class",
    "saga_engine/store/incidents.py": "a column, by a tuple of names",
    "saga_engine/store/crash_suspects.py": "a column, by a tuple of names",
    "saga_engine/store/dead_letters.py": "a column, by a tuple of names",
    "simulation/repro.py": "three words that stand there",
    "saga_engine/telemetry/logs.py": "a field, by the fields of the fact's class",
}
"""Modules that look an attribute up by a computed name, and where the name comes from."""

FORMATS = {
    "saga_engine/saga/diagrams.py": "a shape of Mermaid's; the label is put into it",
    "saga_engine/tls.py": "sentences of ours, by OpenSSL's numbers; the words are those of a URL",
    "saga_engine/store/partitions.py": "a statement of ours; the month comes from the catalogue",
}
"""Modules where the text is chosen from some of ours."""


def calls(module):
    """The name of every function that is called in a module, with the call."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", None) or getattr(function, "id", "")
            yield name, node


def place(module):
    return str(module.relative_to(PACKAGE.parent))


@pytest.mark.parametrize("module", MODULES, ids=place)
def test_nothing_makes_code_of_text(module):
    for name, call in calls(module):
        if name == "compile" and ast.unparse(call.func) == "re.compile":
            continue
        if name in MAKES_CODE:
            assert (place(module), name) in ALLOWED, f"{place(module)}:{call.lineno}: {name}"


@pytest.mark.parametrize("module", MODULES, ids=place)
def test_nothing_reads_objects_and_not_data(module):
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert READS_OBJECTS.isdisjoint(name.partition(".")[0] for name in names), place(module)


@pytest.mark.parametrize("module", MODULES, ids=place)
def test_no_attribute_is_looked_up_by_a_name_that_came_from_elsewhere(module):
    computed = [
        call.lineno
        for name, call in calls(module)
        if name == "getattr" and not isinstance(call.args[1], ast.Constant)
    ]
    assert not computed or place(module) in COMPUTED, f"{place(module)}:{computed}"


@pytest.mark.parametrize("module", MODULES, ids=place)
def test_no_text_is_a_format_for_values_to_be_put_into(module):
    """`"{0.__class__}".format(x)` reads attributes; only a text that stands there may be one."""
    for name, call in calls(module):
        if name in ("format", "format_map") and isinstance(call.func, ast.Attribute):
            text = call.func.value
            constant = isinstance(text, ast.Name) and text.id.isupper()
            ours = constant or isinstance(text, ast.Constant) or place(module) in FORMATS
            assert ours, f"{place(module)}:{call.lineno}"


def test_every_exception_is_still_there():
    found = {(place(module), name) for module in MODULES for name, _ in calls(module)}
    assert ALLOWED.keys() <= found
    assert {(module, "getattr") for module in COMPUTED} <= found
