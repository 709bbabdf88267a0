"""Command lines of Triton's, judged."""

import pytest

from naiad.deploy._audit.arguments import Arguments, judge_arguments
from naiad.deploy._audit.finding import Severity

ALL = "model-repository,shared-memory,trace,logging"
GUARDED = [f"--grpc-restricted-protocol={ALL}:k=$S", f"--http-restricted-api={ALL}:k=$S"]
SAFE = ["tritonserver", "--model-repository=/models", "--model-control-mode=none", "--disable-auto-complete-config",
        "--exit-on-error=true", "--strict-readiness=true", "--grpc-max-response-pool-size=64"]  # fmt: skip


def found(*more: str, embedded: bool = False) -> dict[str, Severity]:
    findings = judge_arguments(Arguments([*SAFE, *more]), "here", embedded=embedded)
    return {finding.id: finding.severity for finding in findings if finding.severity is not Severity.OK}


def test_a_safe_command_line_has_no_findings():
    """NVIDIA's guide, kept."""
    assert found() == {}


@pytest.mark.parametrize(
    ("more", "check", "severity"),
    [
        (["--model-control-mode=explicit"], "process-control-mode", Severity.HIGH),
        (["--model-control-mode", "poll"], "process-control-mode", Severity.HIGH),
        (["--model-control-mode=explicit", GUARDED[0]], "process-control-mode", Severity.HIGH),
        (["--model-control-mode=poll", *GUARDED], "process-control-mode", Severity.HIGH),
        ([f"--http-restricted-api={ALL}:admin-key=hunter2"], "process-secrets", Severity.MEDIUM),
        (["--exit-on-error=false"], "process-strictness", Severity.LOW),
        (["--exit-on-error", "false"], "process-strictness", Severity.LOW),
        (["--strict-readiness=0"], "process-strictness", Severity.LOW),
        (["--disable-auto-complete-config=false"], "process-strictness", Severity.LOW),
        (["--allow-sagemaker=true"], "process-endpoints", Severity.HIGH),
        (["--allow-vertex-ai", "1"], "process-endpoints", Severity.HIGH),
    ],
)
def test_each_unsafe_option_is_found(more, check, severity):
    """And nothing else with it."""
    assert found(*more) == {check: severity}


@pytest.mark.parametrize(
    "more",
    [
        ["--model-control-mode=explicit", *GUARDED],
        ["--model-control-mode=explicit", GUARDED[0], "--allow-http=false"],
        [f"--grpc-restricted-protocol={ALL}:admin-key=*****"],
        [f"--grpc-restricted-protocol={ALL}:admin-key={{key}}"],
        ["--allow-sagemaker=false"],
    ],
)
def test_what_is_guarded_is_not_found(more):
    """Explicit control with a secret in both protocols; secrets that were hidden; endpoints that are off."""
    assert found(*more) == {}


def test_an_unbounded_pool_is_found_where_grpc_is_on():
    """Answers pile up there."""
    check = "process-response-pool"
    alone = {finding.id: finding.severity for finding in judge_arguments(Arguments(SAFE[:-1]), "here")}
    assert alone[check] is Severity.LOW
    without = [*SAFE[:-1], "--allow-grpc=false"]
    assert {f.id: f.severity for f in judge_arguments(Arguments(without), "here")}[check] is Severity.OK


def test_the_launchers_own_way_of_starting_is_not_held_against_it():
    """It reports models that do not load by itself."""
    assert found("--exit-on-error=false", embedded=True) == {}


def test_options_are_read_as_triton_reads_them():
    """The last one counts; switches may come without a value; some may come several times."""
    arguments = Arguments(["--a", "1", "--a=2", "--on", "--model-repository=/x", "--model-store", "/y", "word"])
    assert arguments.last("--a", "0") == "2"
    assert arguments.is_on("--on", default=False)
    assert arguments.repositories == ("/x", "/y")
    assert "--on" in arguments
    assert "--off" not in arguments
    assert Arguments(["--exit-timeout-secs=45"]).exit_timeout_s == 45
    assert Arguments(["--exit-timeout-secs=$T"]).exit_timeout_s == 30
