"""``naiad demo``: a system from the gallery, the whole way from training to a measured service."""

from naiad.cli.demo.command import demo as demo
