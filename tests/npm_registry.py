"""A registry for npm on loopback, with one package: real downloads by the real npm, without a network."""

import base64
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Mapping
from types import TracebackType


def tarball(files: Mapping[str, bytes]) -> bytes:
    """A package as `npm publish` packs it; `files` by their paths in the tarball."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class NpmRegistry:
    """Serves one version of one package, and counts how often its tarball was asked for."""

    def __init__(self, name: str, version: str, files: Mapping[str, bytes]) -> None:
        manifest = {"name": name, "version": version}
        packed = tarball({"package/package.json": json.dumps(manifest).encode(), **files})
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
        self.num_downloads = 0
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/package.tgz":
                    registry.num_downloads += 1
                    self._send(200, packed)
                elif self.path == "/" + name.replace("/", "%2f"):
                    dist = {"tarball": f"{registry.url}/package.tgz", "integrity": integrity}
                    versions = {version: {**manifest, "dist": dist}}
                    self._send(
                        200, json.dumps({"name": name, "dist-tags": {"latest": version}, "versions": versions}).encode()
                    )
                else:
                    self._send(404, b"{}")

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """For npm_config_registry."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "NpmRegistry":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
