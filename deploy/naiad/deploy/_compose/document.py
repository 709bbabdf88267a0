"""How Compose files are written, with the two tags by which an override takes something away."""

from typing import Any, Final

import yaml

Fields = dict[str, Any]

_MADE: Final = "# Made by `naiad deploy render` from the service's description: edit that, not this.\n"


class Override:
    """A value that replaces what the overridden file has, where Compose would merge the two."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _override(dumper: yaml.SafeDumper, override: Override) -> yaml.Node:
    node = dumper.represent_data(override.value)
    node.tag = "!override"
    return node


_Dumper.add_representer(Override, _override)


def document(content: Fields, explanation: str) -> str:
    """A whole file, with who made it and what it is for on top."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in explanation.strip().splitlines())
    return _MADE + "#\n" + comment + "\n" + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120)
