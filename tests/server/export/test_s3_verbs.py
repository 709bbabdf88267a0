"""Signatures, comparisons, the journal and golden pairs of a repository in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.export import NotTrusted, Repository, generate_keys
from naiad.export._repository.bucket import Bucket
from naiad.export._repository.s3 import parse_url
from naiad.server import EmbeddedTriton
from verbs_helpers import publish_graph


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    generate_keys(tmp_path / "a.pem", tmp_path / "a.pub")
    return tmp_path


def test_versions_are_signed_and_compared(bucket_url: str, keys: Path) -> None:
    """A signature is added and required, and two versions are run with the requests of both."""
    repo = Repository(bucket_url)
    for seed in range(2):
        publish_graph(repo, seed=seed)
    strict = Repository(bucket_url, require_signature=keys / "a.pub", sign_key=keys / "a.pem")
    with pytest.raises(NotTrusted):
        strict.promote("linear", 1)
    repo.sign("linear", 1, keys / "a.pem")
    assert repo.verify("linear", 1, key=keys / "a.pub").ok
    assert strict.promote("linear", 1) == (1,)
    assert publish_graph(strict).number == 3
    assert repo.verify("linear", 3, key=keys / "a.pub").ok
    found = repo.diff("linear", 1, 2)
    assert (found.note, found.num_requests) == ("", 3)
    assert [version.is_rollback for version in repo.overview("linear").versions] == [True, False, False]


def test_a_changed_journal_is_found(bucket_url: str) -> None:
    """The chain of hashes is the same in a bucket."""
    repo = Repository(bucket_url)
    for _ in range(2):
        publish_graph(repo)
    repo.rollback("linear", reason="first thought")
    assert repo.audit().problems == ()
    bucket = Bucket(*parse_url(bucket_url))
    found = bucket.get("journal.jsonl")
    assert found is not None
    bucket.put("journal.jsonl", found.data.replace(b"first thought", b"second thought"))
    assert repo.audit().problems == ("line 3 was edited: it does not have the hash that it states",)


def test_golden_pairs_come_from_the_bucket(bucket_url: str, tmp_path: Path) -> None:
    """A server anywhere is held against the versions in the bucket; a comparison crosses repositories."""
    repo, local = Repository(bucket_url), Repository(tmp_path / "models")
    for seed in range(2):
        publish_graph(repo, seed=seed)
    publish_graph(local, seed=0)
    with EmbeddedTriton(local.path) as server:
        first, second = repo.verify_served("linear", server.grpc_url, 1, 2)
    assert (first.ok, second.ok) == (True, False)
    assert [each.num_changed for each in repo.diff("linear", 1, 1, other=local).answers] == [0]
