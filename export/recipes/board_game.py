"""Connect Four: a small net that looks at a board and says which column is good, and who is likely to win.

Input `board`: FP32 [batch, 2, 6, 7], 1 where a stone is: those of the player whose turn it is, then the other's; the
top row first. Outputs `policy`: FP32 [batch, 7], how good each column is, in all 1, and 0 in full columns; `value`:
FP32 [batch, 1], from -1 (lost) to 1 (won) for the player whose turn it is. A board without a free column has policy 0.

It learns from games that it makes itself: positions of players who make mistakes, each column judged by how games end
that players with a little foresight play on from there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from _connect_four import COLUMNS, ROWS, Boards, columns, empty
from torch import nn
from torch.nn import functional

DYNAMIC = {"board": {0: "batch"}}
MAX_BATCH_SIZE = 64
OUTPUTS = ["policy", "value"]

_PLAYOUTS = 16
_SHARPNESS = 6.0
"""How much a column is preferred whose games end better: a lead of 1 is a factor of e⁶."""


class BoardGame(nn.Module):
    """Convolutions that see all lines through a cell, a score for the cell that a stone would fall to, and a value."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 2 * channels, 7, padding=3),  # a cell and three neighbours on each side
            nn.ReLU(),
            nn.Conv2d(2 * channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.cells = nn.Conv2d(channels, 1, 1)
        self.value = nn.Sequential(
            nn.Conv2d(channels, 8, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * ROWS * COLUMNS, 64),
            nn.ReLU(),
            nn.Linear(64, 1),
        )

    def heads(self, board: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return scores of the columns, those of full ones very low, the value, and which columns are free."""
        stones = board.sum(dim=1)
        empty = 1 - stones
        seen = self.features(torch.cat([board, empty[:, None]], dim=1))
        # A stone falls to the empty cell that has no empty one below it.
        lands = empty * functional.pad(stones[:, 1:], (0, 0, 0, 1), value=1.0)
        scores = (self.cells(seen)[:, 0] * lands).sum(dim=1)
        free = stones[:, 0] == 0
        return scores.masked_fill(~free, -1e4), self.value(seen).tanh(), free

    def forward(self, board: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how good each column is, [batch, 7], and who is likely to win, [batch, 1]."""
        scores, value, free = self.heads(board)
        return scores.softmax(dim=1) * free, value


def build(seed: int = 0, positions: int = 12_000, epochs: int = 6) -> BoardGame:
    """Make games, judge their positions, and train the net on them; the same seed, the same net."""
    boards = made_positions(positions, seed=seed)
    policies, values = judged(boards, seed=seed)
    with _one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        return _train(BoardGame(), boards.planes(), policies, values, epochs=epochs)


def _train(model: BoardGame, boards: np.ndarray, policies: np.ndarray, values: np.ndarray, *, epochs: int) -> BoardGame:
    """Train on positions and their mirror images, which are worth the same."""
    board, policy, value = (
        torch.from_numpy(np.concatenate([each, each[..., ::-1] if mirrored else each]).astype(np.float32))
        for each, mirrored in ((boards, True), (policies, True), (values[:, None], False))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = -(-len(board) // 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs=epochs, steps_per_epoch=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(board)).split(256):
            scores, found, _ = model.heads(board[rows])
            loss = functional.cross_entropy(scores, policy[rows]) + functional.mse_loss(found, value[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """More threads hardly help a net this small, and wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def made_positions(count: int, *, seed: int) -> Boards:
    """Return different positions, none of them over, of games in which every fourth move is any."""
    rng = np.random.default_rng([seed, 1])
    games, own, both = empty(count // 8), [], []
    while len(games):
        own.append(games.own)
        both.append(games.both)
        any_move = rng.random(len(games)) < 0.25
        column = np.where(any_move, _any_of(games.legal(), rng), _any_of(careful_columns(games), rng))
        games = games.drop(column)
        games = games[~games.over]
    found = np.unique(np.stack([np.concatenate(own), np.concatenate(both)]), axis=1)
    chosen = rng.permutation(found.shape[1])[:count]
    return Boards(found[0, chosen], found[1, chosen])


def random_columns(boards: Boards) -> np.ndarray:
    """Return what a player without a plan chooses from: all free columns, [games, 7]."""
    return boards.legal()


def one_ply_columns(boards: Boards) -> np.ndarray:
    """Return what a player chooses from who sees wins, and then threats, of one move, [games, 7]."""
    return columns(_first_of(boards.wins(), boards.threats(), boards.places()))


def careful_columns(boards: Boards) -> np.ndarray:
    """Return the same of a player who also sees which stone would let the other win on top of it, [games, 7]."""
    safe = boards.places() & ~boards.gifts()
    return columns(_first_of(boards.wins(), boards.threats(), safe, boards.places()))


def _first_of(*cells: np.ndarray) -> np.ndarray:
    """Return, for each board, the first of these sets of cells that is not empty."""
    found = cells[-1]
    for better in cells[-2::-1]:
        found = np.where(better != 0, better, found)
    return found


def _any_of(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (allowed * (rng.random(allowed.shape, np.float32) + 1)).argmax(axis=1)


def judged(boards: Boards, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how good each column is, [positions, 7], and each position, [positions], by games played to the end."""
    rng = np.random.default_rng([seed, 2])
    sensible = one_ply_columns(boards)  # where a win or a threat is at hand, nothing else needs a judgement
    position, column = np.nonzero(sensible)
    outcome = np.full(sensible.shape, -np.inf)
    outcome[position, column] = -played_out(boards[position].drop(column), rng)
    best = outcome.max(axis=1)
    weights = np.exp(_SHARPNESS * (outcome - best[:, None]))
    return weights / weights.sum(axis=1, keepdims=True), best


def played_out(boards: Boards, rng: np.random.Generator) -> np.ndarray:
    """Return how games of careful players end from here, -1 to 1 for the player whose turn it is, [games]."""
    games = boards[np.repeat(np.arange(len(boards)), _PLAYOUTS)]
    result, sign = np.zeros(len(games)), 1.0
    alive = np.arange(len(games))
    while len(alive):
        won = games.won
        result[alive[won]] = -sign
        going = ~(won | games.full)
        alive, games = alive[going], games[going]
        games = games.drop(_any_of(careful_columns(games), rng))
        sign = -sign
    return result.reshape(len(boards), _PLAYOUTS).mean(axis=1)


def samples() -> list[tuple[torch.Tensor]]:
    """Return positions for the export's checks, some of them with full columns."""
    return [(torch.from_numpy(made_positions(2_000, seed=7).planes()[:64]),)]
