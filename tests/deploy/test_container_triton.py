"""What a replica's container runs, taken out of the rendered file and run here with the real Triton."""

import ctypes
import json
import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import psutil
import pytest

from container_helpers import KEY, check, container, finished, free_ports, started
from launcher_helpers import eventually
from naiad.deploy._compose import triton as triton_container
from naiad.server import EmbeddedTriton

LIVE = "http://127.0.0.1:8000/v2/health/live"
SHOWS = """
import json, os, sys
children = os.popen("tr '\\\\0' '\\\\n' </proc/self/environ").read()
line = open("/proc/self/cmdline").read()
print(json.dumps({"arguments": sys.argv[1:], "line": line, "variables": dict(os.environ), "children": children}))
"""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "triton-admin-key"
    path.write_text(KEY + "\n")
    return path


NOWHERE = "http://127.0.0.1:1/"


def runner(project: Path, key_file: Path, *command: str, live_url: str = NOWHERE, hung_s: float = 0.5) -> list[str]:
    return [sys.executable, str(project / triton_container.RUNNER), str(key_file), live_url, str(hung_s), *command]


def test_the_real_triton_takes_the_command_and_shows_no_key(
    project: Path, key_file: Path, tmp_path: Path, tritons: tuple[EmbeddedTriton, EmbeddedTriton]
) -> None:
    """It becomes ready by the container's own health check, asks for the key, and ends well when it is asked to."""
    fields = container(project, "triton-main-0")
    http, grpc_port, metrics = free_ports(3)
    (tmp_path / "models").mkdir()
    moved = {
        "python3": sys.executable,
        "/naiad/run_triton.py": str(project / triton_container.RUNNER),
        "/run/secrets/triton-admin-key": str(key_file),
        "tritonserver": psutil.Process(tritons[0].pid).exe(),
        "--model-repository=/models": f"--model-repository={tmp_path / 'models'}",
    }
    assert moved.keys() <= set(fields["command"])
    # The embedded release is older than this one option; every other is looked at by its parser.
    command = [moved.get(part, part) for part in fields["command"] if "max-response-pool" not in part]
    for service, port in (("http", http), ("grpc", grpc_port), ("metrics", metrics)):
        command += [f"--{service}-address=127.0.0.1", f"--{service}-port={port}"]
    command[command.index(LIVE)] = LIVE.replace("8000", str(http))
    log = tmp_path / "triton.log"
    with started(command, log, cwd=tmp_path) as process:
        eventually(lambda: process.poll() is not None or check(fields, 8000, http) == 0, log.read_text(), 60)
        assert process.poll() is None, log.read_text()
        family = psutil.Process(process.pid)
        lines = ["\n".join(each.cmdline()) for each in (family, *family.children(recursive=True))]
        assert len(lines) == 2
        assert "admin-key={key}" in lines[1]
        assert KEY not in "".join(lines)
        assert index_http(http, None) == 403
        assert index_http(http, "{key}") == 403
        assert index_http(http, KEY) == 200
        assert index_grpc(grpc_port, "{key}") == grpc.StatusCode.UNAVAILABLE
        assert index_grpc(grpc_port, KEY) == grpc.StatusCode.OK
        process.terminate()
        assert process.wait(60) == 0
    assert KEY not in log.read_text()
    assert check(fields, 8000, http) != 0


def test_a_triton_that_hangs_is_killed_to_be_started_again(
    project: Path, key_file: Path, tmp_path: Path, tritons: tuple[EmbeddedTriton, EmbeddedTriton]
) -> None:
    """The real server, stopped by a signal after it was live: the container ends, and the log says why."""
    http, grpc_port, metrics = free_ports(3)
    (tmp_path / "models").mkdir()
    ports = [f"--http-port={http}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics}"]
    addresses = [f"--{service}-address=127.0.0.1" for service in ("http", "grpc", "metrics")]
    server = [psutil.Process(tritons[0].pid).exe(), f"--model-repository={tmp_path / 'models'}", *ports, *addresses]
    url, log = LIVE.replace("8000", str(http)), tmp_path / "triton.log"
    with started(runner(project, key_file, *server, live_url=url, hung_s=2), log, cwd=tmp_path) as process:
        eventually(lambda: "Triton is live" in log.read_text(), "the watcher has seen it live")
        (child,) = psutil.Process(process.pid).children()
        child.suspend()
        assert process.wait(60) == 128 + signal.SIGKILL
    assert "has not answered for 2 s" in log.read_text()


def test_a_server_that_never_answered_is_left_alone(project: Path, key_file: Path) -> None:
    """Loading models may take longer than the watcher waits."""
    slow = finished(runner(project, key_file, sys.executable, "-c", "import time; time.sleep(2)", hung_s=0.2))
    assert slow.returncode == 0


def index_http(port: int, key: str | None) -> int:
    headers = {"admin-key": key} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/repository/index", method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def index_grpc(port: int, key: str) -> grpc.StatusCode:
    metadata = [("triton-grpc-protocol-admin-key", key)]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")(b"", metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_the_key_reaches_the_program_and_nobody_else(project: Path, key_file: Path) -> None:
    """Each argument arrives whole; the list of processes, and what the program starts, have the placeholder only."""
    arguments = ["--first", "a:key={key}", "", "x" * 5000, "{key}", "b:key={key}:{key}"]
    done = finished(runner(project, key_file, sys.executable, "-c", SHOWS, *arguments))
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    seen = json.loads(done.stdout)
    assert seen["arguments"] == [argument.replace("{key}", KEY) for argument in arguments]
    assert seen["line"].split("\0")[3:-1] == arguments
    assert KEY not in json.dumps([seen["line"], seen["variables"], seen["children"]])
    assert seen["variables"].keys() >= os.environ.keys()


def test_hiding_the_key_needs_no_privilege(project: Path, key_file: Path, tmp_path: Path) -> None:
    """A user other than root without any capability, and without a way to new ones, as in the container."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user")
    program = tmp_path_of_anybody(project, key_file)
    drop = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
    system_python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    assert system_python is not None
    shows = [str(program / "run_triton.py"), str(program / "key"), NOWHERE, "60", system_python, "-c", SHOWS, "k={key}"]
    done = finished([*drop, system_python, *shows], cwd="/")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["arguments"] == [f"k={KEY}"]
    assert KEY not in seen["line"]
    shutil.rmtree(program)


def tmp_path_of_anybody(project: Path, key_file: Path) -> Path:
    """The runner and the key where another user may read them."""
    directory = Path("/tmp") / f"naiad-runner-{os.getpid()}"
    directory.mkdir(mode=0o755)
    shutil.copy(project / triton_container.RUNNER, directory / "run_triton.py")
    shutil.copy(key_file, directory / "key")
    for each in directory.iterdir():
        each.chmod(0o644)
    return directory


def refuse_ptrace() -> None:
    """In the child: have the kernel refuse ptrace, as a strict container engine does (seccomp(2))."""

    class Instruction(ctypes.Structure):
        _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction)))

    load, equal, answer = 0x20, 0x15, 0x06
    number_of_ptrace = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
    steps = (Instruction * 4)(
        (load, 0, 0, 0),
        (equal, 0, 1, number_of_ptrace),
        (answer, 0, 0, 0x00050001),  # SECCOMP_RET_ERRNO | EPERM
        (answer, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    library = ctypes.CDLL(None, use_errno=True)
    assert library.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert library.prctl(22, 2, ctypes.byref(Program(4, steps)), 0, 0) == 0, os.strerror(ctypes.get_errno())


def test_where_the_key_cannot_be_hidden_the_log_says_so(project: Path, key_file: Path) -> None:
    """The program starts all the same, with the true key: a placeholder would be a key that everybody knows."""
    command = runner(project, key_file, sys.executable, "-c", SHOWS, "k={key}")
    done = finished(command, preexec_fn=refuse_ptrace)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["arguments"] == [f"k={KEY}"]
    assert "visible to whoever lists this machine's processes" in done.stderr


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ([sys.executable, "-c", "raise SystemExit(7)"], 7),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 137),
        (["/no/such/program"], 127),
    ],
)
def test_the_runner_ends_as_its_program_does(project: Path, key_file: Path, program: list[str], status: int) -> None:
    """The engine sees why a container has ended, and starts it again."""
    assert finished(runner(project, key_file, *program)).returncode == status


@pytest.mark.parametrize("content", [None, "", "too short", "with blanks " * 5, "comma,colon:equals=" * 3])
def test_a_key_that_is_none_starts_nothing(project: Path, tmp_path: Path, content: str | None) -> None:
    """Triton would take an empty key, and split others; the message says what makes a good one."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    done = finished(runner(project, path, sys.executable, "-c", "print('started')"))
    assert done.returncode != 0
    assert "started" not in done.stdout
    assert "naiad deploy secrets" in done.stderr


def test_as_a_first_process_it_forwards_signals_and_reaps_orphans(
    project: Path, key_file: Path, tmp_path: Path
) -> None:
    """The kernel gives a first process no signal that it does not handle, and every orphan."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if not shutil.which("unshare") or finished([*unshare, "true"]).returncode != 0:
        pytest.skip("this machine allows no process namespace")
    orphan = "import os, signal, time\nif os.fork() == 0:\n  os.fork() or time.sleep(0.5)\n  os._exit(0)\nos.wait()\n"
    ends = "signal.signal(signal.SIGTERM, lambda *_: os._exit(3))\nprint('up', flush=True)\ntime.sleep(60)\n"
    log = tmp_path / "log"
    command = [*unshare, *runner(project, key_file, sys.executable, "-c", orphan + ends, "{key}")]
    with started(command, log) as process:
        eventually(lambda: b"up" in log.read_bytes(), "the program runs")
        (first,) = psutil.Process(process.pid).children()
        eventually(lambda: len(first.children(recursive=True)) == 1, "the orphan is reaped")
        first.send_signal(signal.SIGTERM)
        assert process.wait(30) == 3
