"""``naiad loadtest``: load on served models, and a verdict."""

from naiad.cli._exit import MeasuringCommand
from naiad.cli.loadtest.command import loadtest as loadtest

COMMAND_CLASS = MeasuringCommand
