"""Lines of keys in TOML files, held against what ``tomllib`` reads."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naiad.loadtest._scenario.lines import key_lines

DOCUMENT = '''\
# a comment with a "quote
title = "x" # another = 1
a.b . "c d" = 1

[server]
url = "grpc://h:1"  # [not a table]
headers = { authorization = { env = "A" }, "x-y" = { file = "b" } }

[[models]]
model = """
several = lines
[not.a.table]
"""
shape = [
  1, # one, ]
  [2,
   3],
]
[models.data]
path = \'\'\'
x = 1\'\'\'\'
[models.data.deeper]
odd = "\\" # not a comment"

[[models]]
model = "b"
data = { shapes = { "a\\u0062" = [
  1 ] } }
[[models.data.items]]
z = 1979-05-27T07:32:00Z
'''


def test_every_key_has_its_line():
    """Dotted keys, tables, arrays of tables, inline tables and strings of several lines."""
    lines = key_lines(DOCUMENT.replace('data = { shapes = { "a\\u0062" = [\n  1 ] } }\n', "\n\n"))
    wanted = {
        ("title",): 2,
        ("a", "b", "c d"): 3,
        ("server",): 5,
        ("server", "headers", "x-y", "file"): 7,
        ("models", 0): 9,
        ("models", 0, "model"): 10,
        ("models", 0, "shape"): 14,
        ("models", 0, "shape", 1): 16,
        ("models", 0, "shape", 1, 1): 17,
        ("models", 0, "data"): 19,
        ("models", 0, "data", "path"): 20,
        ("models", 0, "data", "deeper", "odd"): 23,
        ("models", 1, "model"): 26,
        ("models", 1, "data", "items", 0, "z"): 30,
    }
    assert {path: lines.get(path) for path in wanted} == wanted


def paths(value: Any, at: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {at, *(path for key, item in items for path in paths(item, (*at, key)))} - {()}


def test_the_keys_found_are_those_that_tomllib_reads():
    """Nothing is missed and nothing invented."""
    document = DOCUMENT.replace("[[models.data.items]]\nz = 1979-05-27T07:32:00Z\n", "")
    assert set(key_lines(document)) == paths(tomllib.loads(document))


NAMES = st.sampled_from(["a", "b", "c-d", "e_f", '"g h"', "'i.j'", '"k#=\\""', "1"])
SCALARS = st.sampled_from(
    (
        *("1", "-2.5e3", "true", '"text"', '"a # b ] } \\" ="', "'it = [x]'", "1979-05-27", "0xff", "inf"),
        *('"""\none\n"quoted" = 2\n"""', "'''\nx'''"),
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ # note ]\n" + ",\n".join(items) + "\n]"),
        st.lists(st.tuples(NAMES, inner), max_size=2, unique_by=lambda pair: pair[0].strip("\"'")).map(
            lambda pairs: "{ " + ", ".join(f"{name} = {value}" for name, value in pairs) + " }"
        ),
    ),
    max_leaves=5,
)
LINES = st.one_of(
    st.tuples(st.lists(NAMES, min_size=1, max_size=3), VALUES).map(lambda pair: f"{'.'.join(pair[0])} = {pair[1]}"),
    st.lists(NAMES, min_size=1, max_size=3).map(lambda names: f"[{' . '.join(names)}]"),
    st.lists(NAMES, min_size=1, max_size=2).map(lambda names: f"  [[ {'.'.join(names)} ]] # many"),
    st.sampled_from(["", "# comment = 1", "\t"]),
)


@given(st.lists(LINES, max_size=8))
def test_documents_made_at_random_are_read_alike(pieces: list[str]):
    """Whatever tomllib accepts has the same keys here, and each stands on the line where its text begins."""
    kept: list[str] = []
    for piece in pieces:
        try:
            tomllib.loads("\n".join([*kept, piece]))
        except tomllib.TOMLDecodeError:
            continue
        kept.append(piece)
    text = "\n".join(kept)
    found = key_lines(text)
    assert set(found) == paths(tomllib.loads(text))
    written = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str) and path[-1].isalnum():
            assert path[-1] in written[line - 1]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_do_not_move_lines(ending: str):
    """Files written on Windows count the same."""
    lines = key_lines(ending.join(["a = 1", "", "[b]", "c = 2"]))
    assert lines[("b", "c")] == 4
