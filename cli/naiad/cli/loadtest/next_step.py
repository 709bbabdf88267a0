"""What to do after a run, from what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["next_step"]

Content = Mapping[str, Any]


def next_step(content: Content) -> str:
    """Return one suggestion for what ``Report.to_json()`` says, or nothing."""
    results, model = content["results"], next((target["model"] for target in content["targets"]), "MODEL")
    if content["interrupted"] or not results["completed"]:
        return ""
    if content["verdict"] == "invalid":
        return _when_invalid(content)
    missed = [slo for slo in content["slos"] if not slo["met"]]
    if missed:
        return _when_missed(results, model, missed[0]["slo"])
    if content["failures"]:
        return ""
    return _when_passed(content, results, model)


def _when_invalid(content: Content) -> str:
    kinds = {doubt["kind"] for doubt in content["doubts"] if doubt["invalid"]}
    engines = content["results"]["generator"]["engines"]
    if "generator_lag" in kinds and not content["test"]["realtime"]:
        return (
            "a server on the same cores keeps the load generator waiting: keep a core free for it, have --realtime put "
            "it first (root or CAP_SYS_NICE), or use another machine (--master, --worker)"
        )
    if kinds & {"generator_cpu", "generator_lag", "in_flight"}:
        return (
            f"give the load generator more (--engines {max(2, engines * 2)}), or another machine (--master, --worker)"
        )
    if any("steady" in kind for kind in kinds):
        return "measure longer (--max-warmup, --duration), or look what else runs on the server"
    return ""


def _when_missed(results: Content, model: str, slo: str) -> str:
    steps = results["breakdown_us"] or {}
    share = steps.get("queue", 0.0) / (sum(steps.values()) or 1.0)
    if share > 0.3:
        return (
            f'much of the time is the queue: naiad tune {model} --slo "{slo}" looks for better batching and instances'
        )
    return f'naiad loadtest {model} --find-max "{slo}" finds the load that keeps it'


def _when_passed(content: Content, results: Content, model: str) -> str:
    unproven = [slo["slo"] for slo in content["slos"] if slo["met"] and slo.get("proven") is False]
    if unproven:
        return f"{unproven[0]} is met, but not proven: measure longer, or until it is known (--precision p99±5%)"
    latency = [slo["slo"] for slo in content["slos"] if slo["metric"].startswith("p")]
    if latency:
        return f'naiad loadtest {model} --find-max "{latency[0]}" finds how much more it takes'
    if not content["slos"] and results["latency_us"]["p99"]:
        limit_ms = max(1, round(results["latency_us"]["p99"] / 1000 * 1.5))
        return f'an objective makes it a check: --slo "p99<{limit_ms}ms" --slo "errors<0.1%"'
    return ""
