"""The store in PostgreSQL and its model are both a Store. mypy reads this file; nothing runs it."""

from saga_engine.store.business_keys import KeyTable
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.store.partitions import PartitionTables
from saga_engine.store.sql_store import SqlStore, SqlStoreTransaction
from simulation.memory_store import MemoryStore, MemoryStoreTransaction


def stores(sql: SqlStore, memory: MemoryStore) -> list[Store]:
    return [sql, memory]


def transactions(
    sql: SqlStoreTransaction, memory: MemoryStoreTransaction
) -> list[StoreTransaction]:
    return [sql, memory]


def tables(memory: MemoryStoreTransaction) -> tuple[KeyTable, PartitionTables]:
    return memory, memory
