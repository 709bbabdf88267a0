"""Connect Four: its rules, what the demo found, and the net, served again."""

import asyncio
import sys

import numpy as np
import pytest

from naiad.cli.demo.play import IllegalMove, careless, match, play, searching
from naiad.client import InvalidInput
from naiad.export import Repository, load_recipe
from naiad.server import EmbeddedTriton

game = load_recipe("board_game").module
rules = sys.modules[game.Boards.__module__]


@pytest.fixture(scope="module")
def net(demo_of):
    """The net, on a real Triton."""
    with EmbeddedTriton(demo_of("board_game").repository, models=["board_game"]) as triton, triton.client() as client:
        yield client.model("board_game")


def after(*columns: int):
    """The board after these moves."""
    board = rules.empty(1)
    for column in columns:
        board = board.drop(np.array([column]))
    return board


def line_of_four(stones: np.ndarray) -> bool:
    """The rule in words: four stones in a row, a column or a diagonal, [6, 7]."""
    for row in range(6):
        for column in range(7):
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                cells = [(row + i * down, column + i * right) for i in range(4)]
                if all(0 <= r < 6 and 0 <= c < 7 and stones[r, c] for r, c in cells):
                    return True
    return False


WINS = {
    "horizontal": (0, 0, 1, 1, 2, 2, 3),
    "horizontal, at the right": (6, 6, 5, 5, 4, 4, 3),
    "vertical": (2, 3, 2, 3, 2, 3, 2),
    "rising": (0, 1, 1, 2, 2, 3, 2, 3, 3, 5, 3),
    "falling": (6, 5, 5, 4, 4, 3, 4, 3, 3, 1, 3),
}


@pytest.mark.parametrize("moves", WINS.values(), ids=WINS)
def test_four_in_a_line_win_in_all_directions(moves):
    """With the last stone, and not before."""
    assert not after(*moves[:-1]).over[0]
    assert after(*moves).won[0]
    assert after(*moves).over[0]
    assert game.one_ply_columns(after(*moves[:-1]))[0].nonzero()[0].tolist() == [moves[-1]]


def test_wins_and_full_columns_agree_with_the_rules_in_words():
    """On every board of 25 games of any moves that go on until the board is full."""
    rng = np.random.default_rng(0)
    boards = rules.empty(25)
    while len(boards):
        planes = boards.planes()
        assert boards.won.tolist() == [line_of_four(stones) for stones in planes[:, 1]]
        assert (boards.legal() == (planes[:, :, 0].sum(axis=1) == 0)).all()
        boards = boards[~boards.full]
        boards = boards.drop((rng.random((len(boards), 7)) * boards.legal()).argmax(axis=1))


def test_lines_do_not_run_around_the_edge():
    """The top of a column and the bottom of the next are no neighbours."""
    board = after(0, 0, 0, 0, 0, 1, 0, 1, 2, 1, 2)
    assert not board.over[0]
    assert [line_of_four(stones) for stones in board.planes()[0]] == [False, False]


def test_a_stone_in_a_full_column_is_refused():
    """Six stones fill a column."""
    board = after(3, 3, 3, 3, 3, 3)
    assert board.legal()[0].tolist() == [True, True, True, False, True, True, True]
    with pytest.raises(ValueError, match="full"):
        board.drop(np.array([3]))


def test_a_full_board_without_a_line_is_a_draw():
    """Nobody has won, and the game is over."""
    columns = [column for pair in ((0, 1), (2, 3), (4, 5)) for column in [*pair] * 2 + [*pair[::-1]] * 2 + [*pair] * 2]
    board = after(*columns, 6, 6, 6, 6, 6, 6)
    assert board.full[0]
    assert not board.won[0]
    assert [line_of_four(stones) for stones in board.planes()[0]] == [False, False]


def test_planes_are_those_of_the_player_whose_turn_it_is():
    """Own stones first, the bottom row last; the drawing says who began."""
    board = after(3, 4)
    assert board.planes()[0, 0, 5].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert board.planes()[0, 1, 5].tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert board.text()[0].splitlines()[-1] == after(3, 4, 0).text()[0].splitlines()[-1].replace("X", "·", 1)


def test_made_positions_are_open_and_judged_by_legal_columns():
    """Judgement is a probability over free columns and a value between loss and win, best where a win is at hand."""
    boards = game.made_positions(300, seed=3)
    policy, value = game.judged(boards, seed=3)
    assert not boards.over.any()
    np.testing.assert_allclose(policy.sum(axis=1), 1)
    assert (policy[~boards.legal()] == 0).all()
    assert (np.abs(value) <= 1).all()
    assert (value[boards.wins() != 0] == 1).all()


def test_the_demo_played_a_thousand_legal_moves_in_joined_calls(demo_of):
    """Each answered by the net, several in a run."""
    found = demo_of("board_game").found
    assert found["self_play_moves"] >= 1000
    assert found["rows_per_run"] > 2
    assert sum(found["self_play_ends"].values()) == found["self_play_games"]


def test_the_net_is_strong_as_served(demo_of):
    """Against any moves, against one move of foresight, and stronger still when it looks ahead."""
    found = demo_of("board_game").found
    assert found["random_won"] >= 0.9
    assert found["one_ply_won"] >= 0.6
    assert found["search_won"] > found["search_lost"]


def test_the_drawn_game_is_one(demo_of):
    """Its moves lead to its last board."""
    demo = demo_of("board_game")
    first, _, drawing = (demo.folder / demo.found["paths"]["a game"]).read_text().partition("\n\n")
    moves = map(int, first.removeprefix("columns ").partition(":")[0].split())
    board = after(*moves)
    assert board.over[0]
    assert drawing.startswith(board.text()[0])


def test_the_served_net_gives_full_columns_no_chance(net):
    """And the others add up to 1, on boards of all lengths of games."""
    boards = game.made_positions(2000, seed=11)
    boards = boards[~boards.legal().all(axis=1)][:64]
    answer = net(board=boards.planes())
    assert len(boards) == 64
    assert (answer["policy"][~boards.legal()] == 0).all()
    np.testing.assert_allclose(answer["policy"].sum(axis=1), 1, rtol=1e-5)
    assert (np.abs(answer["value"]) <= 1).all()


def test_the_served_net_takes_a_win_and_takes_one_away(net):
    """Most of them, on boards that it did not learn from; any column would be right one time in five."""
    boards = game.made_positions(1000, seed=12)
    for cells in (boards.wins(), np.where(boards.wins() == 0, boards.threats(), 0)):
        asked = np.bitwise_count(cells) == 1
        answers = net.infer_many({"board": boards[asked].planes()})["policy"].argmax(axis=1)
        right = rules.columns(cells[asked])[np.arange(len(answers)), answers]
        assert len(right) > 50
        assert right.mean() > 0.7


def test_a_full_board_has_no_column_and_no_nan(net):
    """There is nothing to choose, and still a value."""
    columns = [column for pair in ((0, 1), (2, 3), (4, 5)) for column in [*pair] * 2 + [*pair[::-1]] * 2 + [*pair] * 2]
    answer = net(board=after(*columns, 6, 6, 6, 6, 6, 6).planes())
    assert answer["policy"].tolist() == [[0.0] * 7]
    assert np.isfinite(answer["value"]).all()


def test_impossible_boards_get_an_answer_that_keeps_its_promises(net):
    """Stones in the air, two on a cell, numbers that are none: finite where they are, and free columns only."""
    rng = np.random.default_rng(0)
    board = rng.integers(0, 2, (8, 2, 6, 7)).astype(np.float32)
    answer = net(board=board)
    full = board[:, :, 0].sum(axis=1) != 0
    assert np.isfinite(answer["policy"]).all()
    assert (answer["policy"][full] == 0).all()
    spoilt = np.concatenate([np.full((1, 2, 6, 7), np.nan, np.float32), board])
    np.testing.assert_allclose(net(board=spoilt)["policy"][1:], answer["policy"], atol=1e-5)


@pytest.mark.parametrize(("shape", "words"), [((65, 2, 6, 7), "64"), ((1, 2, 7, 6), "2, 6, 7"), ((2, 6, 7), "2, 6, 7")])
def test_boards_of_another_shape_are_refused(net, shape, words):
    """Before anything is computed; the message says what is expected."""
    with pytest.raises(InvalidInput, match=words):
        net(board=np.zeros(shape, np.float32))


def test_more_boards_than_a_batch_go_in_parts(net):
    """65 at once, by the call that splits."""
    boards = game.made_positions(65, seed=13)
    assert net.infer_many({"board": boards.planes()})["policy"].shape == (65, 7)


def test_the_golden_pairs_hold_on_the_server(demo_of, net):
    """Those of the version that is served."""
    checks = Repository(demo_of("board_game").repository).verify_served("board_game", net._client)
    assert checks
    assert all(each.ok for each in checks)


def test_an_illegal_move_ends_the_game_loudly():
    """A player who insists on one column."""

    async def stubborn(board, rng):
        return 3

    with pytest.raises(IllegalMove, match=r"move 7 is column 3"):
        asyncio.run(play(rules.empty(1), (stubborn, stubborn), np.random.default_rng(0), opening=0))


def test_a_search_without_knowledge_finds_a_win():
    """A net that knows nothing, and a win at hand: looking ahead is enough."""

    async def knows_nothing(board):
        legal = board.legal()[0]
        return legal / legal.sum(), 0.0

    async def search(moves):
        return await searching(knows_nothing, simulations=100)(after(*moves), np.random.default_rng(0))

    for moves in WINS.values():
        assert asyncio.run(search(moves[:-1])) == moves[-1]


def test_a_match_counts_every_game_for_the_right_side():
    """Who sees wins beats who does not, whoever begins."""
    strong, weak = careless(game.careful_columns), careless(game.random_columns)
    score = asyncio.run(match(rules.empty(1), strong, weak, games=40, seed=0))
    assert score.total() == 40
    assert score["won"] > 30
