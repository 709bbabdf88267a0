"""What tests ask the model `rows` of client_models on the side."""

import time

import pytest

from naiad.client import Client, DeadlineExceeded


def wait_until_busy(url: str) -> None:
    """Return when the model's one instance works on somebody's request: another one then waits in the queue."""
    with Client(url) as other:
        for _ in range(200):
            try:
                other.model("rows").infer({"x": [[0]]}, timeout_s=0.2)
            except DeadlineExceeded:
                return
    pytest.fail("the request never began")


def num_cancelled(url: str) -> int:
    """Return how many requests were cancelled while the model worked on them; waits until it works on none."""
    with Client(url) as other:
        return int(other.model("rows")(x=[[0]])["cancelled"][0, 0])


def num_requests(url: str, model: str) -> int:
    """Return how many requests the server ran or refused to run."""
    with Client(url) as other:
        return sum(entry.success.count + entry.fail.count for entry in other.statistics(model))


def wait_until_idle(client: Client) -> None:
    """Return when none of the client's calls is outstanding: a cancelled one ends in the connection's own thread."""
    for _ in range(1000):
        if not any(server.outstanding for server in client.servers):
            return
        time.sleep(0.01)
    pytest.fail(f"calls are outstanding: {client.servers}")
