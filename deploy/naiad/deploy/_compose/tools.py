"""`naiad` itself on the internal network, for those who look after the service."""

from naiad.deploy._compose.container import USER, container, scratch
from naiad.deploy._compose.document import Fields


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
        tmpfs=[scratch("/tmp", size="256m")],  # noqa: S108
        init=True,
    )
    return {**fields, "restart": "no"}
