"""A package index on loopback, and tiny wheels for it: real downloads by the real pip, without a network."""

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PROJECT = "naiad-test-payload"


def write_wheel(folder: Path, *, content: bytes = b"#!/bin/sh\n") -> Path:
    """A wheel with one executable file `payload/run`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "naiad_test_payload-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as wheel:
        executable = zipfile.ZipInfo("payload/run")
        executable.external_attr = 0o100755 << 16
        wheel.writestr(executable, content)
        wheel.writestr("naiad_test_payload-1.0.dist-info/METADATA", metadata)
        wheel.writestr("naiad_test_payload-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("naiad_test_payload-1.0.dist-info/RECORD", "")
    return path


def sha256(path: Path) -> str:
    """The digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class PackageIndex:
    """Serves one wheel; `pause` is called when half of it is sent, in the server's thread."""

    def __init__(self, wheel: Path, pause: Callable[[], object] = lambda: None) -> None:
        content = wheel.read_bytes()
        self.num_downloads = 0
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith(".whl"):
                    index.num_downloads += 1
                    self._send(content, "application/octet-stream")
                else:
                    self._send(f'<a href="/{wheel.name}">{wheel.name}</a>'.encode(), "text/html")

            def _send(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body[: len(body) // 2])
                    if self.path.endswith(".whl"):
                        pause()
                    self.wfile.write(body[len(body) // 2 :])
                except OSError:
                    return  # the client was killed, as the test wants

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """For PIP_INDEX_URL."""
        return f"http://127.0.0.1:{self._server.server_port}/simple"

    def __enter__(self) -> "PackageIndex":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
