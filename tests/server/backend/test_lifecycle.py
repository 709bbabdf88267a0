"""Versions, instances, warm-up, cache, files and session settings."""

import numpy as np
import pytest

from backend_helpers import Caller

X = np.array([[1, 2, 3]], np.float32)


@pytest.mark.parametrize("version", [1, 2])
def test_versions_answer_side_by_side(serving: Caller, version: int) -> None:
    """Each version runs its own file."""
    np.testing.assert_array_equal(serving("versions", {"x": X}, model_version=str(version))["y"], version * X)


def test_instances_share_the_load(serving: Caller) -> None:
    """Several instances of a model answer many requests at once, all correctly."""
    under_way = [serving.start("versions", {"x": number * X}, model_version="2")[0] for number in range(40)]
    for number, future in enumerate(under_way):
        np.testing.assert_array_equal(future.result(60)["y"], 2 * number * X)


def test_warm_up_ran_before_the_first_request(serving: Caller) -> None:
    """The configured warm-up requests were executed at the load."""
    serving.statistics("warmed", lambda stats: stats.success.count >= 3)


def test_response_cache_answers_the_second_time(serving: Caller) -> None:
    """An equal request is answered from the cache."""
    hits = serving.statistics("warmed").cache_hit.count
    for _ in range(2):
        np.testing.assert_array_equal(serving("warmed", {"x": X})["y"], 2 * X)
    serving.statistics("warmed", lambda stats: stats.cache_hit.count == hits + 1)


def test_settings_file_name_and_external_data_are_honoured(serving: Caller) -> None:
    """A model with another file name, external weights, and every parameter set loads and answers."""
    np.testing.assert_array_equal(serving("settled", {"x": X})["y"], 2 * X)
