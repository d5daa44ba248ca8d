"""The schemas that a module declares: of its events, and of the messages of its sagas."""

from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.consumers import consumer_rules
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.declared_events import event_types_of_declaration
from saga_engine.events.event_store.event_schema import event_schemas
from saga_engine.events.feeds.feed import Feed
from saga_engine.events.projections.projection import Projection
from saga_engine.loading import load_objects
from saga_engine.saga.definition import Saga
from saga_engine.schemas.declared_schema import DeclaredSchema
from saga_engine.schemas.saga_schemas import schemas_of_saga
from saga_engine.settings import Settings
from saga_engine.worker.registry import validated

_KINDS = (Saga, Aggregate, Projection, Feed, Consumer)


def load_schemas(module: str, settings: Settings) -> list[DeclaredSchema]:
    """
    Import `MODULE` or `MODULE:NAME`, and return its schemas by subject and version.

    Raises:
        ConfigurationError: it cannot be imported, or declares nothing with a schema.
        DefinitionError: a declaration in it breaks a rule.
    """
    found = load_objects(module, _KINDS, settings.import_timeout)
    sagas = validated([each for each in found if isinstance(each, Saga)])
    types = [kind for each in found for kind in event_types_of_declaration(each)]
    declared = [*event_schemas(types), *(each for saga in sagas for each in schemas_of_saga(saga))]
    return sorted(declared, key=lambda each: (each.subject, each.schema.version))


def load_consumers(module: str, settings: Settings) -> list[Consumer]:
    """
    Return the consumers of a module, whose models read schemas and declare none.

    Raises:
        DefinitionError: one of them breaks a rule.
    """
    found = load_objects(module, _KINDS, settings.import_timeout)
    consumers = [each for each in found if isinstance(each, Consumer)]
    consumer_rules.check(consumers)
    return consumers
