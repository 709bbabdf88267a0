"""Judges the description of a service, and its secrets: who may do what, and with which keys."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from naiad.deploy._audit.finding import GUIDE, Finding, Severity, ok, unknown
from naiad.deploy._audit.judge_server import judge_release
from naiad.deploy.keys import Key, KeyFile
from naiad.deploy.load import load_service
from naiad.deploy.service import Identity, Service

_OLD_KEY_DAYS: Final = 365
_LEAST: Final = "https://csrc.nist.gov/glossary/term/least_privilege"
_KEYS: Final = "https://cheatsheetseries.owasp.org/cheatsheets/Secrets_Management_Cheat_Sheet.html"
_OPEN_MODE: Final = 0o077
_PUBLIC: Final = (".crt", ".crl", ".pem.pub")


def judge_service(path: Path, secrets: Path | None) -> Iterator[Finding]:
    """All findings about a description and the directory of its secrets. Raises: `InvalidService`, `InvalidKeys`."""
    service, where = load_service(path), path.name
    yield judge_release(service.triton.release, "the release of the service", where)
    yield _tls(service, where)
    yield _anonymous(service, where)
    yield _rights(service, where)
    yield _limits(service, where)
    yield _control(service, where)
    yield _replicas(service, where)
    if secrets is not None and secrets.is_dir():
        yield from _judge_secrets(service, secrets)
    else:
        yield unknown("keys", where, f"there is no directory {secrets}" if secrets else "no directory of secrets given")


def _tls(service: Service, where: str) -> Finding:
    if service.tls:
        return ok("service-tls", where, "callers must use TLS")
    return Finding(
        id="service-tls",
        severity=Severity.HIGH,
        where=where,
        found="tls = false",
        why="keys, inputs and answers can be read and changed on the way",
        fix="tls = true, and naiad deploy secrets",
        source=GUIDE,
    )


def _anonymous(service: Service, where: str) -> Finding:
    check, rights = "service-anonymous", service.anonymous
    if rights is None or not (rights.infer or rights.observe or rights.admin):
        return ok(check, where, "callers without an identity may do nothing")
    certified = service.client_certificates == "required"
    severity = Severity.CRITICAL if rights.admin else Severity.LOW if certified else Severity.HIGH
    what = "administer" if rights.admin else "infer and observe" if rights.infer and rights.observe else "infer"
    return Finding(
        id=check,
        severity=severity,
        where=where,
        found=f"callers without an identity may {what if rights.infer or rights.admin else 'observe'}"
        + (" (with a client certificate)" if certified else ""),
        why="nobody knows who asked what, and no key can be taken away",
        fix="take [anonymous] out, and give each caller an identity",
        source=_LEAST,
    )


def _rights(service: Service, where: str) -> Finding:
    both = [who.name for who in service.identities if who.rights.admin and who.rights.infer]
    wide = [who.name for who in service.identities if "*" in who.rights.infer and not who.rights.admin]
    admins = [who.name for who in service.identities if who.rights.admin]
    found = []
    if both:
        found.append(f"{', '.join(both)} both administers and infers")
    if len(admins) > max(2, len(service.identities) // 2):
        found.append(f"{len(admins)} identities administer")
    if wide and len(service.identities) > 1:
        found.append(f"{', '.join(wide)} may ask every model, also those to come")
    if not found:
        return ok("service-rights", where, "identities have the rights of one task")
    return Finding(
        id="service-rights",
        severity=Severity.MEDIUM if both else Severity.LOW,
        where=where,
        found="; ".join(found),
        why="a key that leaks opens all that its identity may do",
        fix="an identity for each task, with the models that it needs by name",
        source=_LEAST,
    )


def _limits(service: Service, where: str) -> Finding:
    without = [who.name for who in service.identities if _unlimited(who)]
    if not without:
        return ok("service-limits", where, "every identity that infers has a rate limit")
    return Finding(
        id="service-limits",
        severity=Severity.LOW,
        where=where,
        found=f"no rate limit for {', '.join(without)}",
        why="one caller, or one loop gone wild, takes the capacity of all",
        fix="requests_per_s (and burst) for each, from what `naiad loadtest --find-max` found",
        source=GUIDE,
    )


def _unlimited(who: Identity) -> bool:
    return bool(who.rights.infer) and who.requests_per_s is None


def _control(service: Service, where: str) -> Finding:
    if service.triton.model_control == "none":
        return ok("service-model-control", where, "models are loaded at the start only")
    return Finding(
        id="service-model-control",
        severity=Severity.LOW,
        where=where,
        found='model_control = "explicit"',
        why="whoever has an administrator's key runs code in the servers",
        fix='model_control = "none", and a rolling restart after `naiad models promote`',
        source=GUIDE,
    )


def _replicas(service: Service, where: str) -> Finding:
    if service.pools and service.pools[0].num_replicas > 1:
        return ok("service-replicas", where, f"{service.pools[0].num_replicas} replicas")
    return Finding(
        id="service-replicas",
        severity=Severity.LOW,
        where=where,
        found="one replica",
        why="every restart and every crash is an outage",
        fix="num_replicas = 2, or one more than the load needs",
    )


def _judge_secrets(service: Service, secrets: Path) -> Iterator[Finding]:
    keys = KeyFile(secrets / "api-keys").keys()
    yield _expiry(keys, str(secrets / "api-keys"))
    yield _strangers(service, keys, str(secrets / "api-keys"))
    yield _modes(secrets)


def _expiry(keys: tuple[Key, ...], where: str) -> Finding:
    today = datetime.now(UTC).date()
    never = [f"{key.identity} {key.id}" for key in keys if key.expires is None]
    old = [f"{key.identity} {key.id}" for key in keys if (today - key.created).days > _OLD_KEY_DAYS and key.is_valid()]
    if not never and not old:
        return ok("keys", where, f"every one of {len(keys)} keys ends, and none is older than a year")
    found = [f"{', '.join(never)} never ends"] if never else []
    found += [f"{', '.join(old)} is older than a year"] if old else []
    return Finding(
        id="keys",
        severity=Severity.MEDIUM if old else Severity.LOW,
        where=where,
        found="; ".join(found),
        why="a key that leaked unnoticed works for ever",
        fix="naiad deploy key add IDENTITY --days 90; revoke the old one once nobody uses it",
        source=_KEYS,
    )


def _strangers(service: Service, keys: tuple[Key, ...], where: str) -> Finding:
    known = {who.name for who in service.identities}
    strangers = sorted({key.identity for key in keys if key.identity not in known and key.is_valid()})
    if not strangers:
        return ok("key-identities", where, "every key is of an identity of the service")
    return Finding(
        id="key-identities",
        severity=Severity.LOW,
        where=where,
        found=f"keys of identities that the service does not know: {', '.join(strangers)}",
        why="they come back to life when somebody uses the name again",
        fix="naiad deploy key revoke IDENTITY all",
    )


def _modes(secrets: Path) -> Finding:
    def is_open(path: Path) -> bool:
        mode = path.stat()
        return stat.S_ISREG(mode.st_mode) and bool(mode.st_mode & _OPEN_MODE) and not path.name.endswith(_PUBLIC)

    sheltered = secrets.stat().st_mode & 0o007 == 0
    found = [
        str(Path(folder, name).relative_to(secrets))
        for folder, _, names in os.walk(secrets)
        for name in names
        if is_open(Path(folder, name))
    ]
    private = [name for name in found if not name.startswith("jwks")]
    if not private or sheltered:
        return ok("secret-files", str(secrets), "only their owner can read the secrets")
    return Finding(
        id="secret-files",
        severity=Severity.HIGH,
        where=str(secrets),
        found=f"others can read {', '.join(sorted(private))}",
        why="every user of the machine can be the service, or its administrator",
        fix=f"chmod 700 {secrets} && chmod 600 {secrets}/*",
        source=_KEYS,
    )
