"""More than the gateway can hold: it refuses, survives, and serves again."""

from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from gateway_helpers import channel, infer_message, open_service, status_of
from launcher_helpers import eventually
from naiad.deploy.gateway import Gateway
from naiad.deploy.service import Limits
from recording_upstream import RecordingUpstream

MEMORY_MB = 256
NUM_UPLOADS = 16
_MIB = 1 << 20


@pytest.mark.timeout(120)
def test_uploads_beyond_its_memory_do_not_end_the_gateway() -> None:
    """Sixteen uploads of 60 MiB at once meet a gateway that may use 256 MiB: it is neither killed nor restarted."""
    message = infer_message(extra_bytes=60 * _MIB)
    service = open_service(limits=Limits(memory_mb=MEMORY_MB))
    with (
        RecordingUpstream() as upstream,
        Gateway(service, endpoints={"main": [upstream.endpoint()]}, num_threads=1) as gateway,
        ThreadPoolExecutor(NUM_UPLOADS) as threads,
    ):

        def upload(_: int) -> str:
            with channel(gateway.grpc_url) as opened:
                return status_of(opened, message, timeout_s=60)

        pid = gateway.pid
        statuses = list(threads.map(upload, range(NUM_UPLOADS)))
        used_mb = psutil.Process(pid).memory_info().rss / _MIB
        assert "UNAVAILABLE" in statuses or "INTERNAL" in statuses
        assert used_mb < NUM_UPLOADS * 60
        with channel(gateway.grpc_url) as opened:
            eventually(lambda: status_of(opened, infer_message()) == "OK", "it serves again", 30)
        assert (gateway.pid, gateway.restarts) == (pid, 0)
