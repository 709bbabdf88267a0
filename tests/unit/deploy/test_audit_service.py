"""Descriptions of services and their secrets, judged."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from naiad.deploy._audit.finding import Severity
from naiad.deploy._audit.judge_service import judge_service
from naiad.deploy.keys import KeyFile

SAFE = """
[triton]
release = "26.07"
[[identities]]
name = "shop"
rights = { infer = ["digits"] }
requests_per_s = 100
[[identities]]
name = "operator"
rights = { observe = ["*"], admin = true }
"""
CERTIFIED = 'client_certificates = "required"\n'
TOMORROW = datetime.now(UTC).date() + timedelta(days=1)


def found(folder: Path, text: str = SAFE, secrets: Path | None = None) -> dict[str, Severity]:
    path = folder / "service.toml"
    path.write_text(text)
    findings = judge_service(path, secrets)
    return {finding.id: finding.severity for finding in findings if finding.severity is not Severity.OK}


@pytest.fixture
def secrets(tmp_path):
    """A safe directory of secrets."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    KeyFile(folder / "api-keys").add("shop", expires=TOMORROW)
    return folder


def test_a_safe_service_has_no_findings(tmp_path, secrets):
    """TLS, rights of one task each, limits, keys that end."""
    assert found(tmp_path, secrets=secrets) == {}


@pytest.mark.parametrize(
    ("text", "check", "severity"),
    [
        ("tls = false\n" + SAFE, "service-tls", Severity.HIGH),
        (SAFE + '[anonymous]\ninfer = ["*"]\n', "service-anonymous", Severity.HIGH),
        (SAFE + "[anonymous]\nadmin = true\n", "service-anonymous", Severity.CRITICAL),
        (CERTIFIED + SAFE + '[anonymous]\ninfer = ["*"]\n', "service-anonymous", Severity.LOW),
        (SAFE.replace("observe", "infer"), "service-rights", Severity.MEDIUM),
        (SAFE.replace('"digits"', '"*"'), "service-rights", Severity.LOW),
        (SAFE.replace("requests_per_s = 100\n", ""), "service-limits", Severity.LOW),
        (SAFE.replace('"26.07"', '"26.06"'), "version", Severity.HIGH),
        (SAFE.replace('"26.07"', '"26.07"\nmodel_control = "explicit"'), "service-model-control", Severity.LOW),
        (SAFE + '[[pools]]\nname = "main"\nnum_replicas = 1\n', "service-replicas", Severity.LOW),
    ],
)  # fmt: skip
def test_each_weakness_is_found(tmp_path, secrets, text, check, severity):
    """It is among the findings, as bad as it is."""
    found_here = found(tmp_path, text, secrets)
    assert found_here.pop(check) is severity
    assert set(found_here) <= {"service-limits"}  # whoever may infer without a limit is that, too


def test_anonymous_without_rights_is_nobody(tmp_path, secrets):
    """An empty table grants nothing."""
    assert found(tmp_path, SAFE + "[anonymous]\n", secrets) == {}


def test_keys_that_never_end_are_found(tmp_path, secrets):
    """The other one is not held against them."""
    KeyFile(secrets / "api-keys").add("operator")
    assert found(tmp_path, secrets=secrets) == {"keys": Severity.LOW}


def test_old_keys_are_found_unless_they_have_ended(tmp_path, secrets):
    """A year is enough for a key."""
    keys = secrets / "api-keys"
    keys.write_text(keys.read_text() + f"shop sha256:{'0' * 64} created=2020-01-01 expires={TOMORROW}\n")
    assert found(tmp_path, secrets=secrets) == {"keys": Severity.MEDIUM}
    keys.write_text(keys.read_text().replace(f"expires={TOMORROW}", "expires=2021-01-01"))
    assert found(tmp_path, secrets=secrets) == {}


def test_keys_of_strangers_are_found(tmp_path, secrets):
    """The service does not know them."""
    KeyFile(secrets / "api-keys").add("gone", expires=TOMORROW)
    assert found(tmp_path, secrets=secrets) == {"key-identities": Severity.LOW}


def test_secrets_that_others_can_read_are_found(tmp_path, secrets):
    """Unless the directory itself keeps others out; certificates are public."""
    (secrets / "tls.key").write_text("secret")
    (secrets / "tls.key").chmod(0o644)
    assert found(tmp_path, secrets=secrets) == {}
    secrets.chmod(0o755)
    assert found(tmp_path, secrets=secrets) == {"secret-files": Severity.HIGH}
    (secrets / "tls.key").chmod(0o600)
    (secrets / "tls.crt").write_text("public")
    assert found(tmp_path, secrets=secrets) == {}


def test_without_secrets_keys_are_not_checked(tmp_path):
    """And that is said."""
    assert found(tmp_path) == {"keys": Severity.UNKNOWN}
    assert found(tmp_path, secrets=tmp_path / "none") == {"keys": Severity.UNKNOWN}
