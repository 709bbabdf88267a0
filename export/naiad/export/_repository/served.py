"""What a running server answered, compared with what it should."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputDistance:
    """The largest difference of one output from PyTorch's, over all pairs."""

    output: str
    max_abs_error: float
    max_rel_error: float
    """Relative to the largest value of the output; for integers and text the share of values that differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedVersion:
    """The outcome of replaying one version's golden pairs on one server."""

    model: str
    version: int
    server: str
    num_pairs: int
    """Those that were answered."""
    outputs: tuple[OutputDistance, ...]
    problems: tuple[str, ...]
    """One sentence each; empty when every answer is within the tolerance of the export."""

    @property
    def ok(self) -> bool:
        """Whether this server answers as PyTorch did."""
        return not self.problems
