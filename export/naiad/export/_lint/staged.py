"""Candidates as Triton would find them once they are published, linted before they are."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._check.targets import Target
from naiad.export._configure import settings as _settings
from naiad.export._lint.lint import lint
from naiad.export._lint.problem import CONFIG
from naiad.export._repository import calls as _calls
from naiad.export._repository import config as _config
from naiad.export.errors import CheckFailed
from naiad.export.report import Finding, LintFinding, Report
from naiad.export.repository import Candidate, Repository

_NUMBER = 1


def check(
    candidate: Candidate, report: Report, repository: Repository, stage: Path, target: Target
) -> tuple[Candidate, Report]:
    """Return a candidate and its report with what the linter warns of, after refusing what would not load.

    Raises:
        CheckFailed: With one sentence for each reason.
    """
    warnings = check_all([candidate], repository, stage, target)
    report = replace(report, findings=(*report.findings, *warnings, *target.findings()))
    manifest = {**candidate.manifest, "target": target.to_dict(), "report": report.to_dict()}
    return replace(candidate, manifest=manifest), report


def check_all(
    candidates: Sequence[Candidate], repository: Repository, stage: Path, target: Target
) -> tuple[Finding, ...]:
    """Lint candidates that belong together, such as an ensemble and its steps, and return what is worth knowing.

    Raises:
        CheckFailed: With one sentence for each reason.
    """
    place = stage / "lint"
    place.mkdir()
    try:
        for candidate in candidates:
            _lay_out(candidate, _served_config(candidate, repository), place / candidate.model)
        found = lint(place, target=target)
    finally:
        shutil.rmtree(place)
    errors = tuple(_sentence(each, candidates) for each in found if each.severity == "error")
    if errors:
        model = candidates[-1].model
        raise CheckFailed(
            f"{model} cannot be published, {target} would refuse it: {'; '.join(errors)}", model=model, findings=errors
        )
    return tuple(Finding(check="lint", message=_sentence(each, candidates)) for each in found)


def _served_config(candidate: Candidate, repository: Repository) -> Any:
    """Return the configuration that will be in force: an existing model keeps its own, see `Candidate.settings`."""
    config = model_config_pb2.ModelConfig()
    if candidate.model not in repository.models():
        config.CopyFrom(candidate.config)
        return config
    config.CopyFrom(repository.config(candidate.model))
    _settings.apply(config, candidate.settings)
    config.ClearField("model_warmup")  # its data and the labels lie in the repository, and were linted with version 1
    for output in config.output:
        output.ClearField("label_filename")
    return config


def _lay_out(candidate: Candidate, config: Any, directory: Path) -> None:
    """Make a model's directory out of a candidate's files."""
    directory.mkdir()
    _config.serve(config, (_NUMBER,))
    for step in config.ensemble_scheduling.step:
        step.model_version = -1  # which version it will be is known when it is published
    if calls := _calls.staged(candidate.files, _NUMBER):
        _calls.describe(config, calls)
    (directory / CONFIG).write_text(_config.to_text(config), encoding="utf-8")
    (directory / str(_NUMBER)).symlink_to(candidate.files.absolute(), target_is_directory=True)
    if (
        candidate.labels.is_dir()
    ):  # copied: Triton follows links, and what they lead to is outside the model's directory
        shutil.copytree(candidate.labels, directory, dirs_exist_ok=True)


def _sentence(found: LintFinding, candidates: Sequence[Candidate]) -> str:
    """Return a finding in one sentence, with the model's name where there are several."""
    place = [found.model] if len(candidates) > 1 else []
    return f"{', '.join(filter(None, (*place, found.field)))}: {found.message}; {found.fix}".removeprefix(": ")
