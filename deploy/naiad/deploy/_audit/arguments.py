"""Reads and judges the command line of a `tritonserver`, of a process or in a compose file."""

from collections.abc import Iterator, Sequence
from typing import Final

from naiad.deploy._audit.finding import GUIDE, Finding, Severity, ok

_RESTRICTED: Final = ("--grpc-restricted-protocol", "--http-restricted-api")
_NEEDED: Final = ("model-repository", "shared-memory", "trace", "logging")
_HIDDEN: Final = frozenset("*")


class Arguments:
    """The options of a command line, each with its values in their order."""

    def __init__(self, command: Sequence[str]) -> None:
        self._values: dict[str, list[str]] = {}
        words = list(command)
        for position, word in enumerate(words):
            if not word.startswith("--"):
                continue
            name, equals, value = word.partition("=")
            following = words[position + 1] if position + 1 < len(words) else "--"
            # `--exit-on-error false` and `--disable-auto-complete-config` alone are both possible.
            given = value if equals else "true" if following.startswith("--") else following
            self._values.setdefault(name, []).append(given)

    def last(self, name: str, default: str) -> str:
        """The value that counts."""
        return self._values.get(name, [default])[-1]

    def all(self, name: str) -> tuple[str, ...]:
        """Every value, of options that may be given several times."""
        return tuple(self._values.get(name, ()))

    def is_on(self, name: str, *, default: bool) -> bool:
        """A switch, as Triton reads it."""
        return self.last(name, str(default)).lower() in {"true", "1"}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def control_mode(self) -> str:
        """`none`, `poll` or `explicit`."""
        return self.last("--model-control-mode", "none").lower()

    @property
    def exit_timeout_s(self) -> int:
        """Seconds that requests in flight get at the end."""
        value = self.last("--exit-timeout-secs", "30")
        return int(value) if value.isdigit() else 30

    @property
    def repositories(self) -> tuple[str, ...]:
        """Where the models come from."""
        return (*self.all("--model-repository"), *self.all("--model-store"))

    def unrestricted(self) -> tuple[str, ...]:
        """The management APIs that no secret guards, of the protocols that are on."""
        return tuple(
            f"{api} ({option.removeprefix('--')})"
            for option in _RESTRICTED
            if self.is_on("--allow-grpc" if "grpc" in option else "--allow-http", default=True)
            for api in _NEEDED
            if not any(api in value.partition(":")[0].split(",") for value in self.all(option))
        )

    def visible_secrets(self) -> tuple[str, ...]:
        """The options that show a secret to whoever lists processes."""
        shown = []
        for option in _RESTRICTED:
            for value in self.all(option):
                secret = value.partition("=")[2]
                if secret and not set(secret) <= _HIDDEN and not secret.startswith(("$", "{")):
                    shown.append(option)
        return tuple(dict.fromkeys(shown))


def judge_arguments(arguments: Arguments, where: str, *, embedded: bool = False) -> Iterator[Finding]:
    """All findings about a command line; `embedded` ones are guarded by their launcher otherwise."""
    yield _control(arguments, where)
    yield _secrets(arguments, where)
    yield _switches(arguments, where, embedded=embedded)
    yield _pool(arguments, where)
    yield _platforms(arguments, where)


def _control(arguments: Arguments, where: str) -> Finding:
    check, mode, open_apis = "process-control-mode", arguments.control_mode, arguments.unrestricted()
    if mode == "none":
        return ok(check, where, "models are loaded at the start only (--model-control-mode=none)")
    guarded = not any(api.startswith("model-repository") for api in open_apis)
    if mode == "explicit" and guarded:
        return ok(check, where, "model control is explicit, and asks for a secret")
    return Finding(
        id=check,
        severity=Severity.HIGH,
        where=where,
        found=f"--model-control-mode={mode}" + ("" if mode == "poll" else f" without a secret for {open_apis[0]}"),
        why="whoever can write the repository runs code within seconds"
        if mode == "poll"
        else "whoever reaches the server loads models, and so runs code in it",
        fix="--model-control-mode=none, and a rolling restart for new models; or explicit with the secret that "
        "`naiad deploy secrets` makes",
        source=GUIDE,
    )


def _secrets(arguments: Arguments, where: str) -> Finding:
    shown = arguments.visible_secrets()
    if not shown:
        return ok("process-secrets", where, "the command line shows no secret")
    return Finding(
        id="process-secrets",
        severity=Severity.MEDIUM,
        where=where,
        found=f"the command line shows a secret ({', '.join(shown)})",
        why="every user of the machine can list processes",
        fix="have only the gateway reach Triton, in a container of its own; hidepid=2 for /proc elsewhere",
        source=GUIDE,
    )


def _switches(arguments: Arguments, where: str, *, embedded: bool) -> Finding:
    wrong = []
    strict_config = arguments.is_on("--strict-model-config", default=False)
    if not strict_config and not arguments.is_on("--disable-auto-complete-config", default=False):
        wrong.append("configurations are completed by guessing (--disable-auto-complete-config is missing)")
    if not embedded and not arguments.is_on("--exit-on-error", default=True):
        wrong.append("a server whose models do not load stays up (--exit-on-error=false)")
    if not arguments.is_on("--strict-readiness", default=True):
        wrong.append("it says ready while models are not (--strict-readiness=false)")
    if not wrong:
        return ok("process-strictness", where, "it starts with complete configurations, and says ready when it is")
    return Finding(
        id="process-strictness",
        severity=Severity.LOW,
        where=where,
        found="; ".join(wrong),
        why="what is served is not what was published, or traffic comes too early",
        fix="--disable-auto-complete-config, --exit-on-error=true, --strict-readiness=true",
        source=GUIDE,
    )


def _pool(arguments: Arguments, where: str) -> Finding:
    check, option = "process-response-pool", "--grpc-max-response-pool-size"
    if option in arguments or not arguments.is_on("--allow-grpc", default=True):
        return ok(check, where, "the pool of gRPC responses is bounded")
    return Finding(
        id=check,
        severity=Severity.LOW,
        where=where,
        found=f"{option} is not set",
        why="the answers of a stream whose reader is slow pile up in memory",
        fix=f"{option}=64, or as many answers as a stream may be ahead of its reader (from release 25.04 on)",
        source=GUIDE,
    )


def _platforms(arguments: Arguments, where: str) -> Finding:
    check = "process-endpoints"
    names = [name for name in ("--allow-sagemaker", "--allow-vertex-ai") if arguments.is_on(name, default=False)]
    if not names:
        return ok(check, where, "the endpoints of SageMaker and Vertex AI are off")
    return Finding(
        id=check,
        severity=Severity.HIGH,
        where=where,
        found=f"{' and '.join(names)}: an endpoint more, on every interface",
        why="before 26.03 it knew no restricted APIs (CVE-2026-24207)",
        fix="leave it out, unless the platform needs it",
        source="https://github.com/NVIDIA/product-security/tree/main/2026/5828",
    )
