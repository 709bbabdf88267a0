"""What an input is, for samples that are made up because there are no real ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from naiad.export.errors import InvalidExport


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One input of a model: `Input(dtype="int64", shape=["batch", "length"], low=0, high=30521)`."""

    dtype: str = "float32"
    """As numpy names it; `str` for text."""
    shape: Sequence[int | str] = ("batch",)
    """A name for each dimension that varies, the batch among them."""
    low: float | None = None
    """The smallest value; by default numbers are normally distributed, and integers 0 or 1."""
    high: float | None = None
    """The largest value, itself included for integers."""
    words: Sequence[str] = ()
    """What text is drawn from."""

    def __post_init__(self) -> None:
        try:
            np.dtype(self.dtype)
        except TypeError as exc:
            raise InvalidExport(
                f"an Input's dtype is numpy's name of it, as in 'float32'; found {self.dtype!r}"
            ) from exc
        if any(not isinstance(size, str) and (isinstance(size, bool) or size < 1) for size in self.shape):
            raise InvalidExport(f"an Input's shape has sizes of at least 1, or names; found {list(self.shape)}")
        if (self.low is None) != (self.high is None):
            raise InvalidExport("an Input has low and high, or neither")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InvalidExport(f"an Input's low is at most its high; found {self.low} and {self.high}")
