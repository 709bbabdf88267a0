"""What the metrics are like when each alert should fire, and when it should not, for `promtool test rules`.

Values are promtool's notation: `0+10x40` counts up by ten forty times, `1x4 0x20` is one and then zero.
A sample is taken every `step`; the alert is looked at in the end.
"""

from dataclasses import dataclass, field
from typing import Any

from naiad.deploy import Service
from naiad.deploy.service import Canary, Objective, Pool, Shadow

SERVICE = Service(
    client_certificates="required",
    pools=(Pool(name="main", num_replicas=2), Pool(name="next"), Pool(name="trial")),
    canary=Canary(pool="next", weight_percent=5),
    shadow=Shadow(pool="trial"),
    objectives=(Objective(model="digits", p99_ms=50, error_percent=0.1),),
)
"""Has whatever an alert is about."""

Series = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Metrics with which an alert fires, and some alike with which it does not."""

    fires: Series
    quiet: Series
    labels: dict[str, str] = field(default_factory=dict)
    """Those of the alert that fires, without its name and its state."""
    step: str = "15s"
    at: str = "15m"

    def test(self, alert: str, *, fires: bool) -> dict[str, Any]:
        """One file for `promtool test rules`, without the names of the rules' files."""
        firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
        labels = {"alertname": alert, "alertstate": "firing", **self.labels}
        chosen = ",".join(f'{name}="{value}"' for name, value in labels.items())
        expected = [{"labels": f"ALERTS{{{chosen}}}", "value": 1}] if fires else []
        window = f',window="{self.labels["window"]}"' if "window" in self.labels else ""
        severity = f',severity="{self.labels["severity"]}"'
        query = firing.replace("}", f"{window}{severity}}}")
        series = self.fires if fires else self.quiet
        return {
            "evaluation_interval": self.step,
            "tests": [
                {
                    "interval": self.step,
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [{"expr": query, "eval_time": self.at, "exp_samples": expected}],
                }
            ],
        }


HERE = {"model": "digits", "version": "1", "pool": "main", "replica": "main-0"}
_HERE = ",".join(f'{name}="{value}"' for name, value in HERE.items())
_TRITON = 'up{job="triton",instance="main-0:8002",pool="main",replica="main-0"}'
_REPLICA = {"job": "triton", "instance": "main-0:8002", "pool": "main", "replica": "main-0"}
_GPU = '{gpu_uuid="GPU-1",replica="main-0"}'
_OK = 'envoy_naiad_requests{model="digits",right="infer",code="200",grpc_code="0"}'
_BAD = 'envoy_naiad_requests{model="digits",right="infer",code="200",grpc_code="14"}'
_BAD_HTTP = 'envoy_naiad_requests{model="digits",right="infer",code="503",grpc_code=""}'
_WRONG = 'envoy_naiad_requests{model="digits",right="infer",code="200",grpc_code="3"}'


def _members(pool: str, healthy: str, total: str = "2x60") -> Series:
    name = f'{{envoy_cluster_name="{pool}-grpc"}}'
    return {f"envoy_cluster_membership_healthy{name}": healthy, f"envoy_cluster_membership_total{name}": total}


def _buckets(fast: str, slow: str) -> Series:
    """Inferences of which so many took up to 50 ms, and so many up to 100 ms."""
    head = 'envoy_naiad_request_duration_us_bucket{model="digits",right="infer",le='
    return {f'{head}"50000"}}': fast, f'{head}"100000"}}': slow, f'{head}"+Inf"}}': slow, _OK: slow}


def _warning(**labels: str) -> dict[str, str]:
    return {"severity": "warning", **labels}


def _critical(**labels: str) -> dict[str, str]:
    return {"severity": "critical", **labels}


_OBJECTIVES = {
    "ErrorRate": Scenario(
        fires={_OK.replace("digits", "other"): "0+90x60", _BAD.replace("digits", "other"): "0+10x60"},
        quiet={_OK.replace("digits", "other"): "0+90x60", _WRONG.replace("digits", "other"): "0+10x60"},
        labels=_warning(model="other"),
    ),
    "ErrorBudgetBurns 1h": Scenario(
        fires={_OK: "0+980x60", _BAD_HTTP: "0+20x60"},
        quiet={_OK: "0+990x60", _BAD_HTTP: "0+10x60"},
        labels=_critical(model="digits", window="1h"),
        step="1m",
        at="1h",
    ),
    "ErrorBudgetBurns 6h": Scenario(
        fires={_OK: "0+990x40", _BAD: "0+10x40"},
        quiet={_OK: "0+996x40", _BAD: "0+4x40"},
        labels=_critical(model="digits", window="6h"),
        step="10m",
        at="6h",
    ),
    "ErrorBudgetBurns 3d": Scenario(
        fires={_OK: "0+998x150", _BAD: "0+2x150"},
        quiet={_OK: "0+9995x150", _BAD: "0+5x150"},
        labels=_warning(model="digits", window="3d"),
        step="30m",
        at="3d",
    ),
    "LatencyHigh 1h": Scenario(
        fires=_buckets("0+80x60", "0+100x60"),
        quiet=_buckets("0+90x60", "0+100x60"),
        labels=_critical(model="digits", window="1h"),
        step="1m",
        at="1h",
    ),
    "LatencyHigh 6h": Scenario(
        fires=_buckets("0+90x40", "0+100x40"),
        quiet=_buckets("0+95x40", "0+100x40"),
        labels=_critical(model="digits", window="6h"),
        step="10m",
        at="6h",
    ),
    "LatencyHigh 3d": Scenario(
        fires=_buckets("0+980x150", "0+1000x150"),
        quiet=_buckets("0+995x150", "0+1000x150"),
        labels=_warning(model="digits", window="3d"),
        step="30m",
        at="3d",
    ),
}
_REPLICAS = {
    "ReplicaDown": Scenario(fires={_TRITON: "1x8 0x60"}, quiet={_TRITON: "1x50 0x4 1x10"}, labels=_warning(**_REPLICA)),
    "NoReplicas": Scenario(
        fires=_members("main", "2x8 0x60"),
        quiet={**_members("main", "1x60"), **_members("trial", "0x60")},
        labels=_critical(pool="main"),
    ),
    "ReplicaNotReady": Scenario(
        fires=_members("main", "1x60"), quiet=_members("main", "2x45 1x15"), labels=_warning(pool="main")
    ),
    "ReplicaUnstable": Scenario(
        fires={_TRITON: "1x2 0x2 1x2 0x2 1x2 0x2 1x60"},
        quiet={_TRITON: "1x20 0x2 1x60"},
        labels=_warning(**_REPLICA),
    ),
    "StubDead": Scenario(
        fires={f'nv_inference_request_failure{{reason="BACKEND",{_HERE}}}': "0x20 1+1x60"},
        quiet={f'nv_inference_request_failure{{reason="BACKEND",{_HERE}}}': "0x50 5x30"},
        labels=_critical(**HERE),
    ),
    "BackendFails": Scenario(
        fires={f'nv_inference_request_failure{{reason="BACKEND",{_HERE}}}': "0x56 5x30"},
        quiet={
            f'nv_inference_request_failure{{reason="BACKEND",{_HERE}}}': "7x60",
            f'nv_inference_request_failure{{reason="REJECTED",{_HERE}}}': "0+1x60",
        },
        labels=_warning(**HERE),
    ),
    "Stuck": Scenario(
        fires={
            f"nv_inference_pending_request_count{{{_HERE}}}": "0x8 4x60",
            f"nv_inference_exec_count{{{_HERE}}}": "0+9x10 90x60",
        },
        quiet={
            f"nv_inference_pending_request_count{{{_HERE}}}": "0x8 4x60",
            f"nv_inference_exec_count{{{_HERE}}}": "0+1x60",
        },
        labels=_critical(**HERE),
    ),
    "QueueLong": Scenario(
        fires={
            f"nv_inference_pending_request_count{{{_HERE}}}": "0x8 100x60",
            f"nv_inference_request_success{{{_HERE}}}": "0+150x60",
        },
        quiet={
            f"nv_inference_pending_request_count{{{_HERE}}}": "0x8 100x60",
            f"nv_inference_request_success{{{_HERE}}}": "0+15000x60",
        },
        labels=_warning(**HERE),
    ),
    "GpuMemory": Scenario(
        fires={f"nv_gpu_memory_used_bytes{_GPU}": "97x60", f"nv_gpu_memory_total_bytes{_GPU}": "100x60"},
        quiet={f"nv_gpu_memory_used_bytes{_GPU}": "90x60", f"nv_gpu_memory_total_bytes{_GPU}": "100x60"},
        labels=_warning(gpu_uuid="GPU-1", replica="main-0"),
    ),
}
_UP = 'up{job="gateway",instance="gateway:9901"}'
_EXPIRY = 'envoy_listener_ssl_certificate_expiration_unix_time_seconds{envoy_tls_certificate="server"}'
_IDENTITIES = "envoy_naiad_identity_requests"
_ASKED = 'envoy_cluster_upstream_rq_total{envoy_cluster_name="main-grpc"}'
_CANARY = 'envoy_cluster_upstream_rq_total{envoy_cluster_name="next-grpc"}'
_GATEWAY = {
    "GatewayDown": Scenario(
        fires={_UP: "1x40 0x20"},
        quiet={_UP: "1x40 0x2 1x20"},
        labels=_critical(job="gateway", instance="gateway:9901"),
    ),
    "GatewayRestarts": Scenario(
        fires={'envoy_server_uptime{job="gateway"}': "0+15x10 0+15x10 0+15x10 0+15x60"},
        quiet={'envoy_server_uptime{job="gateway"}': "0+15x30 0+15x60"},
        labels=_warning(job="gateway"),
    ),
    "ConfigRejected": Scenario(
        fires={'envoy_http_rds_update_rejected{envoy_rds_route_config="routes"}': "0x40 1x60"},
        quiet={"envoy_listener_manager_lds_update_rejected": "3x60"},
        labels=_warning(),
    ),
    "CertificateExpires": Scenario(
        fires={_EXPIRY: f"{20 * 86400}x60"},
        quiet={_EXPIRY: f"{22 * 86400}x60"},
        labels=_warning(certificate="server"),
    ),
    "CertificateExpires critical": Scenario(
        fires={_EXPIRY: f"{2 * 86400}x60"},
        quiet={_EXPIRY: f"{4 * 86400}x60"},
        labels=_critical(certificate="server"),
    ),
    "AuthenticationFailures": Scenario(
        fires={
            f'{_IDENTITIES}{{identity="",code="200",grpc_code="16"}}': "0+10x60",
            f'{_IDENTITIES}{{identity="",code="401",grpc_code=""}}': "0+10x60",
        },
        quiet={
            f'{_IDENTITIES}{{identity="",code="200",grpc_code="16"}}': "0+10x60",
            f'{_IDENTITIES}{{identity="vision",code="200",grpc_code="0"}}': "0+1000x60",
        },
        labels=_warning(),
    ),
    "CallsDenied": Scenario(
        fires={f'{_IDENTITIES}{{identity="vision",code="200",grpc_code="7"}}': "0+20x60"},
        quiet={f'{_IDENTITIES}{{identity="vision",code="200",grpc_code="7"}}': "0+10x60"},
        labels=_warning(identity="vision"),
    ),
    "RateLimited": Scenario(
        fires={
            f'{_IDENTITIES}{{identity="vision",code="200",grpc_code="0"}}': "0+80x80",
            f'{_IDENTITIES}{{identity="vision",code="200",grpc_code="8"}}': "0+10x80",
            f'{_IDENTITIES}{{identity="vision",code="429",grpc_code=""}}': "0+10x80",
        },
        quiet={
            f'{_IDENTITIES}{{identity="vision",code="200",grpc_code="0"}}': "0+95x80",
            f'{_IDENTITIES}{{identity="vision",code="200",grpc_code="8"}}': "0+5x80",
        },
        labels=_warning(identity="vision"),
        at="20m",
    ),
    "CertificatesRefused": Scenario(
        fires={
            "envoy_listener_ssl_fail_verify_error": "0+10x60",
            "envoy_listener_ssl_fail_verify_no_cert": "0+10x60",
            "envoy_listener_ssl_fail_verify_san": "0x60",
        },
        quiet={
            "envoy_listener_ssl_fail_verify_error": "0+5x60",
            "envoy_listener_ssl_fail_verify_no_cert": "0+5x60",
            "envoy_listener_ssl_fail_verify_san": "0x60",
        },
        labels=_warning(),
    ),
    "RetriesHigh": Scenario(
        fires={_ASKED: "0+100x60", _ASKED.replace("total", "retry"): "0+10x60"},
        quiet={_ASKED: "0+100x60", _ASKED.replace("total", "retry"): "0+4x60"},
        labels=_warning(envoy_cluster_name="main-grpc"),
    ),
    "GatewayOverload": Scenario(
        fires={
            _ASKED.replace("total", "pending_overflow"): "0x40 0+5x20",
            _ASKED.replace("total", "active_overflow"): "0x60",
            _ASKED.replace("total", "retry_overflow"): "0x60",
        },
        quiet={
            _ASKED.replace("total", "pending_overflow"): "5x60",
            _ASKED.replace("total", "active_overflow"): "0x60",
            _ASKED.replace("total", "retry_overflow"): "0x60",
        },
        labels=_critical(envoy_cluster_name="main-grpc"),
    ),
    "FilterErrors": Scenario(
        fires={'envoy_http_lua_errors{envoy_http_conn_manager_prefix="service"}': "0x50 1x20"},
        quiet={'envoy_http_lua_errors{envoy_http_conn_manager_prefix="service"}': "1x60"},
        labels=_warning(),
    ),
    "GatewayMemory": Scenario(
        fires={"envoy_overload_envoy_resource_monitors_fixed_heap_pressure": "90x60"},
        quiet={"envoy_overload_envoy_resource_monitors_fixed_heap_pressure": "80x60"},
        labels=_warning(),
    ),
    "CanaryFails": Scenario(
        fires={
            _OK.replace("infer", 'infer",cluster="main-http'): "0+1000x120",
            _OK.replace("infer", 'infer",cluster="main-grpc'): "0+1000x120",
            _OK.replace("infer", 'infer",cluster="next-or-main-grpc'): "0+45x120",
            _BAD.replace("infer", 'infer",cluster="next-or-main-grpc'): "0+5x120",
        },
        quiet={
            _OK.replace("infer", 'infer",cluster="main-http'): "0+950x120",
            _BAD.replace("infer", 'infer",cluster="main-http'): "0+50x120",
            _OK.replace("infer", 'infer",cluster="next-or-main-grpc'): "0+45x120",
            _BAD.replace("infer", 'infer",cluster="next-or-main-grpc'): "0+5x120",
        },
        labels=_warning(model="digits", pool="next"),
        at="30m",
    ),
    "ConnectionsHigh": Scenario(
        fires={'envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="service"}': "3500x60"},
        quiet={
            'envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="service"}': "3000x60",
            'envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="metrics"}': "3500x60",
        },
        labels=_warning(),
    ),
    "CanaryIdle": Scenario(
        fires={_ASKED: "0+100x80", _CANARY: "0x80"},
        quiet={_ASKED: "0+100x80", _CANARY: "0+5x80"},
        labels=_warning(),
        at="20m",
    ),
}
_OWN = {
    "MonitoringDown": Scenario(
        fires={'up{job="alertmanager",instance="alertmanager:9093"}': "1x8 0x60"},
        quiet={'up{job="alertmanager",instance="alertmanager:9093"}': "1x8 0x8 1x60"},
        labels=_warning(job="alertmanager", instance="alertmanager:9093"),
    ),
    "AlertsNotTold": Scenario(
        fires={'alertmanager_notifications_failed_total{integration="webhook"}': "0x40 2x60"},
        quiet={'alertmanager_notifications_failed_total{integration="webhook"}': "2x60"},
        labels=_warning(integration="webhook"),
    ),
    "RulesFail": Scenario(
        fires={'prometheus_rule_evaluation_failures_total{rule_group="rules/alerts.yml;naiad"}': "0x40 2x60"},
        quiet={'prometheus_rule_evaluation_failures_total{rule_group="rules/alerts.yml;naiad"}': "2x60"},
        labels=_warning(rule_group="rules/alerts.yml;naiad"),
    ),
}
SCENARIOS = {**_OBJECTIVES, **_REPLICAS, **_GATEWAY, **_OWN}
"""By the alert's name, and what tells several of one name apart: the window, or the severity."""
