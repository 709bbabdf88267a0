"""Which GPUs CUDA shows to a process, by the environment it was started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["visible"]


def visible(gpus: Sequence[tuple[str, str]], environment: Mapping[str, str]) -> list[int]:
    """Return which of ``gpus`` (identifier, name; in the order of the bus) CUDA shows to a process.

    ``CUDA_VISIBLE_DEVICES`` has numbers or (beginnings of) identifiers; what follows one that is wrong counts for
    nothing, as in CUDA. Numbers are CUDA's own, the fastest GPU first: where GPUs differ and ``CUDA_DEVICE_ORDER`` is
    not ``PCI_BUS_ID`` nobody outside the process knows which they are, and all GPUs are returned.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(range(len(gpus)))
    by_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({name for _, name in gpus}) <= 1
    found: list[int] = []
    for entry in (part.strip() for part in named.split(",")):
        if entry.isdecimal() and int(entry) < len(gpus):
            if not by_bus:
                return list(range(len(gpus)))
            found.append(int(entry))
            continue
        matching = [
            index for index, (uuid, _) in enumerate(gpus) if len(entry) > 4 and uuid.lower().startswith(entry.lower())
        ]
        if len(matching) != 1:
            break
        found += matching
    return sorted(set(found))
