"""What the containers of the monitoring run, with the programs of this machine in the place of the images'."""

import shutil
from pathlib import Path

import pytest

from container_helpers import check, container, free_ports, started
from deploy_helpers import program
from launcher_helpers import eventually

PROMETHEUS = {
    "--config.file=/etc/prometheus/prometheus.yml": "--config.file={files}/prometheus.yml",
    "--storage.tsdb.path=/prometheus": "--storage.tsdb.path={data}",
}
ALERTMANAGER = {
    "--config.file=/etc/alertmanager/alertmanager.yml": "--config.file={files}/alertmanager.yml",
    "--storage.path=/alertmanager": "--storage.path={data}",
}


def monitoring_files(project: Path, tmp_path: Path) -> Path:
    """The rendered files, with an address in the place of the file of one, which Alertmanager 0.25 cannot read."""
    files = shutil.copytree(project / "deploy" / "monitoring", tmp_path / "monitoring")
    text = (files / "alertmanager.yml").read_text()
    assert "url_file: /run/secrets/alert-webhook" in text
    moved = text.replace("url_file: /run/secrets/alert-webhook", "url: http://127.0.0.1:1/")
    (files / "alertmanager.yml").write_text(moved)
    return files


@pytest.mark.parametrize(
    ("name", "programs", "port", "moved"),
    [
        ("prometheus", ("prometheus",), 9090, PROMETHEUS),
        ("alertmanager", ("prometheus-alertmanager", "alertmanager"), 9093, ALERTMANAGER),
    ],
)
def test_a_program_takes_its_command_and_is_healthy(
    project: Path, tmp_path: Path, name: str, programs: tuple[str, ...], port: int, moved: dict[str, str]
) -> None:
    """With the rendered configuration, by the container's own health check; it ends well when it is asked to."""
    fields = container(project, name)
    assert moved.keys() <= set(fields["command"])
    (at,) = free_ports(1)
    places = {"files": monitoring_files(project, tmp_path), "data": tmp_path / "data"}
    command = [moved.get(part, part).format(**places) for part in fields["command"]]
    log = tmp_path / "log"
    listening = f"--web.listen-address=127.0.0.1:{at}"
    with started([str(program(*programs)), *command, listening], log, cwd=tmp_path) as process:
        eventually(lambda: process.poll() is not None or check(fields, port, at) == 0, f"{name} is healthy")
        assert process.poll() is None, log.read_text()
        process.terminate()
        assert process.wait(60) == 0
    assert check(fields, port, at) != 0
