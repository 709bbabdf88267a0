"""Judges how a deployment is reached: TLS, its certificate, and what else is open beside it."""

from collections.abc import Iterator
from typing import Final

from naiad.deploy._audit.finding import GUIDE, Finding, Severity, ok, unknown
from naiad.deploy._audit.survey import OpenPort, Survey, described
from naiad.deploy._audit.tls import TlsFacts

_SOON_DAYS: Final = 30
_NOW_DAYS: Final = 7
_OLD_TLS: Final = "https://www.rfc-editor.org/rfc/rfc8996"
_USE_TLS: Final = "https://www.rfc-editor.org/rfc/rfc9325"


def judge_transport(seen: Survey) -> list[Finding]:
    """All findings about connections."""
    findings = [_tls(seen)]
    if seen.tls is not None:
        findings += _certificate(seen, seen.tls)
    if seen.withheld:
        findings.append(
            Finding(
                id="credential",
                severity=Severity.UNKNOWN,
                where=seen.target.address,
                found=f"the credential was not shown: {seen.withheld}",
            )
        )
    return [*findings, _direct(seen), _metrics(seen), _admin(seen)]


def _tls(seen: Survey) -> Finding:
    where, check = seen.target.address, "tls"
    if seen.tls is not None:
        return ok(check, where, f"{seen.tls.version}")
    return Finding(
        id=check,
        severity=Severity.LOW if seen.target.loopback else Severity.HIGH,
        where=where,
        found="there is no TLS" + (", though the URL says so" if seen.target.secure else ""),
        why="keys, inputs and answers can be read and changed on the way",
        fix="set tls = true in deploy/service.toml (naiad deploy secrets makes a certificate); Triton itself has TLS "
        "for gRPC only, so HTTP needs the gateway",
        source=GUIDE,
    )


def _certificate(seen: Survey, tls: TlsFacts) -> Iterator[Finding]:
    where = seen.target.address
    yield _trust(where, tls)
    yield _expiry(where, tls)
    yield _old(where, tls)
    if tls.static_rsa:
        yield Finding(
            id="tls-ciphers",
            severity=Severity.MEDIUM,
            where=where,
            found="ciphers without forward secrecy are accepted",
            why="whoever gets the key later can read what was recorded before",
            fix="offer ECDHE ciphers only, as Envoy does by default",
            source=_USE_TLS,
        )
    else:
        yield ok("tls-ciphers", where, "every cipher has forward secrecy")
    if tls.weakness:
        yield Finding(
            id="certificate-strength",
            severity=Severity.HIGH,
            where=where,
            found=f"the certificate has {tls.weakness}",
            why="it can be forged",
            fix="make a new one: naiad deploy certificate renew",
            source=_USE_TLS,
        )
    else:
        yield ok("certificate-strength", where, "the certificate's key and signature are strong")


def _trust(where: str, tls: TlsFacts) -> Finding:
    if tls.distrust is None:
        return ok("certificate", where, "the certificate is believed, and names the host")
    kind = "vouches for itself" if tls.self_signed else "is not believed"
    return Finding(
        id="certificate",
        severity=Severity.HIGH,
        where=where,
        found=f"the certificate {kind}: {tls.distrust}",
        why="callers cannot tell this server from an impostor, unless they stop checking",
        fix="give --ca the authority that signed it; otherwise have one that callers believe sign it, for this name",
        source=_USE_TLS,
    )


def _expiry(where: str, tls: TlsFacts) -> Finding:
    days = tls.days_left
    if days > _SOON_DAYS:
        return ok("certificate-expiry", where, f"the certificate is good for {days:.0f} more days")
    return Finding(
        id="certificate-expiry",
        severity=Severity.CRITICAL if days <= 0 else Severity.HIGH if days <= _NOW_DAYS else Severity.MEDIUM,
        where=where,
        found=f"the certificate ended {-days:.0f} days ago"
        if days <= 0
        else f"the certificate ends in {days:.1f} days",
        why="every caller that checks certificates is turned away from then on",
        fix="naiad deploy certificate renew, or install one of your authority; the gateway takes it at once",
    )


def _old(where: str, tls: TlsFacts) -> Finding:
    if tls.old_versions:
        return Finding(
            id="tls-versions",
            severity=Severity.HIGH,
            where=where,
            found=f"{' and '.join(tls.old_versions)} is accepted",
            why="connections can be talked down to a protocol that is broken",
            fix="accept TLS 1.2 and newer only, as Envoy does by default",
            source=_OLD_TLS,
        )
    if tls.untested_versions:
        return unknown("tls-versions", where, f"OpenSSL here cannot try {' and '.join(tls.untested_versions)}")
    return ok("tls-versions", where, "nothing older than TLS 1.2 is accepted")


def _shown(ports: list[OpenPort], host: str) -> str:
    return ", ".join(described(port, host) for port in ports)


def _direct(seen: Survey) -> Finding:
    check, host = "direct-ports", seen.target.host
    ports = [port for port in seen.ports if port.what in {"triton-http", "triton-grpc"}]
    protected = seen.gateway or seen.tls is not None
    if not ports:
        return ok(check, host, "no port of Triton's own is open beside it")
    if not protected:
        return ok(
            check, host, f"other ports of Triton's: {_shown(ports, host)}; what they allow is judged with the rest"
        )
    return Finding(
        id=check,
        severity=Severity.MEDIUM if seen.target.loopback else Severity.CRITICAL,
        where=host,
        found=f"Triton can be reached past the gateway: {_shown(ports, host)}",
        why="there is neither TLS nor identity on that way, and no limit",
        fix="publish the gateway's port only: no `ports` at Triton in docker-compose.yml, and an internal network",
        source=GUIDE,
    )


def _metrics(seen: Survey) -> Finding:
    check, host = "metrics", seen.target.host
    ports = [port for port in seen.ports if port.what in {"metrics", "prometheus"}]
    if not ports and not seen.metrics_here:
        return ok(check, host, "no metrics are open to everybody")
    there = ", ".join(filter(None, [seen.target.address if seen.metrics_here else "", _shown(ports, host)]))
    return Finding(
        id=check,
        severity=Severity.LOW if seen.target.loopback else Severity.MEDIUM,
        where=host,
        found=f"anybody may read metrics: {there}",
        why="they name every model and its traffic; Triton has neither TLS nor a password for them",
        fix="keep them on the network of the monitoring; publish no port",
        source=GUIDE,
    )


def _admin(seen: Survey) -> Finding:
    check, host = "gateway-administration", seen.target.host
    ports = [port for port in seen.ports if port.what == "envoy-admin"]
    if not ports:
        return ok(check, host, "the gateway's administration is not open")
    return Finding(
        id=check,
        severity=Severity.HIGH if seen.target.loopback else Severity.CRITICAL,
        where=host,
        found=f"anybody may administer the gateway: {_shown(ports, host)}",
        why="it ends the gateway, changes its log, and shows its configuration and certificates",
        fix="have it on a UNIX socket, as deploy/gateway/envoy.yaml does",
        source="https://www.envoyproxy.io/docs/envoy/latest/operations/admin",
    )
