"""What may be tuned of a model, and the fields of its configuration that follow from a choice.

A *choice* is a few plain values, as the search sees them; *settings* are the fields of ``config.pbtxt`` that it stands
for, by name, with None for a field that is taken out. Settings go to the server as an override, and, of the winner,
into the repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from naiad.loadtest.errors import InvalidPlan

__all__ = ["Choice", "Settings", "Space", "apply_settings"]

Choice = Mapping[str, Any]
Settings = Mapping[str, Any]
Config = Mapping[str, Any]

THREADS: Final = "parameters.intra_op_thread_count"
SPINNING: Final = "parameters.session.intra_op.allow_spinning"
_DELAYS_US: Final = (0, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
_MOST_INSTANCES: Final = 8
_MOST_THREADS: Final = 16
_DELAY_SHARE: Final = 0.5
"""Of the latency objective: a delay above it leaves too little for the work."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The values that each part of the configuration may take. The ones that are there now are always among them."""

    config: Config
    """The configuration as it is, as Triton's JSON has it."""
    cores: int
    """Of the machine that serves."""
    limit_us: float | None = None
    """The tightest objective on a latency; longer queue delays are not tried."""
    smaller_batches: bool = False
    """Whether ``max_batch_size`` may be lowered, with which clients that send more rows are refused."""
    values: Mapping[str, tuple[Any, ...]] = field(init=False)
    """The choices, by what they are of."""

    def __post_init__(self) -> None:
        _check_tunable(self.config)
        now, found = self.current, {}
        for name, values in self._values():
            ordered = tuple(dict.fromkeys([*values, now[name]]))
            if len(ordered) > 1:
                found[name] = ordered
        if not found:
            raise InvalidPlan(f"there is nothing to tune about {self.config['name']}: one core, no batches")
        object.__setattr__(self, "values", found)

    def _values(self) -> list[tuple[str, list[Any]]]:
        found: list[tuple[str, list[Any]]] = [("instances", _doubled(min(self.cores, _MOST_INSTANCES)))]
        if self._is_onnx:
            found.append(("threads", [*_doubled(min(self.cores, _MOST_THREADS))]))
            found.append(("spinning", ["on", "off"] if self.cores > 1 else ["on"]))
        if self.max_batch_size > 1 and "sequence_batching" not in self.config:
            longest_us = _DELAY_SHARE * self.limit_us if self.limit_us else _DELAYS_US[-1]
            sizes = [size for size in _doubled(self.max_batch_size) if size > 2]
            found.append(("batching", ["on", "off"]))
            found.append(("delay_us", [delay for delay in _DELAYS_US if delay <= longest_us]))
            found.append(("preferred", ["", *map(str, sizes)]))
            if self.smaller_batches:
                found.append(("max_batch", sizes))
        return found

    @property
    def _is_onnx(self) -> bool:
        return self.config.get("backend") == "onnxruntime" or "onnx" in str(self.config.get("platform", ""))

    @property
    def max_batch_size(self) -> int:
        """The largest batch, as configured."""
        return int(self.config.get("max_batch_size", 0))

    @property
    def current(self) -> dict[str, Any]:
        """The choice that the configuration is now."""
        batching = self.config.get("dynamic_batching")
        preferred = (batching or {}).get("preferred_batch_size", ())
        groups = self.config.get("instance_group") or [{}]
        return self.canonical(
            {
                "instances": int(groups[0].get("count", 1)),
                "threads": int(self._parameter(THREADS) or self.cores),
                "spinning": "off" if self._parameter(SPINNING) == "0" else "on",
                "batching": "off" if batching is None else "on",
                "delay_us": int((batching or {}).get("max_queue_delay_microseconds", 0)),
                "preferred": ",".join(map(str, preferred)),
                "max_batch": self.max_batch_size,
            }
        )

    @property
    def tritons(self) -> dict[str, Any]:
        """What Triton does where a configuration says nothing: one instance, no batches, ONNX Runtime's own threads."""
        return self.canonical(
            {**self.current, "instances": 1, "batching": "off", "threads": self.cores, "spinning": "on"}
        )

    def guesses(self) -> list[dict[str, Any]]:
        """Return what somebody who knows Triton would try first; the current configuration is the first of all."""
        on = {**self.current, "batching": "on", "delay_us": 0, "preferred": ""}
        one, all_ = {"instances": 1, "threads": 1}, {"instances": 1, "threads": self.cores}
        each = {"instances": min(self.cores, _MOST_INSTANCES), "threads": 1}
        half = str(_nearest_power(self.max_batch_size / 2)) if self.max_batch_size > 4 else ""
        wanted = [
            self.current,
            self.tritons,
            {**on, **one},
            {**on, **all_},
            {**on, **each},
            {**on, **one, "delay_us": 500},
            {**on, **one, "delay_us": 1_000, "preferred": half},
            {**on, **all_, "spinning": "off"},
            {**on, **one, "delay_us": 2_000},
        ]
        allowed = [self.canonical(guess) for guess in wanted if self._allows(guess)]
        return [guess for index, guess in enumerate(allowed) if guess not in allowed[:index]]

    def canonical(self, choice: Choice) -> dict[str, Any]:
        """Return the choice with what has no effect at its plain value, so that equal configurations are equal."""
        found = dict(choice)
        if found.get("batching", "on") == "off":
            found |= {"delay_us": 0, "preferred": "", "max_batch": self.max_batch_size}
        if found.get("delay_us", 0) == 0:
            found["preferred"] = ""  # without a delay nobody waits for a size, and a queue would only be cut
        sizes = [size for size in found.get("preferred", "").split(",") if size]
        if any(int(size) > found.get("max_batch", self.max_batch_size) for size in sizes):
            found["preferred"] = ""
        if found.get("threads", 1) == 1:
            found["spinning"] = "on"
        return found

    def settings(self, choice: Choice) -> dict[str, Any]:
        """Return the fields that differ from the configuration as it is."""
        chosen, now = self.canonical({**self.current, **choice}), self.current
        found: dict[str, Any] = {}
        if chosen["instances"] != now["instances"]:
            groups = self.config.get("instance_group") or [{}]
            found["instance_group"] = [{**groups[0], "count": chosen["instances"]}]
        if chosen["threads"] != now["threads"] or (chosen["instances"] > 1 and not self._parameter(THREADS)):
            found[THREADS] = str(chosen["threads"])
        if chosen["spinning"] != now["spinning"]:
            found[SPINNING] = "0" if chosen["spinning"] == "off" else None
        if any(chosen[name] != now[name] for name in ("batching", "delay_us", "preferred")):
            found["dynamic_batching"] = self._batching(chosen)
        if chosen["max_batch"] != now["max_batch"]:
            found["max_batch_size"] = chosen["max_batch"]
        return found

    def describe(self, choice: Choice) -> str:
        """Return a choice in a few words."""
        chosen = self.canonical({**self.current, **choice})
        spinning = ", no spinning" if chosen["spinning"] == "off" else ""
        threads = f" × {_count(chosen['threads'], 'thread')}{spinning}" if self._is_onnx else ""
        words = [f"{_count(chosen['instances'], 'instance')}{threads}"]
        if self.max_batch_size > 1 and "sequence_batching" not in self.config:
            words.append(_batching_words(chosen))
        if chosen["max_batch"] != self.max_batch_size:
            words.append(f"at most {chosen['max_batch']} rows")
        return ", ".join(words)

    def _batching(self, chosen: Choice) -> dict[str, Any] | None:
        if chosen["batching"] == "off":
            return None
        rest = dict(self.config.get("dynamic_batching") or {})  # priorities and queue policies stay
        for name in ("preferred_batch_size", "max_queue_delay_microseconds"):
            rest.pop(name, None)
        if chosen["preferred"]:
            rest["preferred_batch_size"] = [int(size) for size in chosen["preferred"].split(",")]
        if chosen["delay_us"]:
            rest["max_queue_delay_microseconds"] = str(chosen["delay_us"])
        return rest

    def _allows(self, choice: Choice) -> bool:
        return all(choice[name] in values for name, values in self.values.items())

    def _parameter(self, name: str) -> str | None:
        value = (self.config.get("parameters") or {}).get(name.removeprefix("parameters."))
        return None if value is None else str(value.get("string_value", ""))


def apply_settings(config: Config, settings: Settings) -> dict[str, Any]:
    """Return a whole configuration with some fields set, for the server's load request."""
    found: dict[str, Any] = json.loads(json.dumps(config))
    for name, value in settings.items():
        first, _, parameter = name.partition(".")
        place, key = (found.setdefault(first, {}), parameter) if parameter else (found, name)
        if value is None:
            place.pop(key, None)
        else:
            place[key] = {"string_value": value} if parameter else value
    if "model_warmup" in found:  # Triton refuses to load a model whose warm-up is larger than its batches
        largest = max(int(found.get("max_batch_size", 0)), 1)
        found["model_warmup"] = [each for each in found["model_warmup"] if int(each.get("batch_size", 1)) <= largest]
    return found


def _check_tunable(config: Config) -> None:
    name = config["name"]
    if "ensemble_scheduling" in config:
        steps = [step["model_name"] for step in config["ensemble_scheduling"].get("step", ())]
        raise InvalidPlan(
            f"{name} is an ensemble, which has nothing to tune itself: tune its steps ({', '.join(steps)})"
        )
    if len(config.get("instance_group") or ()) > 1:
        raise InvalidPlan(
            f"{name} has {len(config['instance_group'])} instance groups, and the tuner changes the count of one: "
            "leave one, or tune it by hand",
            model=name,
        )


def _batching_words(chosen: Choice) -> str:
    if chosen["batching"] == "off":
        return "no batching"
    delay = f", waits {chosen['delay_us']} µs" if chosen["delay_us"] else ""
    preferred = f" for {chosen['preferred'].replace(',', ' or ')} rows" if chosen["preferred"] and delay else ""
    return f"batching{delay}{preferred}"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _doubled(largest: int) -> list[int]:
    """Return 1, 2, 4, … and the largest itself."""
    sizes = [1]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    return sizes if largest <= 1 else [*sizes, largest]


def _nearest_power(value: float) -> int:
    return 1 << max(round(value) - 1, 1).bit_length() if value > 1 else 1
