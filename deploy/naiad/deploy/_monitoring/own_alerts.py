"""Alerts about the monitoring itself: an alert that is not told is none."""

from naiad.deploy._monitoring.alert import Alert


def own_alerts() -> tuple[Alert, ...]:
    """All of them."""
    return (
        Alert(
            name="MonitoringDown",
            expression='up{job=~"prometheus|alertmanager|collector"} == 0',
            hold_s=300,
            severity="warning",
            summary="{{ $labels.job }} is down",
            description="{{ $labels.job }} ({{ $labels.instance }}) has not answered Prometheus for five minutes.",
        ),
        Alert(
            name="AlertsNotTold",
            expression="sum by (integration) (increase(alertmanager_notifications_failed_total[10m])) > 0",
            severity="warning",
            summary="Alerts could not be told",
            description="Alertmanager failed {{ $value | humanize }} times in ten minutes to tell somebody "
            "({{ $labels.integration }}).",
        ),
        Alert(
            name="RulesFail",
            expression="sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total[10m])) > 0",
            severity="warning",
            summary="A rule cannot be evaluated",
            description="Rules of {{ $labels.rule_group }} failed {{ $value | humanize }} times in ten minutes: their "
            "alerts do not fire.",
        ),
    )
