"""One real Triton for all tests of serving and of failing loads, one with auto-complete for those of completion."""

from collections.abc import Iterator

import pytest

from backend_helpers import Caller, write_broken_models, write_incomplete_models, write_serving_models
from naiad.server import EmbeddedTriton

READY_TIMEOUT_S = 150.0


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Calls a Triton with many models, some broken; nothing but the tests' own requests reaches them."""
    folder = tmp_path_factory.mktemp("backend")
    path = folder / "model_repository"
    path.mkdir()
    write_serving_models(path)
    write_broken_models(path, folder / "environment")
    options = {"supervise": False, "exit_on_load_error": False, "ready_timeout_s": READY_TIMEOUT_S}
    with EmbeddedTriton(path, response_cache_bytes=1 << 20, **options) as triton:
        caller = Caller(triton)
        yield caller
        caller.close()


@pytest.fixture(scope="session")
def completing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Calls a Triton that completes configurations."""
    path = tmp_path_factory.mktemp("completion") / "model_repository"
    path.mkdir()
    write_incomplete_models(path)
    options = {"supervise": False, "exit_on_load_error": False, "ready_timeout_s": READY_TIMEOUT_S}
    with EmbeddedTriton(path, auto_complete=True, **options) as triton:
        caller = Caller(triton)
        yield caller
        caller.close()
