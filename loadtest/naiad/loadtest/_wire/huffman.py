"""The Huffman code of HTTP/2's header fields (RFC 7541, appendix B)."""

from __future__ import annotations

from typing import Final

from naiad.loadtest._wire.frames import COMPRESSION_ERROR, ProtocolError

__all__ = ["decode_huffman"]

# The code is canonical, so that lengths say it all: codes of one length count up in the order of their symbols. One
# letter for each symbol from 0 to 255 and the end of a string: "a" for a code of 5 bits, "z" for one of 30.
_LENGTHS: Final = (
    "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhfibccccccccccccccccccccccdcdioijbkaba"
    "babbbaccbbbabcbaabccccckgjixprpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrsvvporsru"
    "vvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwvz"
)
_SHORTEST: Final = 5
_END: Final = 256


def decode_huffman(coded: bytes) -> bytes:
    """Decode a string.

    Raises:
        ProtocolError: it is none, or does not end as it must (in less than a byte of ones).
    """
    out = bytearray()
    code = 1  # a one before the bits keeps leading zeros apart
    for byte in coded:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            symbol = _SYMBOLS.get(code)
            if symbol is None:
                continue
            if symbol == _END:
                raise ProtocolError("a header field has an end within its Huffman code", COMPRESSION_ERROR)
            out.append(symbol)
            code = 1
    if code.bit_length() > 8 or code & (code + 1):
        raise ProtocolError("a header field has a Huffman code that does not end", COMPRESSION_ERROR)
    return bytes(out)


def _symbols() -> dict[int, int]:
    """Return the symbol of each code, which has a one before it."""
    symbols, code, length = {}, 0, 0
    lengths = [_SHORTEST + ord(letter) - ord("a") for letter in _LENGTHS]
    for number_bits, symbol in sorted((bits, symbol) for symbol, bits in enumerate(lengths)):
        code <<= number_bits - length
        length = number_bits
        symbols[1 << length | code] = symbol
        code += 1
    return symbols


_SYMBOLS: Final = _symbols()
