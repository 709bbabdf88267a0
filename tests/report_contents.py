"""Contents of reports made by hand, as ``report.json`` has them: what pages, tables and comparisons are made from."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

PERCENTILES = [0.0, *range(1, 100), 99.5, 99.9, 99.95, 99.99, 99.999, 100.0]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def times(values_us: Any) -> dict[str, Any]:
    names = (50, 90, 95, 99, 99.9)
    if not len(values_us):
        return {"count": 0, "mean": None, **{f"p{name:g}": None for name in names}, "max": None}
    return {
        "count": len(values_us),
        "mean": float(np.mean(values_us)),
        **{f"p{name:g}": float(np.percentile(values_us, name)) for name in names},
        "max": float(np.max(values_us)),
    }


def curve(values_us: Any) -> list[dict[str, float]]:
    if not len(values_us):
        return []
    known = [p for p in PERCENTILES if p in (0.0, 100.0) or p <= 100 * (1 - 1 / len(values_us))]
    return [{"percentile": float(p), "latency_us": float(np.percentile(values_us, p))} for p in known]


def bins(values_us: Any) -> list[dict[str, Any]]:
    if not len(values_us):
        return []
    edges = np.unique(np.geomspace(values_us.min() * 0.999, values_us.max() * 1.001, 41))
    counts, _ = np.histogram(values_us, edges)
    return [
        {"from_us": float(low), "to_us": float(high), "count": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def results(**how: Any) -> dict[str, Any]:
    """A run with a tail, a warm-up of 4 s, and one short stall in the middle."""
    key = repr(sorted(how.items()))
    if key not in _MADE:
        _MADE[key] = _results(**how)
    return copy.deepcopy(_MADE[key])


_MADE: dict[str, dict[str, Any]] = {}


def _results(
    *,
    seed: int = 1,
    rate: float = 4000.0,
    p50_us: float = 2800.0,
    seconds: int = 20,
    open_loop: bool = True,
    errors: dict[str, tuple[int, str]] | None = None,
    gpu: bool = False,
    stall: bool = True,
) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    points, window, service = [], [], []
    for half in range(-8, seconds * 2):
        slow = 1.0 + 3.5 * math.exp(-(half + 8) / 2.5)
        stalled = stall and half == seconds
        count = int(random.normal(rate / 2, rate / 90))
        own = random.lognormal(math.log(p50_us * slow), 0.28, count) + random.exponential(p50_us * 0.08, count)
        seen = own + (random.uniform(0, 180_000, count) if stalled and open_loop else 0)
        if half >= 0:
            window.append(seen)
            service.append(own)
        points.append(
            {
                "at_s": half / 2 + 0.25,
                "warmup": half < 0,
                "offered_per_s": rate if open_loop else None,
                "throughput_per_s": float(count * 2 / (1.7 if stalled else 1.0) / (slow if not open_loop else 1)),
                "p50_us": float(np.percentile(seen, 50)),
                "p99_us": float(np.percentile(seen, 99)),
                "service_p99_us": float(np.percentile(own, 99)),
                "errors": int(random.poisson(2)) if errors and half > 4 else 0,
                "in_flight": float(round(rate * np.mean(seen) * 1e-6, 1)),
                "users": None if open_loop else 16,
                "server_cpu_cores": float(1.6 + random.normal(0, 0.04)),
                "server_rss_bytes": int(412e6 + half * 2e4),
                "gpu_share": float(min(1.0, 0.82 + random.normal(0, 0.02))) if gpu else None,
                "gpu_memory_busy_share": float(0.4 + random.normal(0, 0.02)) if gpu else None,
                "gpu_memory_bytes": 9_800_000_000.0 if gpu else None,
                "gpu_power_w": float(310 + random.normal(0, 4)) if gpu else None,
                "gpu_sm_mhz": 1980.0 if gpu else None,
                "gpu_temperature_c": 51.0 if gpu else None,
                "gpu_pcie_rx_bytes_per_s": 2.1e9 if gpu else None,
                "gpu_pcie_tx_bytes_per_s": 0.2e9 if gpu else None,
            }
        )
    seen, own = np.concatenate(window), np.concatenate(service)
    mean_us, executions = float(seen.mean()), int(len(seen) / 5.2)
    failed = sum(count for count, _ in (errors or {}).values())
    shares = {
        "generator": 0.012 if open_loop else 0.002,
        "network_and_grpc": 0.14,
        "queue": 0.31,
        "compute_input": 0.015,
        "compute_infer": 0.463,
        "compute_output": 0.02,
        "server_other": 0.04,
    }
    return {
        "window_s": float(seconds),
        "users": None if open_loop else 16,
        "rows_per_request": 1,
        "sent": len(seen) + failed,
        "completed": len(seen),
        "failed": failed,
        "requests": len(seen) + failed,
        "responses": len(seen),
        "offered_per_s": rate if open_loop else None,
        "throughput_per_s": len(seen) / seconds,
        "inferences_per_s": len(seen) / seconds,
        "responses_per_s": len(seen) / seconds,
        "goodput_per_s": float((seen < 20_000).sum() / seconds),
        "goodput_share": float((seen < 20_000).mean()),
        "error_share": failed / (failed + len(seen)),
        "latency_us": times(seen),
        "service_us": times(own),
        "lag_us": times(random.exponential(18, len(seen))),
        "first_response_us": None,
        "between_responses_us": None,
        "intervals": {
            "throughput": [len(seen) / seconds * 0.993, len(seen) / seconds * 1.007],
            "mean": [mean_us * 0.97, mean_us * 1.03],
            **{
                f"p{p:g}": [float(np.percentile(seen, p)) * (1 - w), float(np.percentile(seen, p)) * (1 + w)]
                for p, w in ((50, 0.01), (90, 0.02), (95, 0.03), (99, 0.06), (99.9, 0.2))
            },
        },
        "errors": {name: {"count": count, "example": text} for name, (count, text) in (errors or {}).items()},
        "generator": {"cpu_share": 0.31, "engines": 1, "in_flight": 12.9, "in_flight_in_server": 10.8},
        "counted": {"client": len(seen), "client_failed": failed, "server": len(seen)},
        "server": {
            "requests": len(seen),
            "failures": 0,
            "inferences": len(seen),
            "executions": executions,
            "cache_hits": 0,
            "total_us": mean_us * 0.848,
            "queue_us": mean_us * shares["queue"],
            "compute_us": mean_us * 0.498,
            "compute_input_us": mean_us * shares["compute_input"],
            "compute_infer_us": mean_us * shares["compute_infer"],
            "compute_output_us": mean_us * shares["compute_output"],
            "in_flight": 10.8,
            "mean_batch": len(seen) / executions,
            "batches": {
                str(size): int(executions * share)
                for size, share in (
                    (1, 0.08),
                    (2, 0.1),
                    (3, 0.12),
                    (4, 0.17),
                    (5, 0.15),
                    (6, 0.13),
                    (7, 0.09),
                    (8, 0.16),
                )
            },
        },
        "breakdown_us": {step: mean_us * share for step, share in shares.items()},
        "steps": [],
        "between_steps": None,
        "resources": {
            "local": True,
            "cpu_cores": 1.61,
            "cpu_us_per_request": 401.0,
            "rss_bytes": 413_000_000,
            "num_threads": 34,
            "gpus": [gpu_use()] if gpu else [],
        },
        "curve": curve(seen),
        "service_curve": curve(own) if open_loop else [],
        "bins": bins(seen),
        "points": points,
        "histogram": "",
    }


def gpu_use() -> dict[str, Any]:
    """A GPU that was busy four fifths of the time and does not tell its memory clock."""
    means = {
        "busy_share": 0.82,
        "memory_busy_share": 0.4,
        "memory_bytes": 9_800_000_000.0,
        "power_w": 310.0,
        "sm_mhz": 1980.0,
        "memory_mhz": None,
        "temperature_c": 51.0,
        "pcie_rx_bytes_per_s": 2.1e9,
        "pcie_tx_bytes_per_s": 0.2e9,
    }
    figures = {
        name: None
        if mean is None
        else {"mean": mean, "min": mean * 0.9, "p50": mean, "p95": mean * 1.02, "max": mean * 1.05}
        for name, mean in means.items()
    }
    return {
        "index": 0,
        "name": "H200",
        "uuid": "GPU-a",
        "busy_share": 0.82,
        "memory_bytes": 9_800_000_000,
        "memory_total_bytes": 150_000_000_000,
        "own_memory_bytes": 9_100_000_000,
        "power_w": 310.0,
        "power_limit_w": 700.0,
        "idle_power_w": 75.0,
        "energy_j": 6200.0,
        "energy_source": "counter",
        "pcie_share": 0.033,
        "slowed_by": {"power cap": 0.1},
        "sm_clock_ratio": 0.99,
        "num_foreign": 0,
        "lost": False,
        "figures": figures,
        "missing": {"memory_mhz": "Not Supported"},
    }


def nothing() -> dict[str, Any]:
    """The results of a run in which nothing was answered."""
    found = results(seconds=1)
    empty = times([])
    for name in (
        "sent",
        "requests",
        "completed",
        "responses",
        "throughput_per_s",
        "inferences_per_s",
        "responses_per_s",
    ):
        found[name] = 0
    return found | {
        "goodput_per_s": None,
        "goodput_share": None,
        "error_share": None,
        "latency_us": empty,
        "service_us": empty,
        "lag_us": empty,
        "intervals": {},
        "server": None,
        "breakdown_us": None,
        "resources": None,
        "counted": None,
        "generator": {"cpu_share": 0.0, "engines": 1, "in_flight": None, "in_flight_in_server": None},
        "curve": [],
        "service_curve": [],
        "bins": [],
        "points": [],
    }


def traffic(model: str = "digits", **changed: Any) -> dict[str, Any]:
    return {
        "model": model,
        "version": None,
        "weight": 1.0,
        "batch": 1,
        "data": {"kind": "golden", "text": "golden samples of the model's version"},
        "check": True,
        "shared_memory": False,
        "stream": False,
        "sequence": None,
        "timeout_s": 10.0,
    } | changed


def target(model: str = "digits") -> dict[str, Any]:
    return {
        "model": model,
        "version": None,
        "served_versions": ["3"],
        "backend": "onnxruntime",
        "server_version": "2.51.0",
        "max_batch_size": 8,
        "instances": ["1 × CPU"],
        "decoupled": False,
        "stateful": False,
    }


def content(**changed: Any) -> dict[str, Any]:
    """A run of one model at a rate, with objectives met, missed and met without proof."""
    measured = changed.pop("results", None) or results()
    open_loop = measured["users"] is None
    load = (
        {"kind": "rate", "text": "4,000 requests/s (Poisson)"} if open_loop else {"kind": "users", "text": "16 users"}
    )
    p99, low, high = measured["latency_us"]["p99"], *(measured["intervals"].get("p99") or (None, None))
    return {
        "schema_version": 2,
        "kind": "run",
        "naiad_version": "0.1.0",
        "created": "2026-11-22T10:00:00+00:00",
        "name": "",
        "verdict": "failed",
        "failures": ["objective missed: p99.9<100ms (171.43 ms measured)"],
        "warnings": [
            "the CPU's clock is not fixed (governor powersave): figures of two runs may differ by some per cent"
        ],
        "interrupted": False,
        "doubts": [
            {"kind": "governor", "text": "the CPU's clock is not fixed (governor powersave)", "invalid": False},
        ],
        "test": {
            "url": "grpc://127.0.0.1:8001",
            "load": {
                "users": None,
                "spawn_rate": None,
                "per_s": None,
                "arrivals": None,
                "trace": None,
                "speed": None,
                "max_in_flight": None,
            }
            | load,
            "traffic": [traffic()],
            "warmup_s": None,
            "max_warmup_s": 30.0,
            "duration_s": 20.0,
            "max_duration_s": 300.0,
            "precision": {"percentile": 99.0, "within": 0.05},
            "engines": 1,
            "connections": 1,
            "transport": "http2",
            "realtime": False,
            "seed": 0,
            "price_per_hour": 4.1,
        },
        "targets": [target()],
        "machine": {"cores": 2, "cpu": "AMD EPYC 9B14", "system": "Linux x86_64"},
        "results": measured,
        "parts": [],
        "steadiness": {"steady": True, "warmup_s": 4.0, "detected": True, "reason": "steady since 3.5 s"},
        "precision": {
            "percentile": 99.0,
            "within": 0.05,
            "reached_within": 0.06,
            "reached": False,
            "looks": 3,
            "text": "known within ± 6.0 % after 20 s, ± 5.0 % were wanted",
        },
        "calibration": {
            "floor_p50_us": 61.0,
            "floor_p99_us": 97.0,
            "ceiling_per_s": 41000.0,
            "cpu_us_per_request": 22.4,
            "request_bytes": 310,
            "answer_bytes": 96,
            "text": "",
        },
        "slos": [
            _slo("p50<5ms", "p50", 5000.0, measured["latency_us"]["p50"], measured["intervals"].get("p50"), True, True),
            _slo("p99<20ms", "p99", (p99 or 0) * 1.02, p99, [low, high] if low else None, True, False),
            _slo("p99.9<100ms", "p99.9", 100_000.0, measured["latency_us"]["p99.9"], None, False, False),
            _slo("errors<0.1%", "errors", 0.001, measured["error_share"], None, True, True),
        ],
        "comparisons": None,
        "cost": {
            "price_per_hour": 4.1,
            "per_million_requests": 0.285,
            "per_million_good_requests": 0.291,
            "requests_per_s_per_core": 2484.0,
            "requests_per_s_per_core_used": 2501.0,
            "requests_per_s_per_gpu": None,
            "requests_per_second_per_watt": None,
            "joules_per_request": None,
            "joules_per_request_above_idle": None,
        },
        "limit": None,
        "sweep": None,
        "reproduce": {
            "command": "naiad loadtest digits --rate 4000 --slo 'p50<5ms' --slo 'p99<20ms' --html report.html",
            "scenario": None,
        },
    } | changed


def _slo(
    text: str, metric: str, limit: float, measured: float | None, interval: Any, met: bool, proven: bool
) -> dict[str, Any]:
    return {
        "slo": text,
        "metric": metric,
        "limit": limit,
        "measured": measured,
        "interval": interval,
        "met": met and measured is not None,
        "proven": proven,
        "note": "" if proven or interval is None else "the limit lies within the uncertainty of this run",
        "text": text,
    }


def evil() -> dict[str, Any]:
    """Everything that comes from outside tries to become markup."""
    found = content(
        name=EVIL,
        failures=[EVIL],
        warnings=[EVIL],
        results=results(errors={EVIL: (12, EVIL)}),
        reproduce={"command": EVIL, "scenario": EVIL},
    )
    found["test"] |= {"url": EVIL, "traffic": [traffic(EVIL)]}
    found["targets"] = [target() | {"backend": EVIL, "server_version": EVIL}]
    found["machine"] |= {"cpu": EVIL}
    found["slos"][0] |= {"slo": EVIL, "note": EVIL}
    found["doubts"][0] |= {"text": EVIL, "kind": EVIL}
    return found


def empty() -> dict[str, Any]:
    """A run in which nothing succeeded."""
    return content(
        results=nothing(),
        failures=["no request succeeded: the server ended after 0.4 s: see its log"],
        warnings=[],
        slos=[],
        doubts=[],
        steadiness=None,
        precision=None,
        calibration=None,
        cost=None,
        reproduce={"command": None, "scenario": None},
    )


def mix() -> dict[str, Any]:
    """Two models, users, a few failed requests, a GPU, no objectives."""
    names = ("digits", "sentiment")
    parts = [
        {"model": name, "version": None, "weight": weight}
        | results(seed=seed, rate=rate, p50_us=p50, open_loop=False, errors={"Timeout": (7, "no answer within 10 s")})
        for seed, (name, weight, rate, p50) in enumerate(zip(names, (3.0, 1.0), (2400, 800), (1800, 9200), strict=True))
    ]
    whole = results(
        seed=9, rate=3200, p50_us=3000, open_loop=False, gpu=True, errors={"Timeout": (14, "no answer within 10 s")}
    )
    found = content(results=whole, parts=parts, verdict="passed", failures=[], warnings=[], slos=[])
    found["cost"] |= {
        "requests_per_s_per_gpu": 3200.0,
        "requests_per_second_per_watt": 10.3,
        "joules_per_request": 0.0969,
        "joules_per_request_above_idle": 0.0734,
    }
    found["limit"] = {
        "kind": "unknown",
        "text": "nothing that is seen from here was near its end (GPU busy 82%, PCIe 3%)",
        "gpu_busy_share": 0.82,
        "memory_busy_share": 0.4,
        "pcie_share": 0.033,
        "generator_cpu_share": 0.31,
        "server_cpu_share": None,
    }
    found["test"] |= {"traffic": [traffic(name, weight=weight) for name, weight in zip(names, (3.0, 1.0), strict=True)]}
    found["targets"] = [target(name) for name in names]
    return found


def step(model: str, **changed: Any) -> dict[str, Any]:
    """A step that takes 3 ms, two of them in the queue."""
    return {
        "model": model,
        "version": None,
        "kind": "model",
        "depth": 1,
        "called_by": ["pipeline"],
        "calls_per_request": 1.0,
        "requests": 23_000,
        "failures": 0,
        "executions": 9_000,
        "mean_batch": 2.6,
        "time_us": 3000.0,
        "queue_us": 2000.0,
        "compute_input_us": 50.0,
        "compute_infer_us": 850.0,
        "compute_output_us": 80.0,
        "share": 0.3,
        "others": 0,
        **changed,
    }


def pipeline() -> dict[str, Any]:
    """An ensemble with a script in it, whose own steps are shared with others or not known."""
    unknown = ("requests", "failures", "executions", "mean_batch", "time_us", "share", "calls_per_request")
    times = ("queue_us", "compute_input_us", "compute_infer_us", "compute_output_us")
    steps = [
        step("decode", version="3"),
        step("find", kind="script", time_us=6000.0, share=0.6, compute_infer_us=3870.0),
        step("encoder", depth=2, called_by=["find"], calls_per_request=2.25, others=1234, share=0.4),
        step(EVIL, depth=2, called_by=["find"], kind="unknown", **dict.fromkeys((*unknown, *times))),
    ]
    between = {"kind": "ensemble", "whole_us": 1e4, "own_queue_us": 2.0, "time_us": 998.0, "share": 0.0998}
    return content(results=results() | {"steps": steps, "between_steps": {**between, "unknown": None}})


def sweep() -> dict[str, Any]:
    """Seven runs at rising rates; the last one was limited by the generator."""
    points = []
    for index, rate in enumerate((500, 1000, 2000, 3000, 4000, 5000, 5600)):
        used = rate / 5200
        p50 = 1400 / max(1 - used * 0.7, 0.2)
        p99 = 2600 / max(1 - used, 0.04)
        achieved = min(rate, 5150.0)
        points.append(
            {
                "value": float(rate),
                "offered_per_s": float(rate),
                "throughput_per_s": achieved,
                "goodput_per_s": achieved if p99 < 20_000 else achieved * 0.6,
                "inferences_per_s": achieved,
                "mean_us": p50 * 1.1,
                "p50_us": p50,
                "p50_interval_us": [p50 * 0.98, p50 * 1.02],
                "p99_us": p99,
                "p99_interval_us": [p99 * 0.93, p99 * 1.09],
                "error_share": 0.0,
                "queue_us": p50 * 0.4,
                "compute_us": p50 * 0.4,
                "mean_batch": 3.0,
                "requests": int(achieved * 20),
                "valid": index < 6,
                "generator_limited": index == 6,
                "doubts": [] if index < 6 else ["an engine process used 93 % of a core (more than 70 %)"],
                "met": p99 < 20_000,
                "gpu_share": None,
                "requests_per_second_per_watt": None,
                "text": f"{achieved:,.0f}/s",
                "full": True,
            }
        )
    found = content(verdict="passed", failures=[], slos=[])
    return found | {
        "kind": "sweep",
        "sweep": {
            "variable": "rate",
            "kind": "find-max",
            "points": points,
            "knee": {
                "value": 3000.0,
                "low": 2000.0,
                "high": 4000.0,
                "throughput_per_s": 3000.0,
                "p99_us": 6150.0,
                "text": "knee at 3000 (between 2000 and 4000): 3,000 requests/s, p99 6.15 ms",
            },
            "maximum": {
                "slo": "p99<20ms",
                "value": 4480.0,
                "low": 4390.0,
                "high": 4560.0,
                "confidence": 0.95,
                "found": True,
                "reason": "",
                "text": "p99<20ms up to 4,390–4,560 requests/s (95 %)",
            },
            "text": "p99<20ms up to 4,390–4,560 requests/s (95 %)",
            "interrupted": False,
        },
    }


def gate(slower: float = 1.2) -> dict[str, Any]:
    """Twelve pairs of runs; the candidate is slower."""
    random = np.random.default_rng(3)
    metrics = []
    for name, effect, base in (
        ("p50", slower, 2800.0),
        ("p99", slower * 0.99, 6100.0),
        ("throughput", 1 / slower, 4000.0),
    ):
        befores = base * random.lognormal(0, 0.06, 12)
        found = effect * random.lognormal(0, 0.03, 12)
        ratio = float(np.median(found))
        metrics.append(
            {
                "metric": name,
                "unit": "1/s" if name == "throughput" else "us",
                "judged": True,
                "baseline": float(np.median(befores)),
                "candidate": float(np.median(befores * found)),
                "worse_by": abs(ratio - 1),
                "improved": False,
                "level": 0.99,
                "pairs_needed": 6,
                "margin_needed": 0.02,
                "ratio": ratio,
                "interval": [ratio * 0.975, ratio * 1.025],
                "p": 0.0005,
                "p_adjusted": 0.0015,
                "margin": 0.05,
                "smallest_effect": 0.031,
                "verdict": "regression",
                "text": f"{name} got {abs(ratio - 1):.0%} worse",
                "pairs": [
                    {"pair": index + 1, "baseline": float(before), "candidate": float(before * by), "ratio": float(by)}
                    for index, (before, by) in enumerate(zip(befores, found, strict=True))
                ],
            }
        )
    return {
        "schema_version": 2,
        "kind": "gate",
        "naiad_version": "0.1.0",
        "created": "2026-11-22T10:00:00+00:00",
        "verdict": "regression",
        "exit_code": 1,
        "reason": "p50, p99 and throughput got worse by more than the margin",
        "text": "regression: p50, p99 and throughput got worse by more than the margin",
        "baseline": {"name": "digits:2"},
        "candidate": {"name": "digits:3"},
        "num_pairs": 12,
        "discarded": [{"pair": 4, "reason": "12 % of the CPU time was stolen"}],
        "metrics": metrics,
        "pairs": [],
        "slos": [{"slo": "p99<20ms", "measured": 7300.0, "met": True}],
        "options": {
            "alpha": 0.05,
            "margin": 0.05,
            "pairs": 10,
            "max_pairs": 30,
            "pairs_per_look": 4,
            "spending": "pocock",
            "window_s": 5.0,
            "settle_s": 0.5,
            "seed": 4,
            "noise_rule": None,
        },
        "warnings": [],
        "interrupted": False,
        "failed": False,
        "elapsed_s": 143.0,
        "machine": {"cores": 2, "cpu": "AMD EPYC 9B14", "system": "Linux x86_64"},
    }
