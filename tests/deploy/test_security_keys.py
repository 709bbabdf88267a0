"""The file of API keys and the gateway's own faults: what changes counts at once, and what is broken lets nobody in."""

from collections.abc import Callable, Iterator
from dataclasses import replace as replace_fields
from pathlib import Path

import pytest

import naiad.deploy._gateway.identity as module
from launcher_helpers import eventually
from naiad.deploy.keys import KeyFile
from naiad.deploy.place import Place
from recording_upstream import RecordingUpstream
from security_setting import Setting, infer, make_service, make_setting


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """A gateway of this test's own."""
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path, upstream, make_service())
        with setting.gateway:
            yield setting


def status(setting: Setting, key: str) -> str:
    """What an inference with the key gets."""
    return setting.grpc("keys", "ModelInfer", infer(), [("x-api-key", key)])


def becomes(setting: Setting, key: str, expected: str) -> None:
    """Wait until the gateway has seen the change."""
    eventually(lambda: status(setting, key) == expected, f"a key's answer to be {expected}", timeout_s=15)


def replace(path: Path, text: str) -> None:
    """Put a new file in its place, as an editor or a mount does."""
    staged = path.with_name(".staged")
    staged.write_text(text)
    staged.replace(path)


def test_keys_are_rotated_without_a_refusal(setting: Setting) -> None:
    """The second key counts within seconds, the first goes on, until it is revoked."""
    old = setting.keys["reader"]
    new = KeyFile(setting.key_file).add("reader")
    becomes(setting, new, "grpc 0")
    assert status(setting, old) == "grpc 0"
    file = KeyFile(setting.key_file)
    file.revoke("reader", file.keys()[0].id if file.keys()[0].identity == "reader" else "")
    becomes(setting, old, "grpc 16")
    assert status(setting, new) == "grpc 0"


def test_an_empty_file_lets_nobody_in(setting: Setting) -> None:
    """It says that there are no keys."""
    assert status(setting, setting.keys["reader"]) == "grpc 0"
    replace(setting.key_file, "")
    becomes(setting, setting.keys["reader"], "grpc 16")


BROKEN: dict[str, Callable[[str], str]] = {
    "noise": lambda text: text + "\0\1\2\n",
    "cut": lambda text: text[:-20],
    "short-digest": lambda text: text + "reader sha256:abc created=2026-01-01\n",
    "impossible-date": lambda text: text + f"reader sha256:{'a' * 64} created=2026-01-01 expires=2026-13-01\n",
    "misspelt-end": lambda text: text + f"reader sha256:{'a' * 64} created=2026-01-01 expire=2026-12-01\n",
    "same-key-twice": lambda text: text + text.splitlines()[-1] + "\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_file_changes_nothing(setting: Setting, name: str) -> None:
    """The last good one counts, and the gateway's log says which line is wrong."""
    assert status(setting, setting.keys["reader"]) == "grpc 0"
    replace(setting.key_file, BROKEN[name](setting.key_file.read_text()))
    log = Path(setting.gateway.log_path)

    def said() -> bool:
        assert status(setting, setting.keys["reader"]) == "grpc 0"
        return "of the file of API keys is malformed" in log.read_text()

    eventually(said, "the malformed file to be noticed", timeout_s=15)


def test_a_missing_file_changes_nothing_while_the_gateway_runs(setting: Setting) -> None:
    """A mount that comes and goes locks nobody out; deleting the file is not how keys are revoked."""
    assert status(setting, setting.keys["reader"]) == "grpc 0"
    setting.key_file.unlink()
    log = Path(setting.gateway.log_path)

    def said() -> bool:
        assert status(setting, setting.keys["reader"]) == "grpc 0"
        return "cannot be read" in log.read_text()

    eventually(said, "the missing file to be noticed", timeout_s=15)


def test_without_a_file_from_the_start_nobody_has_a_key(tmp_path: Path) -> None:
    """There is no last good one."""
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path, upstream, make_service())
        setting.key_file.unlink()
        with setting.gateway:
            assert status(setting, setting.keys["reader"]) == "grpc 16"
            assert upstream.arrivals == []


FAULTS = {
    "before-the-identity": ("call.grpc = content_type", 'error("provoked") call.grpc = content_type'),
    "after-the-body": ("local size = body:length()", 'local size = body:length() error("provoked")'),
    "without-a-message": ("local size = body:length()", "local size = body:length() error()"),
    "that-looks-like-a-refusal": ("local size = body:length()", "local size = body:length() error({})"),
    "in-the-refusal": ("local status = KINDS[refusal.kind]", 'error("provoked") local status'),
    "nothing-runs": ("function envoy_on_request(handle)", "function envoy_on_request(handle) do return end"),
    "last-step": ("handle:clearRouteCache()", 'error("provoked")'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_filter_lets_nothing_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Envoy would let a request pass: our filter catches its failures, and without its word there is no route."""
    program, (healthy, faulty) = module.script, FAULTS[fault]
    assert healthy in program(make_service(), _place())
    monkeypatch.setattr(module, "script", lambda *args: program(*args).replace(healthy, faulty))
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path, upstream, make_service())
        with setting.gateway:
            headers = [("x-api-key", "wrong")] if fault == "in-the-refusal" else [("x-api-key", setting.keys["reader"])]
            assert setting.grpc("fault", "ModelInfer", infer(), headers) != "grpc 0"
            assert setting.http("fault", "POST /v2/models/digits/infer", headers, b"{}") in ("http 500", "http 404")
            assert upstream.arrivals == []
            setting.logged("fault")


def test_a_fault_in_a_stream_ends_what_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing after the fault passes, and the caller hears it."""
    program = module.script
    healthy = "stream.version = version"
    faulty = 'if version == "7" then error("provoked") end'
    assert healthy in program(make_service(), _place())
    monkeypatch.setattr(module, "script", lambda *args: program(*args).replace(healthy, faulty))
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path, upstream, make_service())
        with setting.gateway:
            messages = [infer(), infer(model_version="7"), infer()]
            answers = setting.stream("fault", messages, [("x-api-key", setting.keys["reader"])])
            assert answers[0] == "digits"
            assert answers[1:] == ["refused by the gateway: the gateway failed"]


def _place() -> Place:
    return Place(config_dir="/c", secrets_dir="/s")


def test_an_issuers_next_key_comes_beside_the_old_one(setting: Setting) -> None:
    """As an issuer of another name with the same `iss`: both count while callers change over, without a restart."""
    old, new = setting.signer, type(setting.signer)()

    def by_token(token: str) -> str:
        return setting.grpc("issuer", "ModelInfer", infer(), [("authorization", f"Bearer {token}")])

    assert (by_token(old.token()), by_token(new.token())) == ("grpc 0", "grpc 16")
    (setting.directory / "secrets" / "jwks" / "corp-2.json").write_text(new.jwks())
    service = setting.gateway.service
    reader = replace_fields(service.identities[0], tokens=("corp/alice", "corp-2/alice"))
    issuers = (*service.issuers, replace_fields(service.issuers[0], name="corp-2"))
    setting.gateway.reload(replace_fields(service, issuers=issuers, identities=(reader, *service.identities[1:])))
    eventually(lambda: by_token(new.token()) == "grpc 0", "the new key to count", timeout_s=15)
    assert by_token(old.token()) == "grpc 0"
