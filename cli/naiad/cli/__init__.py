"""The ``naiad`` command."""

from naiad.cli.app import main as main
