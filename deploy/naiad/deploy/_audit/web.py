"""Asks over HTTP."""

import contextlib
import json
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from naiad.deploy._audit.answer import Answer, Reach, expected_header, http_answer
from naiad.deploy._audit.requests import ODD_MODEL, Request
from naiad.deploy._audit.target import Target, join

_MAX_BYTES: Final = 4 << 20


class Web:
    """A connection for probes; certificates are judged elsewhere, so it takes any."""

    over: Final = "HTTP"

    def __init__(self, target: Target, *, secure: bool, port: int | None = None) -> None:
        address = join(target.host, target.port if port is None else port)
        self._client = httpx.Client(
            base_url=f"{'https' if secure else 'http'}://{address}",
            verify=_context(target) if secure else False,
            timeout=target.timeout_s,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send one request."""
        return self._send(request.verb, request.path, headers, request.content)

    def get(self, path: str) -> Answer:
        """Fetch a page."""
        return self._send("GET", path, {}, None)

    def ask_with_secret(self, request: Request, secret: str) -> Answer:
        """Send it as an identity; as Triton's administrator, where Triton asks for that."""
        answer = self.ask(request, {"authorization": f"Bearer {secret}"})
        header = expected_header(answer)
        return self.ask(request, {header: secret}) if header else answer

    def send_large(self, size_bytes: int, headers: Mapping[str, str]) -> Answer:
        """Send a request that a server with limits refuses."""
        return self._send("POST", f"/v2/models/{ODD_MODEL}/infer", headers, bytes(size_bytes))

    def _send(self, verb: str, path: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        try:
            with self._client.stream(verb, path, headers=dict(headers), content=content) as reply:
                return http_answer(reply.status_code, *_body(reply))
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            return Answer(status=type(exc).__name__, reach=Reach.SILENT, text=str(exc))


def _body(reply: httpx.Response) -> tuple[str, Any]:
    data = b""
    for part in reply.iter_bytes():
        data += part
        if len(data) > _MAX_BYTES:
            break
    text = data.decode(errors="replace")
    with contextlib.suppress(ValueError):
        document = json.loads(text)
        message = document.get("error") if isinstance(document, dict) else None
        return str(message or text[:2000]), document
    return text[:200_000], None


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if target.client_certificate and target.client_key:
        context.load_cert_chain(target.client_certificate, target.client_key)
    return context
