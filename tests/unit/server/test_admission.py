"""How long requests would wait for a dead process."""

import pytest

from naiad.server._admission import _wait_s

BATCHED = {"dynamic_batching": {}, "max_batch_size": 8}


@pytest.mark.parametrize(
    ("config", "wait_s"),
    [({}, 16.0), ({"max_batch_size": 8}, 16.0), (BATCHED, 2.0), ({"instance_group": [{"count": 2}]}, 0.0)],
    ids=["one by one", "not batched by the server", "in batches", "beside a living instance"],
)
def test_a_dead_process_takes_a_second_for_each_batch(config: dict[str, object], wait_s: float) -> None:
    """Sixteen requests wait sixteen seconds, fewer where they are batched, and none where another instance lives."""
    assert _wait_s(config, 16) == wait_s
