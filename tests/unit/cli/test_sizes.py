"""Sizes of memory as people write them."""

import pytest
import typer

from naiad.cli.serve._sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("1048576", 1 << 20), ("512MB", 512 * 10**6), ("2GiB", 2 << 30), ("1.5gib", 3 << 29),
     (" 64 MiB ", 64 << 20), ("1k", 1000), ("3TB", 3 * 10**12), ("7B", 7)],
)  # fmt: skip
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    """Powers of 1000 without an i, of 1024 with one."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "much", "-1", "1XB", "1iB", "1.2.3MB", "MB", "1 000"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """With examples of what is one."""
    with pytest.raises(typer.BadParameter, match="such as 512MB, 2GiB"):
        parse_size(text)
