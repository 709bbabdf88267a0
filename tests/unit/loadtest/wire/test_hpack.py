"""Header fields: the examples of RFC 7541's appendix C, and what we write read back."""

from __future__ import annotations

import random

import pytest

from naiad.loadtest._wire.frames import ProtocolError
from naiad.loadtest._wire.hpack import FieldReader, FieldWriter
from naiad.loadtest._wire.huffman import decode_huffman

FIRST = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
SECOND = [*FIRST, ("cache-control", "no-cache")]
THIRD = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
]
OK = [
    (":status", "302"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("location", "https://www.example.com"),
]
NOT_MODIFIED = [(":status", "307"), *OK[1:]]
COOKIE = [
    (":status", "200"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
    ("location", "https://www.example.com"),
    ("content-encoding", "gzip"),
    ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]


@pytest.mark.parametrize(
    ("table_bytes", "blocks"),
    [
        (
            4096,
            [
                ("828684410f7777772e6578616d706c652e636f6d", FIRST),
                ("828684be58086e6f2d6361636865", SECOND),
                ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", THIRD),
            ],
        ),
        (
            4096,
            [
                ("828684418cf1e3c2e5f23a6ba0ab90f4ff", FIRST),
                ("828684be5886a8eb10649cbf", SECOND),
                ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", THIRD),
            ],
        ),
        (
            256,
            [
                (
                    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a32"
                    "3120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                    OK,
                ),
                ("4803333037c1c0bf", NOT_MODIFIED),
            ],
        ),
        (
            256,
            [
                (
                    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad"
                    "171863c78f0b97c8e9ae82ae43d3",
                    OK,
                ),
                ("4883640effc1c0bf", NOT_MODIFIED),
                (
                    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2"
                    "e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                    COOKIE,
                ),
            ],
        ),
    ],
    ids=["requests", "requests in Huffman code", "answers", "answers in Huffman code"],
)
def test_the_examples_of_the_standard_are_read(
    table_bytes: int, blocks: list[tuple[str, list[tuple[str, str]]]]
) -> None:
    """Indexed fields, literals, Huffman code, and a table that forgets."""
    reader = FieldReader(table_bytes)
    for block, fields in blocks:
        assert reader.read(bytes.fromhex(block)) == fields


def test_what_is_written_is_read_back() -> None:
    """Fields come back, known or not, few or more than the table holds, and then in fewer bytes."""
    writer, reader = FieldWriter(), FieldReader()
    fields = [(f"x-{number}", "value" * (number % 60)) for number in range(100)]
    first, again = writer.write([*FIRST, *fields, *COOKIE])
    second, _ = writer.write([*FIRST, *fields, *COOKIE])
    assert reader.read(first) == reader.read(second) == [*FIRST, *fields, *COOKIE]
    assert not again
    assert len(second) < len(first)


def test_the_same_bytes_may_be_sent_again_when_nothing_is_new() -> None:
    """Once all fields are in the table, a block is the same each time and a byte for each field."""
    writer, reader = FieldWriter(), FieldReader()
    reader.read(writer.write(THIRD)[0])
    block, again = writer.write(THIRD)
    assert again
    assert len(block) == len(THIRD)
    assert reader.read(block) == reader.read(block) == THIRD


def test_a_smaller_table_is_kept_to() -> None:
    """After the other side asked for a smaller table, nothing refers to what it has forgotten."""
    writer, reader = FieldWriter(), FieldReader()
    reader.read(writer.write(COOKIE)[0])
    writer.shrink(60)
    small = FieldReader(60)
    block, again = writer.write(COOKIE)
    assert not again
    assert small.read(block) == reader.read(block) == COOKIE
    assert small.read(writer.write(COOKIE)[0]) == COOKIE


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("80", "field 0"),
        ("be", "field 62"),
        ("ffffffffffff7f", "too large"),
        ("41", "ends within"),
        ("410f7777", "ends within"),
        ("3fe2ff03", "table of"),
        ("4182ffff", "Huffman"),
        ("4184ffffffff", "Huffman"),
        ("418100", "Huffman"),
    ],
)
def test_what_is_no_header_block_is_an_error(block: str, reason: str) -> None:
    """Each way of being wrong has its reason."""
    with pytest.raises(ProtocolError, match=reason):
        FieldReader().read(bytes.fromhex(block))


def test_random_bytes_are_fields_or_an_error() -> None:
    """Nothing else comes out of garbage."""
    generator = random.Random(5)
    reader, num_errors = FieldReader(), 0
    for _ in range(3_000):
        try:
            reader.read(generator.randbytes(generator.randrange(1, 40)))
            decode_huffman(generator.randbytes(8))
        except ProtocolError:
            num_errors += 1
    assert 100 < num_errors < 3_000
