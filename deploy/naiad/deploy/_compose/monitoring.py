"""What watches the service: Prometheus, Alertmanager, Grafana, and the collector of traces."""

from typing import Final

from naiad.deploy._compose import images
from naiad.deploy._compose.container import USER, container, health, mount, scratch, secret_file, volume
from naiad.deploy._compose.document import Fields

PASSWORD: Final = "grafana-admin-password"  # noqa: S105 - the name of the file that holds it
WEBHOOK: Final = "alert-webhook"
TRACES: Final = "traces"
_NOBODY: Final = "65534:65534"
"""Whom Prometheus's images have made the owner of their data directory."""
_COLLECTOR_USER: Final = "10001:10001"
_FILES: Final = "./deploy/monitoring"


def traces_volume() -> Fields:
    """The newest traces, in memory: a volume on disk would belong to root, which nothing here runs as."""
    uid = _COLLECTOR_USER.partition(":")[0]
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size=192m,uid={uid},mode=0755,nosuid,nodev,noexec"}
    return {"driver": "local", "driver_opts": options}


def monitoring() -> dict[str, Fields]:
    """The containers, by name."""
    return {
        "prometheus": _prometheus(),
        "alertmanager": _alertmanager(),
        "grafana": _grafana(),
        "collector": _collector(),
    }


def _prometheus() -> Fields:
    return container(
        images.PROMETHEUS,
        user=_NOBODY,
        memory="2g",
        num_processes=256,
        stop_s=60,
        command=[
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=30d",
            "--storage.tsdb.retention.size=8GB",
            "--enable-feature=auto-reload-config",
        ],
        networks=["inference", "monitoring"],
        volumes=[mount(_FILES, "/etc/prometheus"), volume("prometheus", "/prometheus")],
        healthcheck=_answers("http://127.0.0.1:9090/-/ready", start_s=60),
    )


def _alertmanager() -> Fields:
    return container(
        images.ALERTMANAGER,
        user=USER,
        memory="256m",
        num_processes=128,
        stop_s=10,
        command=[
            "--config.file=/etc/alertmanager/alertmanager.yml",
            "--storage.path=/alertmanager",
            "--cluster.listen-address=",
        ],
        networks=["monitoring", "alerts"],
        secrets=[WEBHOOK],
        volumes=[mount(_FILES, "/etc/alertmanager")],
        # Silences end with the container; a volume would belong to the image's user, who cannot read the secret.
        tmpfs=[scratch("/alertmanager", size="64m")],
        healthcheck=_answers("http://127.0.0.1:9093/-/ready", start_s=30),
    )


def _grafana() -> Fields:
    return container(
        images.GRAFANA,
        user=USER,
        memory="512m",
        num_processes=256,
        stop_s=15,
        environment=_GRAFANA,
        networks=["monitoring", "dashboards"],
        ports=["127.0.0.1:${NAIAD_GRAFANA_PORT:-3000}:3000"],
        secrets=[PASSWORD],
        volumes=[
            mount(f"{_FILES}/grafana/provisioning", "/etc/grafana/provisioning"),
            mount(f"{_FILES}/grafana/dashboards", "/etc/grafana/dashboards"),
        ],
        # All that counts is in the files above; a database of its own would keep an old password.
        tmpfs=[scratch("/var/lib/grafana", size="256m"), scratch("/tmp", size="64m")],  # noqa: S108
        healthcheck=_answers("http://127.0.0.1:3000/api/health", start_s=60),
    )


_GRAFANA: Final = {
    "GF_SECURITY_ADMIN_PASSWORD__FILE": secret_file(PASSWORD),
    "GF_SECURITY_COOKIE_SAMESITE": "strict",
    "GF_SECURITY_DISABLE_GRAVATAR": "true",
    "GF_AUTH_ANONYMOUS_ENABLED": "false",
    "GF_USERS_ALLOW_SIGN_UP": "false",
    "GF_SNAPSHOTS_EXTERNAL_ENABLED": "false",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_NEWS_NEWS_FEED_ENABLED": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    "GF_PLUGINS_PLUGIN_ADMIN_ENABLED": "false",
}


def _collector() -> Fields:
    """No health check: the image has one program, which cannot ask another. Prometheus watches it."""
    return container(
        images.COLLECTOR,
        user=_COLLECTOR_USER,
        memory="512m",
        num_processes=128,
        stop_s=15,
        command=["--config=/etc/otelcol/collector.yml"],
        networks=["inference", "monitoring"],
        volumes=[mount(_FILES, "/etc/otelcol"), volume(TRACES, "/traces")],
    )


def _answers(url: str, *, start_s: int) -> Fields:
    return health(["wget", "-q", "-O", "/dev/null", url], start_s=start_s)
