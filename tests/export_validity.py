"""What must hold of a repository at every moment, whatever was killed before."""

from __future__ import annotations

import re
from pathlib import Path

from naiad.export import Repository

_AT_ROOT = re.compile(r"\.lock|journal\.jsonl|\.claim-.*\.json")
_OF_MODEL = re.compile(r"config\.pbtxt|.*labels\.txt|warmup|[1-9][0-9]*")


def assert_servable(repository: str | Path, verified: set[tuple[str, int]] | None = None) -> None:
    """Every model serves what is there, every version is what its manifest says, and there is nothing else.

    Versions in `verified` are not read again; those that were read are added.
    """
    verified = set() if verified is None else verified
    repo = Repository(repository)
    for model in repo.models():
        config, served, versions = repo.config(model), repo.served(model), repo.versions(model)
        assert config.name == model
        assert served, f"{model} serves nothing"
        assert served == tuple(sorted(config.version_policy.specific.versions)), "it serves what is not there"
        assert set(served) <= set(versions)
        for number in versions:
            if (model, number) not in verified:
                assert repo.verify(model, number).problems == ()
                verified.add((model, number))
    if "://" not in repo.location:
        _assert_clean(repo.path)


def _assert_clean(root: Path) -> None:
    """Triton would take any other directory for a model, or for a version."""
    for path in root.iterdir():
        assert path.is_dir() or _AT_ROOT.fullmatch(path.name), f"{path} is in the repository"
        for entry in path.iterdir() if path.is_dir() else ():
            assert _OF_MODEL.fullmatch(entry.name), f"{entry} is in the model"
