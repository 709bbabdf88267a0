"""Players of a board game and matches between them: many games at once, whose single calls the client joins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Ask", "Game", "IllegalMove", "Player", "careless", "match", "play", "searching", "trusting"]

Ask = Callable[[Any], Awaitable[tuple[Any, float]]]
"""Takes one board and gives the net's policy, [columns], and its value for the player whose turn it is."""
Player = Callable[[Any, Any], Awaitable[int]]
"""Takes one board and a random generator, and gives a column."""

_EXPLORATION: Final = 1.5
"""How much a column that the net likes is tried before its games prove it: c_puct (Silver et al., 2017)."""


class IllegalMove(ValueError):
    """A player chose a column that is full."""


@dataclass(kw_only=True, slots=True)
class Game:
    """One game: its columns, its last board, and who won: 0 who began, 1 the other, None for a draw."""

    moves: list[int] = field(default_factory=list)
    board: Any
    winner: int | None = None


async def play(board: Any, players: tuple[Player, Player], rng: Any, *, opening: int = 0) -> Game:
    """Play a game to its end, after an opening of any moves; ``players`` in the order of their turns.

    Raises:
        IllegalMove: a player chose a full column.
    """
    import numpy as np

    game = Game(board=board)
    while not game.board.over[0]:
        turn = len(game.moves)
        legal = game.board.legal()[0]
        column = rng.choice(np.flatnonzero(legal)) if turn < opening else await players[turn % 2](game.board, rng)
        if not legal[column]:
            raise IllegalMove(f"move {turn + 1} is column {column}, which is full:\n{game.board.text()[0]}")
        game.moves.append(int(column))
        game.board = game.board.drop(np.array([column]))
    if game.board.won[0]:
        game.winner = (len(game.moves) - 1) % 2
    return game


async def match(board: Any, a: Player, b: Player, *, games: int, seed: int, opening: int = 0) -> Counter[str]:
    """Play games at once, half of them with each beginning, and count what ``a`` won, drew and lost."""
    import numpy as np

    def game(number: int) -> Awaitable[Game]:
        # Two games have the same opening, with the sides changed.
        rng = np.random.default_rng([seed, number // 2])
        return play(board, (a, b) if number % 2 == 0 else (b, a), rng, opening=opening)

    played = await asyncio.gather(*map(game, range(games)))
    results = (
        "drawn" if each.winner is None else ("won", "lost")[each.winner ^ n % 2] for n, each in enumerate(played)
    )
    return Counter(results)


def careless(seen: Callable[[Any], Any]) -> Player:
    """Return who takes any of the columns that ``seen(board)`` allows."""

    async def choose(board: Any, rng: Any) -> int:
        import numpy as np

        return int(rng.choice(np.flatnonzero(seen(board))))

    return choose


def trusting(ask: Ask, *, sampled: int = 0) -> Player:
    """Return who takes the column that the net likes best; one drawn by its policy in the first ``sampled`` moves."""

    async def choose(board: Any, rng: Any) -> int:
        policy, _ = await ask(board)
        if board.planes().sum() < sampled:
            return int(rng.choice(len(policy), p=policy.astype(float) / policy.sum(dtype=float)))
        return int(policy.argmax())

    return choose


@dataclass(slots=True)
class _Node:
    """A board, what the net said of its columns, and what came of those that were tried."""

    board: Any
    policy: Any
    visits: Any
    worth: Any
    """Sum of the values behind each column, for the player whose turn it is."""
    children: dict[int, _Node | float] = field(default_factory=dict)

    def choose(self) -> int:
        """Return the column that promises most: its mean value, and more for what the net likes and few have tried."""
        import numpy as np

        tried = self.visits.sum()
        mean = self.worth / np.maximum(self.visits, 1)
        hope = _EXPLORATION * self.policy * np.sqrt(tried + 1) / (1 + self.visits)
        return int(np.where(self.policy > 0, mean + hope, -np.inf).argmax())


def searching(ask: Ask, *, simulations: int) -> Player:
    """Return who looks ahead with the net's policy and value: PUCT, as in AlphaGo Zero (Silver et al., 2017)."""

    async def choose(board: Any, rng: Any) -> int:
        root, _ = await _node(board, ask)
        for _ in range(simulations):
            await _simulate(root, ask)
        return int(root.visits.argmax())

    return choose


async def _simulate(node: _Node, ask: Ask) -> float:
    """Go down to a board that was not seen yet, ask the net about it, and return its value for ``node``'s player."""
    import numpy as np

    column = node.choose()
    child = node.children.get(column)
    if isinstance(child, _Node):
        value = -await _simulate(child, ask)
    elif child is not None:
        value = child
    else:
        board = node.board.drop(np.array([column]))
        if board.over[0]:
            value = node.children[column] = float(board.won[0])
        else:
            node.children[column], found = await _node(board, ask)
            value = -found
    node.visits[column] += 1
    node.worth[column] += value
    return value


async def _node(board: Any, ask: Ask) -> tuple[_Node, float]:
    import numpy as np

    policy, value = await ask(board)
    return _Node(board, policy, np.zeros(len(policy)), np.zeros(len(policy))), value
