"""`saga-engine schemas`: the registered schemas, and whether a module fits them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from saga_engine.cli.declared_schemas import load_consumers, load_schemas
from saga_engine.cli.event_database import event_transaction, registry_transaction
from saga_engine.cli.exit_status import EXIT_PROBLEMS_FOUND
from saga_engine.cli.output import (
    AsJson,
    print_document,
    print_done,
    print_field,
    print_json,
    print_line,
    print_stderr,
    print_table,
)
from saga_engine.cli.schema_problems import avro_problems, find_problems, not_judged
from saga_engine.errors import DefinitionError, NotFound
from saga_engine.events.consumers.reader_schemas import ReadEvent, check_readers
from saga_engine.postgres.statement import Transaction
from saga_engine.schemas import registration, registry
from saga_engine.schemas.avro_compatibility import compare_avro
from saga_engine.schemas.avro_schema import avro_type
from saga_engine.schemas.comparison import compare
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.declared_schema import DeclaredSchema
from saga_engine.schemas.judgement import earlier_schemas
from saga_engine.schemas.registry import key_of
from saga_engine.schemas.stored_schema import StoredSchema, StoredSubject
from saga_engine.settings import Settings

app = App(name="schemas", help="List, show, compare, check and export.", version_flags=())

TABLE_COLUMNS = ("subject", "kind", "compatibility", "version", "schema", "registered")

SchemaId = Annotated[
    int | None, Parameter(name="--id", help="A schema by its id; the default is the newest.")
]


InAvro = Annotated[
    bool, Parameter(name="--avro", help="Judge the events as their consumers in Avro do, too.")
]
AsAvro = Annotated[bool, Parameter(name="--avro", help="The Avro schema, not the JSON Schema.")]


@app.command(name="list")
async def list_schemas(*, as_json: AsJson = False) -> None:
    """List the newest schema of each event, command and reply."""
    async with event_transaction() as tx:
        subjects = await registry.read_subjects(tx)
        newest = {each.subject: each for each in await registry.read(tx)}
    documents = [_summary(subjects[name], newest[name]) for name in subjects if name in newest]
    if as_json:
        print_json({"schemas": documents})
        return
    rows = [[*document.values()] for document in documents]
    print_table(TABLE_COLUMNS, rows, empty="No process has registered a schema.")


@app.command
async def show(subject: str, /, *, schema_id: SchemaId = None, as_json: AsJson = False) -> None:
    """
    Show a schema, and which versions of it are registered.

    Args:
        subject: The name of an event; SAGA/STEP, SAGA/STEP/reply or SAGA/STEP/compensation.
    """
    async with event_transaction() as tx:
        found, versions = await _read(tx, subject)
    shown = _chosen(versions, schema_id)
    document = {
        **_summary(found, shown),
        "fingerprint": shown.fingerprint,
        "writes": shown.schema.writes,
        "reads": shown.schema.reads,
        "versions": [_version(each) for each in versions],
    }
    if as_json:
        print_json({"schema": document})
        return
    for name, value in document.items():
        if name != "versions":
            print_field(name, value, label_width=len("compatibility"))
    rows = [[*_version(each).values()] for each in versions]
    print_table(("version", "schema", "registered"), rows, empty="")


@app.command
async def diff(
    subject: str, old: int, new: int, /, *, avro: AsAvro = False, as_json: AsJson = False
) -> None:
    """
    Compare two registered schemas in both directions; those of Avro with Avro's own checker.

    Args:
        subject: As `schemas list` prints it.
        old: The id of one.
        new: The id of the other.
    """
    async with event_transaction() as tx:
        _, versions = await _read(tx, subject)
    one, other = _chosen(versions, old), _chosen(versions, new)
    names = {each.id: f"schema {each.id} (version {each.schema.version})" for each in versions}
    differences = _avro_differences if avro else _differences
    directions = {
        "backward": differences(one, other, names),
        "forward": differences(other, one, names),
    }
    if as_json:
        print_json({"subject": subject, "old": old, "new": new, **directions})
        return
    for direction, (writer, reader) in {"backward": (old, new), "forward": (new, old)}.items():
        sentences = directions[direction]
        verdict = "cannot read" if sentences else "reads"
        print_line(f"{direction}: {names[reader]} {verdict} what {names[writer]} has written")
        for each in sentences:
            print_line(f"  {each['problem']}")


@app.command
async def check(module: str, /, *, avro: InAvro = False, as_json: AsJson = False) -> int:
    """
    Compare what a module declares with what is registered; exit 8 if a schema breaks.

    Nothing is registered. Run it in CI, with the URL of the database that the module is for; events
    that a consumer reads are compared with those of the registry, and must be registered there.

    Args:
        module: MODULE or MODULE:NAME.
    """
    settings = Settings.load()
    declared = load_schemas(module, settings)
    async with event_transaction() as tx:
        problems = [*not_judged(declared), *await find_problems(tx, declared)]
        if avro:
            problems += await avro_problems(tx, declared)
        checked = await _checked(tx, declared)
    async with registry_transaction(settings) as tx:
        names = {each.subject for each in declared}
        read = await check_readers(tx, load_consumers(module, settings), names)
    problems += [problem for each in read for problem in each.problems]
    return _print_checked(checked, problems, read, as_json=as_json)


@app.command
async def register(module: str, /, *, as_json: AsJson = False) -> int:
    """
    Register the schemas of a module; if one breaks, register none and exit 8.

    A projector and a worker do it when they start. A service that only appends events has its
    schemas registered with this command, when it is deployed.

    Args:
        module: MODULE or MODULE:NAME.
    """
    settings = Settings.load()
    declared = load_schemas(module, settings)
    problems: Sequence[DefinitionError] = ()
    try:
        async with event_transaction() as tx:
            await registration.register(tx, declared, settings)
            await _refuse_problems(tx, declared)
            checked = await _checked(tx, declared)
    except _RefusedError as error:
        problems = error.problems
        async with event_transaction() as tx:
            checked = await _checked(tx, declared)
    return _print_checked(checked, problems, as_json=as_json)


class _RefusedError(Exception):
    """What is registered breaks: roll back."""

    def __init__(self, problems: Sequence[DefinitionError]) -> None:
        super().__init__()
        self.problems = problems


async def _refuse_problems(tx: Transaction, declared: Sequence[DeclaredSchema]) -> None:
    """Judge schemas under their locks: another process may have registered one just now."""
    if problems := await find_problems(tx, declared):
        raise _RefusedError(problems)


@app.command
async def export(subject: str, /, *, schema_id: SchemaId = None, avro: AsAvro = False) -> None:
    """
    Print the JSON Schema or the Avro schema of what is written, for programs that read it.

    Args:
        subject: As `schemas list` prints it.
    """
    async with event_transaction() as tx:
        _, versions = await _read(tx, subject)
    writes = _chosen(versions, schema_id).schema.writes
    print_document(avro_type(subject, writes).schema if avro else writes)


@app.command(name="set")
async def set_compatibility(
    subject: str, /, *, compatibility: Compatibility, as_json: AsJson = False
) -> None:
    """
    Choose which versions of a schema must read each other.

    Args:
        subject: As `schemas list` prints it.
        compatibility: For all versions that are registered from now on.
    """
    async with event_transaction() as tx:
        await registry.set_compatibility(tx, subject, compatibility)
    text = f"{subject} is checked for {compatibility.value} compatibility."
    done = {"subject": subject, "compatibility": compatibility.value}
    print_done(text, done, as_json=as_json)


async def _read(tx: Transaction, subject: str) -> tuple[StoredSubject, list[StoredSchema]]:
    versions = await registry.read(tx, [subject])
    if not versions:
        raise registry.not_registered(subject)
    return (await registry.read_subjects(tx, [subject]))[subject], versions


def _chosen(versions: Sequence[StoredSchema], schema_id: int | None) -> StoredSchema:
    if schema_id is None:
        return versions[-1]
    for each in versions:
        if each.id == schema_id:
            return each
    ids = ", ".join(str(each.id) for each in versions)
    raise NotFound(f"{versions[0].subject} has no schema {schema_id}. It has: {ids}.")


def _summary(subject: StoredSubject, newest: StoredSchema) -> Mapping[str, Any]:
    return {
        "subject": subject.subject,
        "kind": subject.kind.value,
        "compatibility": subject.compatibility.value,
        **_version(newest),
    }


def _version(schema: StoredSchema) -> Mapping[str, Any]:
    return {
        "version": schema.schema.version,
        "id": schema.id,
        "registered_at": schema.registered_at,
    }


def _differences(
    writer: StoredSchema, reader: StoredSchema, names: Mapping[int, str]
) -> list[Mapping[str, str]]:
    return [
        {"path": each.path, "problem": each.sentence(names[writer.id], names[reader.id])}
        for each in compare(writer.schema.writes, reader.schema.reads)
    ]


def _avro_differences(
    writer: StoredSchema, reader: StoredSchema, _: Mapping[int, str]
) -> list[Mapping[str, str]]:
    written, read = (avro_type(each.subject, each.schema.writes) for each in (writer, reader))
    return [{"problem": each} for each in compare_avro(written.schema, read.schema)]


async def _checked(tx: Transaction, declared: Sequence[DeclaredSchema]) -> list[Mapping[str, Any]]:
    """What is known of declared schemas, as documents."""
    stored = await registry.read(tx, {each.subject for each in declared})
    registered = await registry.find_ids(tx, declared)
    return [
        {
            "subject": each.subject,
            "kind": each.kind.value,
            "version": each.schema.version,
            "id": registered.get(key_of(each)),
            "earlier": len(
                earlier_schemas(each, [other for other in stored if other.subject == each.subject])
            ),
            "location": each.source_location,
        }
        for each in declared
    ]


def _print_checked(
    checked: Sequence[Mapping[str, Any]],
    problems: Sequence[DefinitionError],
    read: Sequence[ReadEvent] = (),
    *,
    as_json: bool,
) -> int:
    if as_json:
        found = [
            {"location": each.location, "problem": each.problem, "fix": each.fix}
            for each in problems
        ]
        reads = [
            {
                "consumer": each.consumer,
                "event": each.event,
                "schemas": each.schemas,
                "location": each.location,
            }
            for each in read
        ]
        lists = {"schemas": checked, "reads": reads, "problems": found}
        print_json({"compatible": not problems, **lists})
    for error in () if as_json else problems:
        print_stderr(str(error))
    for each in () if as_json or problems else checked:
        print_line(_verdict(each))
    if not (as_json or problems or checked or read):
        print_line("No class of an event, a command or a reply is declared: nothing was compared.")
    for event in () if as_json or problems else read:
        number = "1 schema is" if event.schemas == 1 else f"{event.schemas} schemas are"
        print_line(f"{event.consumer} reads {event.event}: {number} registered")
    return EXIT_PROBLEMS_FOUND if problems else 0


def _verdict(checked: Mapping[str, Any]) -> str:
    earlier, schema_id = checked["earlier"], checked["id"]
    compared = f"compatible with {earlier} earlier" if earlier else "the first"
    state = "not registered yet" if schema_id is None else f"schema {schema_id}"
    return f"{checked['subject']} version {checked['version']}: {compared}, {state}"
