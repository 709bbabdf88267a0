"""Connect Four: a net that plays against itself and others, a call for each move, joined to batches by the client."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from naiad.cli._interrupts import run_async
from naiad.cli.demo.play import Ask, Game, careless, match, play, searching, trusting
from naiad.cli.demo.system import System

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.export import Recipe
    from naiad.server import EmbeddedTriton

_NAME: Final = "board_game"
_MOVES: Final = 1000
_GAMES_AT_ONCE: Final = 32
_MAX_ROWS: Final = 32
_MATCH_GAMES: Final = 200
_SEARCH_GAMES: Final = 40
_SIMULATIONS: Final = 40


def run(stage: Stage) -> None:
    """Train a net on games that it makes, serve it, let it play against itself and others, and load-test it."""
    from naiad.export import load_recipe

    recipe = load_recipe(_NAME)
    with stage.step("make games, judge their positions, train a net on them"):
        model = recipe.build()
    version = stage.publish(recipe, model=model)
    with stage.serve(_NAME) as triton:
        _play_itself(stage, recipe, triton)
        _play_others(stage, recipe, triton)
        _look_ahead(stage, recipe, triton)
        stage.load_test(triton.grpc_url, golden=version.path / "golden.npz")


@asynccontextmanager
async def _asking(triton: EmbeddedTriton) -> AsyncIterator[Ask]:
    """Ask the served net about one board at a time; calls that come together are sent together."""
    from naiad.client import AsyncClient

    async with AsyncClient(triton.grpc_url) as client, client.model(_NAME).batched(max_rows=_MAX_ROWS) as together:

        async def ask(board: Any) -> tuple[Any, float]:
            answer = await together(board=board.planes())
            return answer["policy"][0], float(answer["value"][0, 0])

        yield ask


def _measured(triton: EmbeddedTriton, work: Coroutine[Any, Any, Any]) -> tuple[Any, float, int, float]:
    """Return what came of the work, the seconds it took, the net's answers in it and how many came out of one run."""
    with triton.client() as client:
        before, started = client.statistics(_NAME)[0], time.monotonic()
        result = run_async(work)
        took_s, during = time.monotonic() - started, client.statistics(_NAME)[0] - before
    return result, took_s, during.inference_count, during.inference_count / max(during.execution_count, 1)


def _play_itself(stage: Stage, recipe: Recipe, triton: EmbeddedTriton) -> None:
    """Play games against itself until 1,000 moves are made; those that have begun go to their end."""
    with stage.step(f"play {_MOVES:,} moves against itself, {_GAMES_AT_ONCE} games at once") as done:
        games, took_s, answers, rows = _measured(triton, _self_play(recipe, triton))
        moves = sum(len(game.moves) for game in games)
        done(f"{moves / took_s:,.0f} moves/s, {rows:.1f} in a run of the net")
    ends = Counter("drawn" if game.winner is None else ("first", "second")[game.winner] for game in games)
    summary = stage.summary
    summary.row(
        "self-play",
        f"{moves:,} moves in {len(games)} games, all of them legal: {moves / took_s:,.0f} moves/s",
        self_play_moves=moves,
        self_play_games=len(games),
        moves_per_s=moves / took_s,
    )
    summary.row("mean batch", f"{rows:.1f} single calls in a run of the net", rows_per_run=rows)
    summary.row(
        "who wins", f"first player {ends['first']}, second {ends['second']}, drawn {ends['drawn']}", self_play_ends=ends
    )
    summary.check(moves >= _MOVES, f"self-play ended after {moves} moves")
    summary.check(answers == moves, f"{moves} moves took {answers} answers of the net")
    summary.check(rows > 1, "single calls were not joined")
    _draw(stage, recipe, max(games, key=lambda game: len(game.moves)))


async def _self_play(recipe: Recipe, triton: EmbeddedTriton) -> list[Game]:
    import numpy as np

    games: list[Game] = []
    moves = 0

    async def player(board: Any, rng: Any) -> int:
        nonlocal moves
        moves += 1
        return await net(board, rng)

    async def one_after_the_other(seed: int) -> None:
        rng = np.random.default_rng([seed, 3])
        while moves < _MOVES:
            games.append(await play(recipe.module.empty(1), (player, player), rng))

    async with _asking(triton) as ask:
        net = trusting(ask, sampled=10)
        await asyncio.gather(*map(one_after_the_other, range(_GAMES_AT_ONCE)))
    return games


def _draw(stage: Stage, recipe: Recipe, game: Game) -> None:
    """Write one game down: its moves, and the board at its end."""
    end = "drawn" if game.winner is None else f"{'XO'[game.winner]} wins"
    text = f"columns {' '.join(map(str, game.moves))}: {end}\n\n{game.board.text()[0]}\n0 1 2 3 4 5 6\n"
    path = stage.folder / "game.txt"
    path.write_text(text, encoding="utf-8")
    stage.summary.paths["a game"] = path


def _play_others(stage: Stage, recipe: Recipe, triton: EmbeddedTriton) -> None:
    """Play against who moves anyhow, and against who sees one move ahead."""
    others = {"random": ("who moves anyhow", 0.9), "one_ply": ("who sees one move ahead", 0.5)}
    for number, (name, (words, least)) in enumerate(others.items()):

        async def work(name: str = name, number: int = number) -> Counter[str]:
            async with _asking(triton) as ask:
                other = careless(getattr(recipe.module, f"{name}_columns"))
                return await match(recipe.module.empty(1), trusting(ask), other, games=_MATCH_GAMES, seed=number)

        with stage.step(f"play {_MATCH_GAMES} games against {words}") as done:
            score, _, _, rows = _measured(triton, work())
            done(f"{score['won'] / _MATCH_GAMES:.0%} won, {rows:.1f} in a run of the net")
        _note_match(stage, f"against {words}", name, score, _MATCH_GAMES)
        won = score["won"] / _MATCH_GAMES
        stage.summary.check(won >= least, f"only {won:.0%} won against {words}, expected {least:.0%}")


def _look_ahead(stage: Stage, recipe: Recipe, triton: EmbeddedTriton) -> None:
    """Play with a search through the same client against the net alone."""

    async def work() -> Counter[str]:
        async with _asking(triton) as ask:
            board, seeing = recipe.module.empty(1), searching(ask, simulations=_SIMULATIONS)
            return await match(board, seeing, trusting(ask), games=_SEARCH_GAMES, seed=9, opening=2)

    with stage.step(f"look {_SIMULATIONS} boards ahead before each move, against the net alone") as done:
        score, took_s, answers, rows = _measured(triton, work())
        done(f"{score['won'] / _SEARCH_GAMES:.0%} won, {rows:.1f} boards in a run of the net")
    _note_match(stage, f"with {_SIMULATIONS} boards ahead, against the net alone", "search", score, _SEARCH_GAMES)
    stage.summary.row(
        "boards seen in the search",
        f"{answers:,}, {answers / took_s:,.0f} a second, {rows:.1f} in a run of the net",
        search_boards=answers,
        search_boards_per_s=answers / took_s,
        search_rows_per_run=rows,
    )
    stage.summary.check(score["won"] > score["lost"], "the search does not make the net stronger")


def _note_match(stage: Stage, label: str, name: str, score: Counter[str], games: int) -> None:
    text = f"{score['won'] / games:.1%} won, {score['drawn'] / games:.1%} drawn of {games} games"
    figures = {f"{name}_{end}": score[end] / games for end in ("won", "drawn", "lost")}
    stage.summary.row(label, text, **figures)


SYSTEM = System(
    name="board_game",
    title="Connect Four: a policy and value net that plays thousands of moves through the client",
    shows=("calls of many games joined by the client", "two outputs", "training on made games"),
    recipes=("board_game",),
    about_s=45,
    run=run,
)
