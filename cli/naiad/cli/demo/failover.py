"""Replicas behind the gateway, and one of them killed while callers go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.service import serve_behind_gateway
from naiad.cli.demo.traffic import Traffic

if TYPE_CHECKING:
    from naiad.cli.demo.service import RunningService
    from naiad.cli.demo.stage import Stage
    from naiad.export import Version

__all__ = ["fail_over"]

_PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.05
_STEADY: Final = 500
_LEAST_SHARE: Final = 0.25
_AGAIN: Final = 50
"""Requests that a replica must have answered since it was started again; its supervisor's own are among them."""


def fail_over(stage: Stage, version: Version, inputs: Mapping[str, Any]) -> None:
    """Call two replicas through the gateway without a pause, kill one with SIGKILL, and note what the callers met.

    The callers send no request twice, so what does not fail was saved by the gateway.
    """
    from naiad.client import Retry

    with (
        serve_behind_gateway(stage, version.model) as service,
        service.client(retry=Retry(attempts=1)) as client,
        Traffic(client, version.model, inputs) as traffic,
    ):
        with stage.step("spread the requests over both replicas") as done:
            traffic.wait_for(version.number, _STEADY)
            shares = _requests(service)
            done(_shared(shares))
        _note_shares(stage, shares)
        victim = next(iter(shares))
        with stage.step(f"kill -9 {victim}, under load") as done:
            _kill(stage, service, traffic, victim, version)
            done("it is back, and answers")
    failed, sent = traffic.errors.total(), traffic.sent
    stage.summary.row(
        "lost by it",
        f"{failed} of {sent:,} requests, by callers that send none twice",
        failover_requests=sent,
        failover_failed=failed,
    )
    if failed:
        reason, _ = traffic.errors.most_common(1)[0]
        stage.summary.failures.append(f"requests failed when a replica was killed: {reason}")


def _kill(stage: Stage, service: RunningService, traffic: Traffic, victim: str, version: Version) -> None:
    answered, killed = traffic.answers.total(), time.monotonic()
    service.kill(victim)
    back = _until(lambda: _serves(service, victim) and _answered(service, victim, version) >= _AGAIN)
    away_s, meanwhile = time.monotonic() - killed, traffic.answers.total() - answered
    stage.summary.row(
        "kill -9 of a replica",
        f"it answered again after {away_s:.1f} s; {meanwhile:,} requests were answered meanwhile",
        failover_away_s=away_s,
        failover_answers_meanwhile=meanwhile,
    )
    stage.summary.check(back, f"the killed replica answered no requests again within {_PATIENCE_S:.0f} s")
    stage.summary.check(meanwhile > 0, "nobody answered while a replica was away")


def _note_shares(stage: Stage, shares: Mapping[str, int]) -> None:
    total, least = sum(shares.values()), min(shares.values())
    stage.summary.row("two replicas behind the gateway", _shared(shares), gateway_requests=dict(shares))
    stage.summary.check(
        0 < _LEAST_SHARE * total <= least,
        f"expected at least {_LEAST_SHARE:.0%} of the requests at each replica, found {dict(shares)}",
    )


def _serves(service: RunningService, replica: str) -> bool:
    """Whether a replica was started again, and the gateway has taken it in."""
    from naiad.deploy import GatewayError

    try:
        found = next(each for each in service.stack.gateway.status().replicas if each.name == replica)
    except GatewayError:
        return False
    return bool(service.replicas[replica].restarts) and found.admitted and found.healthy


def _requests(service: RunningService) -> dict[str, int]:
    """Return how many requests the gateway gave each replica."""
    return {replica.name: replica.num_requests for replica in service.stack.gateway.status().replicas}


def _answered(service: RunningService, replica: str, version: Version) -> int:
    """Return how many requests a replica has answered since its start, by its own count; 0 while it is down."""
    from naiad.client import ClientError

    try:
        with service.replicas[replica].client(timeout=1.0) as client:
            return sum(each.success.count for each in client.statistics(version.model, version.number))
    except ClientError:
        return 0


def _shared(shares: Mapping[str, int]) -> str:
    total = max(sum(shares.values()), 1)
    return ", ".join(f"{name} {count / total:.0%}" for name, count in shares.items()) + f" of {total:,} requests"


def _until(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
