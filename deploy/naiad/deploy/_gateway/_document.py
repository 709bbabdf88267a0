"""How Envoy's configuration is written: typed messages, in YAML that is the same for the same service."""

import re
from collections.abc import Sequence
from typing import Any, Final

import yaml

Message = dict[str, Any]

HEAD: Final = "# Made by `naiad deploy render` from the service's description: edit that, not this.\n"
_AMBIGUOUS: Final = re.compile(r"(?:[yYnN]|[-+.]?\d[\w.+-]*)\Z")
"""Text that Envoy's reader of YAML takes for a truth value or a number where Python's does not, as `n` and `1e5`."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def typed(type_name: str, /, **fields: Any) -> Message:
    """A message of one of Envoy's types (`envoy.….v3.Name`), with its fields."""
    return {"@type": f"type.googleapis.com/{type_name}", **fields}


def document(content: Message) -> str:
    """A whole file; text of several lines is written as such, so that a person can read it."""
    return HEAD + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=160, allow_unicode=True)


def resources(messages: Sequence[Message]) -> str:
    """A file that Envoy watches: what is in force from the moment it is renamed into place."""
    return document({"resources": list(messages)})


def seconds(value: float) -> str:
    """A duration, as protobuf writes it in JSON."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def from_file(directory: str, name: str) -> Message:
    """Where a part of the configuration comes from: a file that Envoy watches."""
    return {"path_config_source": {"path": f"{directory}/{name}"}, "resource_api_version": "V3"}


def discovered(name: str, directory: str, *type_names: str) -> Message:
    """An HTTP filter whose configuration lies in `<name>.yaml` as one TypedExtensionConfig of that name (ECDS)."""
    types = [f"type.googleapis.com/{each}" for each in type_names]
    source = from_file(directory, f"{name}.yaml")
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": types}}


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if _AMBIGUOUS.match(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
