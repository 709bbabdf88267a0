"""Every rule of the linter, in the order in which findings are shown.

A rule takes an entry and gives what is wrong; its docstring says what it holds true. Rules do not depend on each other:
where one needs what another has found missing, it gives nothing.
"""

from collections.abc import Callable, Iterable

from naiad.export._lint import (
    accelerators,
    backends,
    calls,
    config,
    ensemble,
    files,
    formats,
    gpus,
    parameters,
    scheduling,
    sequence,
    signature,
    tensorrt,
    tensors,
    warmup,
)
from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem

Rule = Callable[[Entry], Iterable[Problem]]

FILES: tuple[Rule, ...] = (*config.SYNTAX_RULES, *files.RULES)
"""For every entry, also one whose configuration cannot be read."""
CONFIGURATION: tuple[Rule, ...] = (
    *config.RULES,
    *tensors.RULES,
    *scheduling.RULES,
    *sequence.RULES,
    *ensemble.RULES,
    *calls.RULES,
    *parameters.RULES,
    *accelerators.RULES,
    *tensorrt.RULES,
    *gpus.RULES,
    *warmup.RULES,
    *backends.RULES,
    *formats.RULES,
    *signature.RULES,
)
"""For entries with a configuration."""
RULES: tuple[Rule, ...] = (*FILES, *CONFIGURATION)


def name_of(rule: Rule) -> str:
    """Return the name of a rule as findings show it, such as `tensors.dims`."""
    return f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"
