"""HdrHistogram's buckets and its V2 encoding, on whole arrays.

The layout and the encoding are those of http://hdrhistogram.org for values from 1 to an hour in µs with three
significant digits: a value's bucket is its bits from the eleventh on, and how many follow. The encoding is ZigZag
LEB128: a positive number is a count, a negative one says how many empty buckets follow.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["HIGHEST", "MIDDLE", "TOP", "decode", "encode", "indices"]

HIGHEST: Final = 3_600_000_000
_DIGITS: Final = 3
_HALF_BITS: Final = 10  # 1024 buckets for each doubling: enough for three digits
_NUM_BUCKETS: Final = 23 << _HALF_BITS
_HEADER: Final = struct.Struct(">IIIIqqd")  # cookie, length, offset, digits, lowest, highest, ratio
_OUTER: Final = struct.Struct(">II")  # cookie, length
_COOKIE: Final = 0x1C849313
_COMPRESSED: Final = 0x1C849314
_MAX_VARINT: Final = 9

_index: Final = np.arange(_NUM_BUCKETS, dtype=np.int64)
_shift: Final = np.maximum((_index >> _HALF_BITS) - 1, 0)
_LOWEST: Final = (_index - (_shift << _HALF_BITS)) << _shift
TOP: Final[NDArray[np.int64]] = _LOWEST + (np.int64(1) << _shift) - 1
"""The largest value of each bucket: what percentiles report."""
MIDDLE: Final[NDArray[np.float64]] = _LOWEST + ((np.int64(1) << _shift) >> 1).astype(np.float64)
"""The value in the middle of each bucket, for means."""


def indices(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bucket of each value; what lies outside of 1 to :data:`HIGHEST` counts as the nearest of them."""
    values = values.clip(1, HIGHEST)
    num_bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)  # exact: the values have fewer than 53 bits
    shift = np.maximum(num_bits - (_HALF_BITS + 1), 0)
    found: NDArray[np.int64] = (shift << _HALF_BITS) + (values >> shift)
    return found


def encode(used: NDArray[np.int64], counts: NDArray[np.int64], *, compressed: bool) -> str:
    """Return the V2 text of a histogram whose buckets ``used`` (ascending) hold ``counts``, all above 0."""
    gaps = np.diff(used, prepend=-1) - 1
    numbers = np.stack([-gaps, counts], axis=1).ravel()
    body = _to_varints(numbers[numbers != 0])
    plain = _HEADER.pack(_COOKIE, len(body), 0, _DIGITS, 1, HIGHEST, 1.0) + body
    if compressed:
        packed = zlib.compress(plain)
        plain = _OUTER.pack(_COMPRESSED, len(packed)) + packed
    return base64.b64encode(plain).decode("ascii")


def decode(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the buckets in use and their counts.

    Raises:
        ValueError: ``text`` is no V2 histogram with these buckets.
    """
    try:
        plain = base64.b64decode(text, validate=True)
        if _OUTER.unpack_from(plain)[0] == _COMPRESSED:
            plain = zlib.decompress(plain[_OUTER.size :])
        cookie, length, offset, digits, lowest, _, _ = _HEADER.unpack_from(plain)
    except (binascii.Error, zlib.error, struct.error, ValueError) as exc:
        raise ValueError(f"expected an HDR histogram (V2, base64), found {text[:20]!r}…: {exc}") from exc
    if (cookie, offset, digits, lowest) != (_COOKIE, 0, _DIGITS, 1) or len(plain) < _HEADER.size + length:
        raise ValueError("expected an HDR histogram (V2) from 1 with three digits, found another, or a part of one")
    return _from_numbers(_from_varints(np.frombuffer(plain, np.uint8, length, _HEADER.size)))


def _from_numbers(numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ends = np.cumsum(np.where(numbers < 0, -numbers, 1))
    if ends.size and ends[-1] > _NUM_BUCKETS:
        raise ValueError(f"expected at most {_NUM_BUCKETS} buckets in an HDR histogram, found {ends[-1]}")
    counted = numbers > 0
    return (ends - 1)[counted], numbers[counted]


def _to_varints(numbers: NDArray[np.int64]) -> bytes:
    zigzag = ((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)
    width = max(1, -(-int(zigzag.max(initial=0)).bit_length() // 7))
    rest = zigzag[:, None] >> (np.arange(width, dtype=np.uint64) * np.uint64(7))  # what is left at each byte
    needed = rest != 0
    needed[:, 0] = True
    more = np.zeros_like(needed)
    more[:, :-1] = needed[:, 1:]
    octets = (rest & np.uint64(0x7F)).astype(np.uint8) | (more.astype(np.uint8) << 7)
    return bytes(octets[needed].tobytes())


def _from_varints(octets: NDArray[np.uint8]) -> NDArray[np.int64]:
    if not octets.size:
        return np.empty(0, np.int64)
    ends = np.flatnonzero(octets < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1)) if ends.size else np.empty(0, np.int64)
    if not ends.size or ends[-1] != octets.size - 1 or (ends - starts).max() >= _MAX_VARINT:
        raise ValueError("expected whole numbers in the body of an HDR histogram, found a part of one")
    places = np.arange(octets.size) - np.repeat(starts, ends - starts + 1)
    parts = (octets & 0x7F).astype(np.uint64) << (places.astype(np.uint64) * np.uint64(7))
    zigzag = np.add.reduceat(parts, starts)
    return (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64)
