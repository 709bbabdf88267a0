"""The rules of Connect Four for many games at once: positions are bits in NumPy's 64-bit integers.

A column has seven bits, the lowest stone first; its seventh is always empty and keeps shifted lines from running into
the next column. Bit 7 × column + height. (The layout is that of J. Tromp's Fhourstones.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS, COLUMNS = 6, 7
_HEIGHT = ROWS + 1
_BOTTOM = np.array([1 << _HEIGHT * column for column in range(COLUMNS)], np.uint64)
_COLUMN = _BOTTOM * np.uint64((1 << ROWS) - 1)
_ALL = np.bitwise_or.reduce(_COLUMN)
_LINES = tuple(map(np.uint64, (1, _HEIGHT, _HEIGHT - 1, _HEIGHT + 1)))
"""Steps of a vertical, a horizontal and the two diagonal lines."""


@dataclass(frozen=True, slots=True)
class Boards:
    """Positions of many games: the stones of the player whose turn it is, and those of both, [games] uint64."""

    own: np.ndarray
    both: np.ndarray

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, chosen) -> Boards:
        return Boards(self.own[chosen], self.both[chosen])

    @property
    def other(self) -> np.ndarray:
        """The stones of the player who moved last."""
        return self.own ^ self.both

    @property
    def won(self) -> np.ndarray:
        """Whether the player who moved last has four in a line, [games]."""
        return four(self.other)

    @property
    def full(self) -> np.ndarray:
        """Whether no column is free, [games]."""
        return self.both == _ALL

    @property
    def over(self) -> np.ndarray:
        """Whether the game has ended, [games]."""
        return self.won | self.full

    def legal(self) -> np.ndarray:
        """Return which columns are free, [games, 7]."""
        return columns(self.places())

    def places(self) -> np.ndarray:
        """Return the cells that a stone may fall to, one bit a free column, [games]."""
        return (self.both + np.bitwise_or.reduce(_BOTTOM)) & _ALL

    def drop(self, columns: np.ndarray) -> Boards:
        """Return the boards after a stone in these columns, [games], which must be free; it is the other's turn."""
        placed = self.both + _BOTTOM[columns]
        if (placed & ~_ALL).any():
            raise ValueError("expected columns that are free, found a full one")
        return Boards(self.other, self.both | placed)

    def wins(self) -> np.ndarray:
        """Return the cells that win at once, as bits, [games]."""
        return completing(self.own, self.both) & self.places()

    def threats(self) -> np.ndarray:
        """Return the cells in which the other player would win at once, as bits, [games]."""
        return completing(self.other, self.both) & self.places()

    def gifts(self) -> np.ndarray:
        """Return the cells on top of which the other player would then win, as bits, [games]."""
        return (completing(self.other, self.both) >> np.uint64(1)) & self.places()

    def planes(self) -> np.ndarray:
        """Return the boards as a net sees them, own stones and the other's, top row first, [games, 2, 6, 7] float32."""
        bits = np.arange(ROWS)[::-1, None] + _HEIGHT * np.arange(COLUMNS)
        stones = np.stack([self.own, self.other], axis=1)[:, :, None, None]
        return ((stones >> bits.astype(np.uint64)) & np.uint64(1)).astype(np.float32)

    def text(self) -> list[str]:
        """Return a drawing of each board: X is the player who began."""
        planes = self.planes().astype(int)
        first_to_move = (self.planes().sum(axis=(1, 2, 3)) % 2 == 0)[:, None, None]
        cells = np.where(first_to_move, planes[:, 0] + 2 * planes[:, 1], 2 * planes[:, 0] + planes[:, 1])
        return ["\n".join(" ".join("·XO"[cell] for cell in row) for row in board) for board in cells]


def empty(games: int) -> Boards:
    """Return new games."""
    return Boards(np.zeros(games, np.uint64), np.zeros(games, np.uint64))


def columns(bits: np.ndarray) -> np.ndarray:
    """Return which columns have a bit, [games, 7]."""
    return (bits[:, None] & _COLUMN) != 0


def four(stones: np.ndarray) -> np.ndarray:
    """Return whether there are four in a line, [games]."""
    found = np.zeros(len(stones), np.uint64)
    for step in _LINES:
        pairs = stones & (stones >> step)
        found |= pairs & (pairs >> (step + step))
    return found != 0


def completing(stones: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Return the empty cells that would make four of these stones, wherever a stone can fall to, as bits, [games]."""
    found = np.zeros(len(stones), np.uint64)
    for step in _LINES:
        two, three = step + step, step + step + step
        up, down = stones << step, stones >> step
        pairs = up & (stones << two)
        found |= pairs & ((stones << three) | down)
        pairs = down & (stones >> two)
        found |= pairs & ((stones >> three) | up)
    return found & (_ALL ^ both)
