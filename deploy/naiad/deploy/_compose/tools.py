"""`naiad` itself on the internal network, for those who look after the service."""

from naiad.deploy._compose.container import USER, container, scratch, volume
from naiad.deploy._compose.document import Fields
from naiad.deploy._compose.monitoring import TRACES


def tools() -> Fields:
    """The container, which runs only when asked for: `docker compose run --rm tools …`."""
    fields = container(
        "naiad-tools",
        user=USER,
        memory="4g",
        num_processes=512,
        stop_s=10,
        build={"context": ".", "dockerfile": "deploy/Dockerfile"},
        profiles=["tools"],
        networks=["inference"],
        volumes=[{**volume(TRACES, "/traces"), "read_only": True}],
        tmpfs=[scratch("/tmp", size="256m")],  # noqa: S108
        init=True,
    )
    return {**fields, "restart": "no"}
