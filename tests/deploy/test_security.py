"""Hostile and unauthorised calls: each is refused with the right status and logged, and none reaches the server."""

import json
from collections.abc import Iterator

import pytest

from recording_upstream import RecordingUpstream
from security_attacks import ATTACKS, Attack
from security_setting import Setting, make_service, make_setting


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A gateway that nobody changes."""
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path_factory.mktemp("security"), upstream, make_service())
        with setting.gateway:
            yield setting


@pytest.mark.parametrize("attack", [pytest.param(attack, id=attack.name) for attack in ATTACKS])
def test_an_attack_is_refused_and_logged_and_reaches_nothing(setting: Setting, attack: Attack) -> None:
    """The status is right, the access log says who was denied what, and the server has seen nothing."""
    before = len(setting.upstream.arrivals)
    assert attack.send(setting, attack.name) == attack.status
    setting.logged(attack.name, **attack.logged)
    assert setting.upstream.arrivals[before:] == []


def test_the_table_names_each_attack_once() -> None:
    """Lines of the access log are found by the names."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_json_answers_say_why(setting: Setting) -> None:
    """A refusal over HTTP has a JSON body with the reason."""
    with setting.connect() as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert "API key" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
