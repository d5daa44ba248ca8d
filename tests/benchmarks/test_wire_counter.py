"""Round trips, statements and transactions are counted on the wire."""

import asyncpg
import pytest

from benchmarks.wire_counter import Conversation, TransactionCounts, WireCounts, counted

STARTUP = b"\x00\x00\x00\x08\x00\x03\x00\x00"
READY, IN_TRANSACTION = b"Z\x00\x00\x00\x05I", b"Z\x00\x00\x00\x05T"


def message(kind, body=b""):
    """A message of the protocol."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def query(text):
    return message(b"Q", text + b"\0")


SYNC = message(b"S")


@pytest.fixture
def counts():
    return WireCounts()


@pytest.fixture
def conversation(counts):
    """A connection after its startup."""
    conversation = Conversation(counts)
    conversation.client_sent(STARTUP)
    conversation.server_sent(message(b"R", b"\0\0\0\0") + READY)
    return conversation


def test_a_transaction_has_a_round_trip_for_each_request_that_waits(conversation, counts):
    conversation.client_sent(query(b"BEGIN"))
    conversation.server_sent(IN_TRANSACTION)
    bound = message(b"B", b"\0one\0" + b"\0" * 6) + message(b"E", b"\0" * 5)
    conversation.client_sent(message(b"P", b"one\0SELECT 1\0\0\0") + bound + SYNC)
    conversation.server_sent(IN_TRANSACTION)
    conversation.client_sent(query(b"COMMIT"))
    assert counts.take() == {}
    conversation.server_sent(READY)
    assert counts.take() == {("BEGIN", "SELECT 1", "COMMIT"): TransactionCounts(1, 3, 3)}


def test_requests_that_are_sent_together_are_one_round_trip(conversation, counts):
    conversation.client_sent(query(b"BEGIN") + query(b"SELECT 1") + query(b"COMMIT"))
    conversation.server_sent(IN_TRANSACTION + IN_TRANSACTION + READY)
    assert counts.take() == {("BEGIN", "SELECT 1", "COMMIT"): TransactionCounts(1, 1, 3)}


def test_a_client_that_waits_for_a_flush_makes_a_round_trip(conversation, counts):
    conversation.client_sent(message(b"P", b"one\0SELECT 1\0\0\0") + message(b"H"))
    conversation.server_sent(message(b"1"))
    conversation.client_sent(message(b"B", b"\0one\0") + message(b"E", b"\0" * 5) + SYNC)
    conversation.server_sent(READY)
    assert counts.take() == {("SELECT 1",): TransactionCounts(1, 2, 1)}


def test_the_parts_in_which_bytes_come_change_no_count(conversation, counts):
    for byte in query(b"SELECT 1"):
        conversation.client_sent(bytes([byte]))
    for byte in message(b"D", b"Z" * 30) + READY:
        conversation.server_sent(bytes([byte]))
    assert counts.take() == {("SELECT 1",): TransactionCounts(1, 1, 1)}


def test_an_encrypted_connection_is_refused(counts):
    with pytest.raises(ValueError, match="without TLS"):
        Conversation(counts).client_sent(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")


async def test_the_statements_of_asyncpg_are_counted(database_url):
    async with counted(database_url) as (url, counts):
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.fetchval("SELECT $1::int", 0)  # it is prepared now
        counts.take()
        for number in range(2):
            async with connection.transaction():
                assert await connection.fetchval("SELECT $1::int", number) == number
        await connection.close()
    [(kind, counted_transactions)] = counts.take().items()
    assert [each.strip(";") for each in kind] == ["BEGIN", "SELECT $1::int", "COMMIT"]
    assert counted_transactions == TransactionCounts(2, 6, 6)
