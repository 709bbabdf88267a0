"""A repository on a real S3 server (SeaweedFS): the same verbs, safe from others and from kills."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import export_killer
import export_publisher
from export_kills import kills
from export_publisher import publish
from export_validity import assert_servable
from naiad.export import (
    ContractChanged,
    CorruptVersion,
    ExportError,
    InvalidName,
    ModelNotFound,
    NotWritable,
    Repository,
    RepositoryError,
)
from naiad.export._repository import lease
from naiad.export._repository.bucket import Bucket
from naiad.export._repository.owner import Mark, Owner
from naiad.export._repository.s3 import parse_url


def objects(url: str) -> Bucket:
    """The repository's objects, to do by hand what nobody should."""
    return Bucket(*parse_url(url))


class TestVerbs:
    def test_they_mean_the_same(self, bucket_url: str) -> None:
        """Versions count up and are promoted, rolled back, verified, pruned; the journal has each act."""
        numbers = [publish(bucket_url, labels=("a", "b", "c")).number for _ in range(3)]
        repo = Repository(bucket_url)
        assert (numbers, repo.models(), repo.versions("some")) == ([1, 2, 3], ("some",), (1, 2, 3))
        assert repo.served("some") == (3,)
        assert publish(bucket_url, labels=("a", "b", "c"), promote=False).location == f"{bucket_url}/some/4"
        assert repo.promote("some", 1, 2) == (1, 2)
        assert repo.rollback("some") == (3,)
        assert repo.verify("some", 2).ok
        assert repo.prune("some", keep=1).removed == (1,)  # 2 is where the next rollback goes
        assert (repo.versions("some"), repo.served("some")) == ((2, 3, 4), (3,))
        assert publish(bucket_url, labels=("a", "b", "c")).number == 5
        assert not any(name.startswith(".claim") for name in objects(bucket_url).list().files)
        assert repo.versions("some") == (2, 3, 4, 5)
        actions = [entry.action for entry in repo.history("some")]
        assert actions == [*["publish"] * 4, "promote", "rollback", "prune", "publish"]
        assert repo.audit().problems == ()

    def test_the_files_of_a_version_come_checked(self, bucket_url: str) -> None:
        """They are in a directory that goes with the block; one that was changed in the bucket is refused."""
        publish(bucket_url)
        repo = Repository(bucket_url)
        with repo.files("some", 1) as directory:
            assert {"golden.npz", "manifest.json", "model.onnx"} <= {path.name for path in directory.iterdir()}
        assert not directory.exists()
        objects(bucket_url).put("some/1/model.onnx", b"other")
        with pytest.raises(CorruptVersion, match=r"model\.onnx was changed"), repo.files("some", 1):
            pass
        with repo.files("some", 1, "golden.npz") as directory:
            assert [path.name for path in directory.iterdir()] == ["golden.npz"]

    def test_a_changed_object_is_found_and_not_promoted(self, bucket_url: str) -> None:
        """`verify` reads every byte in the bucket."""
        for _ in range(2):
            publish(bucket_url)
        bucket, repo = objects(bucket_url), Repository(bucket_url)
        bucket.put("some/1/model.onnx", b"other")
        bucket.put("some/1/extra", b"?")
        bucket.delete(["some/1/golden.npz"])
        problems = " | ".join(repo.verify("some", 1).problems)
        assert re.search(r"golden\.npz is missing .* extra is not in the manifest .* model\.onnx was changed", problems)
        with pytest.raises(CorruptVersion, match="is not what was published"):
            repo.promote("some", 1)
        assert repo.served("some") == (2,)

    def test_a_changed_contract_is_refused(self, bucket_url: str) -> None:
        """Labels and dims are compared with those in the bucket, and nothing is left of what was refused."""
        publish(bucket_url, labels=("a", "b", "c"))
        before = sorted(objects(bucket_url).names("some"))
        for change in ({"dims": 5, "labels": ("a", "b", "c")}, {"labels": ("a", "b", "d")}):
            with pytest.raises(ContractChanged, match="new name"):
                publish(bucket_url, **change)
        assert sorted(objects(bucket_url).names("some")) == before

    def test_a_policy_of_the_latest_does_not_serve_what_nobody_promoted(self, bucket_url: str) -> None:
        """Before the first object of a version is there, the configuration names those that are served."""
        publish(bucket_url)
        bucket = objects(bucket_url)
        text = Repository(bucket_url).config("some")
        text.version_policy.latest.num_versions = 1
        bucket.put("some/config.pbtxt", str(text).encode())
        publish(bucket_url, promote=False)
        assert Repository(bucket_url).served("some") == (1,)
        assert_servable(bucket_url)

    def test_large_files_go_in_parts(self, bucket_url: str) -> None:
        """A model of more than the 100 MB that s3fs sends in one request comes back byte by byte."""
        publish(bucket_url, size=101 << 20)
        assert Repository(bucket_url).verify("some", 1).ok

    def test_the_commands_take_a_url(self, bucket_url: str, tmp_path: Path) -> None:
        """`naiad models` changes what is served in a bucket, and says so."""
        for _ in range(2):
            publish(bucket_url)
        done = naiad("models", "promote", "some", "1", "-r", bucket_url, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "some serves 1 (before: 2)" in done.stdout
        assert naiad("models", "verify", "some", "-r", bucket_url, cwd=tmp_path).returncode == 0
        assert list(tmp_path.iterdir()) == []


class TestOthers:
    def test_exports_at_once_land_as_different_versions(self, bucket_url: str) -> None:
        """Four processes publish the same new model, three versions each: none is skipped, and all are whole."""
        command = [sys.executable, str(export_publisher.__file__), bucket_url, "some", "3", "50000"]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0, 0]
        numbers = sorted(int(number) for output in outputs for number in output.split())
        repo = Repository(bucket_url)
        assert numbers == list(range(1, 13))
        assert repo.versions("some") == tuple(numbers)
        assert sorted(entry.version for entry in repo.history("some")) == numbers  # type: ignore[type-var]
        assert repo.audit().problems == ()
        assert_servable(bucket_url)
        assert [name for name in objects(bucket_url).list().files if name.startswith(".claim")] == []

    def test_a_lock_of_another_machine_expires(self, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process elsewhere that was killed while it held the lock does not stop the repository for good."""
        monkeypatch.setattr(lease, "LEASE_S", 1.0)
        publish(bucket_url)
        elsewhere = Owner(token="x", user="u", host="far", machine="another", pid=1, started="1")
        objects(bucket_url).put(lease.LOCK, Mark(state="held", owner=elsewhere).to_bytes())
        publish(bucket_url)
        assert Repository(bucket_url).served("some") == (2,)

    def test_a_lock_lives_as_long_as_its_work(self, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is renewed while it is held, so that a long pruning keeps it; who waits gets it afterwards."""
        monkeypatch.setattr(lease, "LEASE_S", 2.0)
        publish(bucket_url)
        bucket, got = objects(bucket_url), threading.Event()

        def take() -> None:
            with lease.locked(objects(bucket_url)):
                got.set()

        with lease.locked(bucket):
            waiting = threading.Thread(target=take)
            waiting.start()
            assert not got.wait(4)
        waiting.join(60)
        assert got.is_set()

    def test_a_lock_of_a_dead_process_is_taken_at_once(self, bucket_url: str) -> None:
        """On the same machine nobody has to wait for a lease to end."""
        script = (
            "import os, sys; from naiad.export._repository import lease, s3; "
            "from naiad.export._repository.bucket import Bucket; "
            "lock = lease.locked(Bucket(*s3.parse_url(sys.argv[1]))); lock.__enter__(); os._exit(0)"
        )
        publish(bucket_url)
        subprocess.run([sys.executable, "-c", script, bucket_url], check=True, timeout=60)
        assert b'"held"' in objects(bucket_url).get(lease.LOCK).data  # type: ignore[union-attr]
        publish(bucket_url)

    def test_an_upload_that_was_given_up_cannot_come_back(self, bucket_url: str) -> None:
        """A process that was taken for dead finds out before its version could be seen."""
        publish(bucket_url)
        bucket = objects(bucket_url)
        claim = lease.claim(bucket, "some", 2)
        assert claim is not None
        bucket.put("some/2/model.onnx", b"half")
        assert Repository(bucket_url).versions("some") == (1,)
        found = bucket.get(claim.name)
        assert found is not None
        dead = Owner(token="x", user="u", host="h", machine=claim.mark.owner.machine, pid=2**22 + 1, started="1")  # type: ignore[union-attr]
        assert bucket.replace(claim.name, Mark(state="uploading", owner=dead).to_bytes(), found)
        assert publish(bucket_url).number == 3
        assert bucket.names("some/2") == ()
        with pytest.raises(RepositoryError, match="another process gave it up"):
            lease.settle(bucket, claim, "whole")
        assert Repository(bucket_url).versions("some") == (1, 3)


class TestDisaster:
    def test_killed_at_requests(self, bucket_url: str) -> None:
        """Killed before requests and after their answers, the repository is valid and the next export cleans up."""
        for _ in range(2):
            publish(bucket_url, export_killer.MODEL, labels=("a", "b", "c"))
        places, verified = [], set[tuple[str, int]]()
        every = int(os.environ.get("NAIAD_EVERY", "79"))  # 1 takes minutes
        for place in kills(bucket_url, "steps", random.randint(1, every), every):
            places.append(place)
            assert_servable(bucket_url, verified)
        assert len(places) > 4, places
        number = publish(bucket_url, export_killer.MODEL, labels=("a", "b", "c")).number
        repo = Repository(bucket_url)
        assert repo.served(export_killer.MODEL) == (number,)
        there = {name.partition("/")[0] for name in objects(bucket_url).names(export_killer.MODEL)}
        assert there == {"config.pbtxt", "labels.txt", *map(str, repo.versions(export_killer.MODEL))}


class TestErrors:
    def test_what_is_not_there_is_named(self, bucket_url: str) -> None:
        """An empty prefix is no repository, and a bucket that does not exist is named as one."""
        with pytest.raises(ModelNotFound, match=rf"no model repository at {bucket_url}"):
            Repository(bucket_url).models()
        with pytest.raises(ModelNotFound, match="there is no bucket for s3://naiad-none/models"):
            publish("s3://naiad-none/models")

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("s3://", "names no bucket"),
            ("s3://http://127.0.0.1:9000/bucket/models", "AWS_ENDPOINT_URL"),
            ("gs://bucket/models", "expected a directory, or s3://bucket/prefix"),
        ],
    )
    def test_other_urls_are_refused(self, url: str, message: str) -> None:
        """A URL that is none of ours is not taken for a directory."""
        with pytest.raises(InvalidName, match=message):
            Repository(url)

    def test_wrong_credentials_and_no_server(self, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What to look at is named: the credentials, or the endpoint."""
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(NotWritable, match="AWS_ACCESS_KEY_ID"):
            publish(bucket_url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(RepositoryError, match=r"failed at http://127\.0\.0\.1:9"):
            Repository(bucket_url).models()

    def test_who_may_only_read(self, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reading needs no permission to write, and changing says that it does before anything is built."""
        publish(bucket_url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader-secret")
        repo = Repository(bucket_url)
        assert (repo.versions("some"), repo.served("some"), repo.verify("some", 1).ok) == ((1,), (1,), True)
        with repo.files("some", 1, "golden.npz") as directory:
            assert (directory / "golden.npz").is_file()
        for act in (lambda: repo.promote("some", 1), lambda: publish(bucket_url)):
            with pytest.raises(NotWritable, match=r"S3 refuses access to .*AccessDenied"):
                act()

    def test_a_server_without_conditions_is_refused(self, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a conditional write always succeeds, no lock would hold: nothing is published."""
        publish(bucket_url)
        before = objects(bucket_url).names("some")
        with careless_proxy(os.environ["AWS_ENDPOINT_URL"]) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            with pytest.raises(NotWritable, match="ignores If-None-Match"):
                publish(bucket_url)
        monkeypatch.undo()
        assert before

    def test_without_s3fs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The extra that is missing is named."""
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ExportError, match=r"pip install 'naiad\[s3\]'"):
            Repository("s3://bucket/models")


def naiad(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "naiad.cli", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@contextlib.contextmanager
def careless_proxy(upstream: str) -> Iterator[str]:
    """Stand between a client and the server, and say that a write succeeded which its condition prevented."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = HTTPConnection(urlsplit(upstream).netloc, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            body = answer.read()
            refused = answer.status == 412
            self.send_response(200 if refused else answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", "0" if refused else str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if refused else body)
            connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = forward

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
