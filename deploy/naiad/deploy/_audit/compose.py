"""Reads a compose file as far as an audit needs it."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from naiad.deploy._audit.arguments import Arguments
from naiad.deploy.errors import InvalidTarget

_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::?[-?+]([^}]*))?\}|(\w+))")
_REPLACED: Final = frozenset({"command", "entrypoint", "test"})
_LOOPBACK: Final = ("127.", "[::1]", "localhost:")


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposeService:
    """One service of a compose file."""

    name: str
    raw: Mapping[str, Any]

    @property
    def image(self) -> str:
        """With the defaults of variables filled in."""
        return _filled(str(self.raw.get("image", "")))

    @property
    def command(self) -> tuple[str, ...]:
        """Entry point and command as words."""
        return (*_words(self.raw.get("entrypoint")), *_words(self.raw.get("command")))

    @property
    def arguments(self) -> Arguments:
        """The options among them."""
        return Arguments(self.command)

    @property
    def is_triton(self) -> bool:
        """Whether it runs Triton."""
        return "triton" in self.image or any("tritonserver" in word for word in self.command)

    @property
    def is_gateway(self) -> bool:
        """Whether it is what callers are meant to reach."""
        return "envoy" in self.image or "envoy" in " ".join(self.command[:1])

    @property
    def published(self) -> tuple[str, ...]:
        """Ports that others than the machine can reach."""
        return tuple(text for port in self.raw.get("ports") or () if (text := _port(port)) and not _is_local(text))

    @property
    def volumes(self) -> tuple["Volume", ...]:
        """What is mounted, without named volumes."""
        return tuple(filter(None, map(_volume, self.raw.get("volumes") or ())))

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables and their values."""
        given = self.raw.get("environment") or {}
        pairs = given.items() if isinstance(given, Mapping) else (str(item).split("=", 1) for item in given)
        return {str(pair[0]): str(pair[1]) for pair in map(tuple, pairs) if len(pair) == 2 and pair[1] is not None}

    def listed(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(str(item) for item in self.raw.get(key) or ())


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A bind mount."""

    source: str
    target: str
    read_only: bool


def load_compose(*paths: Path) -> tuple[ComposeService, ...]:
    """Read the services of files that are laid over each other. Raises: `InvalidTarget` if one is none."""
    services: dict[str, dict[str, Any]] = {}
    for path in paths:
        for name, raw in _read(path).items():
            services[str(name)] = _merged(services.get(str(name), {}), raw or {})
    return tuple(ComposeService(name=name, raw=raw) for name, raw in services.items())


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506  (derived from SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise InvalidTarget(f"expected a compose file at {path}: {exc}") from exc
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict):
        raise InvalidTarget(f"expected a compose file at {path}, found YAML without `services`")
    return {name: raw for name, raw in services.items() if isinstance(raw, dict | None)}


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one service over another as compose does: mappings merge, most lists grow, everything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        value, before = _plain(value), merged.get(key)
        if isinstance(over[key], _Override):
            merged[key] = value
        elif isinstance(before, dict) and isinstance(value, dict):
            merged[key] = _merged(before, value)
        elif isinstance(before, list) and isinstance(value, list) and key not in _REPLACED:
            merged[key] = [*before, *value]
        else:
            merged[key] = _merged({}, value) if isinstance(value, dict) else value
    return merged


@dataclass(frozen=True, slots=True)
class _Override:
    """A value that replaces what is under it."""

    value: Any


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Override) else value


class _Loader(yaml.SafeLoader):
    """Also reads compose's own tags, `!reset` and `!override`."""


def _own_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if suffix == "reset":
        return _Override(None)
    if isinstance(node, yaml.MappingNode):
        return _Override(loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return _Override(loader.construct_sequence(node, deep=True))
    return _Override(node.value)


_Loader.add_multi_constructor("!", _own_tag)


def _filled(text: str) -> str:
    """Variables have their defaults, as where nobody sets them."""
    return _VARIABLE.sub(lambda match: match[2] or "", text.replace("$$", "\0")).replace("\0", "$")


def _words(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError:
            return tuple(value.split())
    return tuple(str(word) for word in value)


def _port(port: Any) -> str:
    if isinstance(port, Mapping):
        host = port.get("host_ip", "")
        return _filled(f"{host}:{port.get('published', '')}:{port.get('target', '')}".lstrip(":"))
    return _filled(str(port))


def _is_local(port: str) -> bool:
    return port.startswith(_LOOPBACK)


def _volume(volume: Any) -> Volume | None:
    if isinstance(volume, Mapping):
        if volume.get("type", "bind") != "bind":
            return None
        return Volume(
            source=_filled(str(volume.get("source", ""))),
            target=str(volume.get("target", "")),
            read_only=bool(volume.get("read_only", False)),
        )
    parts = _filled(str(volume)).split(":")
    if len(parts) < 2 or not parts[0].startswith((".", "/", "~")):
        return None
    return Volume(source=parts[0], target=parts[1], read_only="ro" in ",".join(parts[2:]).split(","))
