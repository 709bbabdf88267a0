"""After kills at any moment the real Triton loads what the repository says, from a directory and from S3."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import export_killer
from export_helpers import Scores, rows
from export_kills import kills
from export_publisher import publish, publish_again
from export_validity import assert_servable
from naiad.export import Repository, export
from naiad.server import EmbeddedTriton, RepositoryNotFound, UnknownModel

X = rows(3, 4)


@pytest.fixture(scope="module")
def scores() -> torch.nn.Module:
    return Scores().eval()


@pytest.fixture(scope="module")
def repository(scores: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A model that Triton can run, in a repository whose path has spaces."""
    repo = Repository(tmp_path_factory.mktemp("killed") / "my models")
    export(scores, export_killer.MODEL, samples=[(rows(8, 4),)], repository=repo, max_batch_size=8)
    return repo


def assert_answers(triton: EmbeddedTriton, repository: Repository, scores: torch.nn.Module) -> None:
    """Triton loads the model, serves exactly what the repository says, and each version answers as PyTorch does."""
    with triton.client() as client, torch.no_grad():
        client.load(export_killer.MODEL)
        expected, served = scores(X).numpy(), repository.served(export_killer.MODEL)
        for number in repository.versions(export_killer.MODEL):
            assert client.ready(export_killer.MODEL, number) == (number in served)
            if number in served:
                model = client.model(export_killer.MODEL, version=str(number))
                np.testing.assert_allclose(model(x=X.numpy())["output"], expected, rtol=1e-4, atol=1e-6)


def test_fifty_kills_in_a_directory(repository: Repository, scores: torch.nn.Module) -> None:
    """The repository is valid after each of fifty kills, and Triton serves it after every tenth."""
    with EmbeddedTriton(repository.path) as triton:
        for count, _ in enumerate(kills(repository.path, "moments", 50, int(time.time())), start=1):
            assert_servable(repository.path)
            if count % 10 == 0:
                assert_answers(triton, repository, scores)


def test_a_bucket_is_served(bucket_url: str, scores: torch.nn.Module) -> None:
    """Triton reads the bucket itself, follows promotions there, and never sees what killed exports left."""
    repo = Repository(bucket_url)
    export(scores, export_killer.MODEL, samples=[(rows(8, 4),)], repository=repo, max_batch_size=8)
    assert repo.lint() == ()
    with EmbeddedTriton(bucket_url, watch=True) as triton:
        assert triton.models == (export_killer.MODEL,)
        assert_answers(triton, repo, scores)
        for _ in kills(bucket_url, "moments", 5, int(time.time())):
            assert_servable(bucket_url)
        assert_answers(triton, repo, scores)
        number = publish_again(repo, export_killer.MODEL, promote=True).number
        with triton.client() as client:
            end = time.monotonic() + 60
            while not client.ready(export_killer.MODEL, number):
                assert time.monotonic() < end, triton.log_tail()
                time.sleep(0.1)


def test_a_bucket_that_cannot_be_served_is_refused(bucket_url: str) -> None:
    """An empty one, and a model that it does not hold, are named before Triton starts."""
    with pytest.raises(RepositoryNotFound, match=rf"Expected models at {bucket_url}, found none"):
        EmbeddedTriton(bucket_url).start()
    publish(bucket_url)
    with pytest.raises(UnknownModel, match=r"Expected model 'none' in s3://.*, found some"):
        EmbeddedTriton(bucket_url, models=["none"]).start()
