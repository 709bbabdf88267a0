"""Alerts that hold the service to its objectives: fast when the budget burns fast, late when it burns slowly.

An objective leaves a budget: `error_percent` of the requests may fail, 1 % may take longer than `p99_ms`. A burn rate
of 1 uses it up exactly. Pairs of a long window (is it worth waking somebody?) and a short one (is it still so?) are the
method of the Site Reliability Workbook, chapter 5; 14.4 over an hour is 2 % of a month's budget, 6 over six hours 5 %,
and 1 over three days 10 %.
"""

from dataclasses import dataclass

from naiad.deploy._monitoring.alert import Alert, Severity
from naiad.deploy._monitoring.names import faults, quantile, requests
from naiad.deploy._monitoring.text import number
from naiad.deploy.service import Objective, Service

ERROR_RATIO = 0.05
"""What is too much for a model without an objective."""
NUM_FAULTS = 10
"""Failures in the long window below which a ratio says nothing: with three requests an hour one failure is 33 %."""
_SLOW_RATIO = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Burn:
    """How fast a budget burns, over which windows, and how urgent that is."""

    rate: float
    long: str
    short: str
    hold_s: float
    severity: Severity


BURNS = (
    Burn(rate=14.4, long="1h", short="5m", hold_s=120, severity="critical"),
    Burn(rate=6, long="6h", short="30m", hold_s=900, severity="critical"),
    Burn(rate=1, long="3d", short="6h", hold_s=3600, severity="warning"),
)


def objective_alerts(service: Service) -> tuple[Alert, ...]:
    """The alerts of every objective, and one for the models without."""
    alerts = [_errors_without_objective(service)]
    for objective in service.objectives:
        alerts += [_errors(objective, burn) for burn in BURNS if burn.rate * objective.error_percent < 100]
        alerts += [_slow(objective, burn) for burn in BURNS if objective.p99_ms is not None]
    return tuple(alerts)


def _errors(objective: Objective, burn: Burn) -> Alert:
    only = f'model="{objective.model}"'
    limit = number(burn.rate * objective.error_percent / 100)
    ratios = [f"model:naiad_error_ratio:rate{window}{{{only}}} > {limit}" for window in (burn.long, burn.short)]
    enough = f"{faults(burn.long, only, function='increase')} > {NUM_FAULTS}"
    return Alert(
        name="ErrorBudgetBurns",
        expression=" and ".join((*ratios, enough)),
        hold_s=burn.hold_s,
        severity=burn.severity,
        labels={"window": burn.long},
        summary=f"{{{{ $labels.model }}}} fails more often than the promised {objective.error_percent:g} %",
        description=f"{{{{ $value | humanizePercentage }}}} of the inferences of {{{{ $labels.model }}}} failed in "
        f"{burn.long}: {burn.rate:g} times what the objective of {objective.error_percent:g} % allows, or more.",
    )


def _slow(objective: Objective, burn: Burn) -> Alert:
    """With 1 % of requests allowed to be slow, a burn rate of 14.4 is 14.4 % slow: the percentile 85.6 is too high."""
    only = f'model="{objective.model}"'
    share = 1 - burn.rate * _SLOW_RATIO
    slow = [f"{quantile(share, window, only)} > {number(objective.p99_ms or 0)}" for window in (burn.long, burn.short)]
    enough = f"{requests(burn.long, only, function='increase')} * {number(1 - share)} > {NUM_FAULTS}"
    return Alert(
        name="LatencyHigh",
        expression=" and ".join((*slow, enough)),
        hold_s=burn.hold_s,
        severity=burn.severity,
        labels={"window": burn.long},
        summary=f"{{{{ $labels.model }}}} is slower than the promised {objective.p99_ms:g} ms",
        description=f"More than {burn.rate * _SLOW_RATIO * 100:g} % of the inferences of {{{{ $labels.model }}}} in "
        f"{burn.long} took longer than {objective.p99_ms:g} ms, where 1 % may; the percentile {share * 100:g} is "
        "{{ $value | humanize }} ms.",
    )


def _errors_without_objective(service: Service) -> Alert:
    promised = "|".join(objective.model.replace(".", "\\\\.") for objective in service.objectives)
    others = f'{{model!~"{promised}"}}' if promised else ""
    return Alert(
        name="ErrorRate",
        expression=f"model:naiad_error_ratio:rate5m{others} > {ERROR_RATIO:g} "
        f"and {faults('5m', function='increase')} > {NUM_FAULTS}",
        hold_s=300,
        severity="warning",
        summary="{{ $labels.model }} fails {{ $value | humanizePercentage }} of its inferences",
        description="{{ $value | humanizePercentage }} of the inferences of {{ $labels.model }} failed in five "
        f"minutes; {ERROR_RATIO:.0%} would be much. It has no objective in the service's description.",
    )
