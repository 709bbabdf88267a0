"""Answers of broken and hostile servers, and unusual ones that are right."""

from naiad.client._protocol.protobuf import varint
from naiad.client._protocol.wire import MAX_ENTRIES


def nested(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def output(name: bytes = b"y", datatype: bytes = b"FP32", dims: bytes = b"\1", more: bytes = b"") -> bytes:
    return nested(5, nested(1, name) + nested(2, datatype) + nested(3, dims) + more)


def shape(*dims: int) -> bytes:
    return b"".join(map(varint, dims))


def packed(size: int, value: bytes) -> bytes:
    return value * (size // len(value))


PLAIN = output() + nested(6, bytes(4))
MANY = 1_000_000
GROUP, END = varint(99 << 3 | 3), varint(99 << 3 | 4)
HOSTILE = {
    "truncated": PLAIN[:-1],
    "a number without end": b"\xff" * 11,
    "a key of six bytes": b"\xb2\x80\x80\x80\x80\x00" + b"\0",
    "a length of six bytes": output() + b"\x32\x84\x80\x80\x80\x80\x00" + bytes(4),
    "field number 0": PLAIN + b"\0\0",
    "field number 0 with bytes": PLAIN + b"\2\0",
    "a field number beyond 29 bits": PLAIN + varint(1 << 32) + b"\0",
    "wire type 6": PLAIN + b"\x0e",
    "wire type 7": PLAIN + b"\x0f",
    "a length beyond the end": b"\x32" + varint(2**40) + b"a",
    "a length beyond 63 bits": b"\x32" + varint(2**64 - 1) + b"a",
    "a number for a name": b"\x08\1",
    "a name that is no text": nested(1, b"\xff\xfe"),
    "an output's name that is no text": output(name=b"\xff") + nested(6, bytes(4)),
    "a data type that is no text": output(datatype=b"\xc3") + nested(6, bytes(4)),
    "an unknown data type": output(datatype=b"FP12") + nested(6, bytes(4)),
    "no data type": output(datatype=b"") + nested(6, bytes(4)),
    "two outputs of one name": PLAIN + PLAIN,
    "too few bytes": output(dims=b"\2") + nested(6, bytes(4)),
    "too many bytes": output(dims=b"\1") + nested(6, bytes(8)),
    "a negative dimension": output(dims=shape(-1)) + nested(6, bytes(4)),
    "two negative dimensions": output(dims=shape(-1, -1)) + nested(6, bytes(4)),
    "an absurd dimension": output(dims=shape(2**62)) + nested(6, bytes(4)),
    "an absurd dimension beside 0": output(dims=shape(0, 2**62)) + nested(6, b""),
    "a product beyond 64 bits": output(dims=shape(2**32, 2**32)) + nested(6, b""),
    "65 dimensions": output(dims=b"\1" * 65) + nested(6, bytes(4)),
    "a million dimensions": output(dims=b"\1" * MANY) + nested(6, bytes(4)),
    "an absurd number of strings": output(datatype=b"BYTES", dims=shape(2**62)) + nested(6, bytes(4)),
    "strings cut off": output(datatype=b"BYTES", dims=b"\2") + nested(6, b"\1\0\0\0a\1\0\0"),
    "a string beyond the end": output(datatype=b"BYTES") + nested(6, b"\xff\xff\xff\xffa"),
    "contents without an output": nested(6, bytes(4)),
    "an output without contents": output(),
    "a million outputs": b"\x2a\0" * MANY,
    "a million contents": b"\x32\0" * MANY,
    "a million outputs with contents": b"\x2a\0\x32\0" * MANY,
    "a million names": b"".join(output(name=b"%x" % n) for n in range(MAX_ENTRIES + 1)),
    "a million parameters": b"".join(
        nested(4, nested(1, b"%x" % n) + nested(2, b"\x08\1")) for n in range(2 * MAX_ENTRIES)
    ),
    "a group without end": PLAIN + GROUP,
    "the end of no group": PLAIN + END,
    "the end of another group": PLAIN + GROUP + varint(98 << 3 | 4),
    "a group cut off within": PLAIN + GROUP + b"\x0a\x05a",
    "groups a million deep": PLAIN + GROUP * MANY,
    "raw contents and typed ones": output(more=nested(5, nested(6, bytes(4)))) + nested(6, bytes(4)),
    "typed contents of another number": output(more=nested(5, nested(6, bytes(8)))),
    "typed contents for FP16": output(datatype=b"FP16", more=nested(5, nested(6, bytes(4)))),
    "typed contents out of range": output(datatype=b"INT8", more=nested(5, nested(2, varint(300)))),
    "typed contents below a range": output(datatype=b"UINT8", more=nested(5, nested(4, varint(300)))),
    "typed contents cut off": output(more=nested(5, b"\x32\5\0")),
    "typed contents of an absurd shape": output(dims=shape(2**62, 4), more=nested(5, nested(6, bytes(4)))),
    "typed contents of no known type": output(datatype=b"FP99", more=nested(5, nested(6, bytes(4)))),
    "typed contents in a shape with -1": output(dims=shape(-1), more=nested(5, nested(6, bytes(4)))),
    "a million typed values for one": output(datatype=b"INT64", more=nested(5, nested(3, packed(MANY, varint(300))))),
    "a parameter of another wire type": nested(4, nested(1, b"k") + nested(2, nested(1, b"a"))) + PLAIN,
    "a double of four bytes": nested(4, nested(1, b"k") + nested(2, b"\x25" + bytes(4))) + PLAIN,
}

TAKEN = {
    "unknown fields": PLAIN
    + varint(99 << 3)
    + varint(2**64 - 1)
    + nested(98, b"\xff")
    + varint(97 << 3 | 5)
    + bytes(4),
    "a group": GROUP + b"\x0a\1a\x10\1\x19" + bytes(8) + b"\x25" + bytes(4) + GROUP + END + END + PLAIN,
    "groups ninety deep": GROUP * 90 + END * 90 + PLAIN,
    "many unknown fields": (varint(99 << 3) + b"\1") * 50_000 + PLAIN,
    "many parameters of one key": nested(4, nested(2, b"\x08\1")) * 50_000 + PLAIN,
    "dimensions one by one": nested(5, nested(1, b"y") + nested(2, b"FP32") + b"\x18\1" * 3) + nested(6, bytes(4)),
    "64 dimensions": output(dims=b"\1" * 64) + nested(6, bytes(4)),
    "a length of more bytes than it needs": output() + b"\x32\x84\x80\x00" + bytes(4),
    "contents before their outputs": nested(6, bytes(4)) + output(),
    "typed contents": output(more=nested(5, nested(6, bytes(4)))),
    "typed contents in two parts": output(dims=b"\2", more=nested(5, nested(6, bytes(4))) * 2),
    "typed contents of nothing": output(dims=b"\0"),
    "as many outputs as there may be": b"".join(
        output(name=b"y" if not n else b"%d" % n) + nested(6, bytes(4)) for n in range(MAX_ENTRIES)
    ),
}
