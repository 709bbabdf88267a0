"""Reasons are found in what Triton says."""

import pytest

from naiad.server import _log

LOG = """\
E1122 01:46:58.652687 25213 model_repository_manager.cc:1460] "Poll failed for model directory 'misnamed': unexpected \
directory name 'misnamed' for model 'other', directory name must equal model name"
[libprotobuf ERROR /tmp/build/text_format.cc:337] Error parsing text-format inference.ModelConfig: 2:9: Expected ":", \
found ""python"".
E1122 01:46:58.652756 25213 model_repository_manager.cc:1460] "Poll failed for model directory 'syntax': failed to \
read text proto from /tmp/x/repository/syntax/config.pbtxt"
E1122 01:46:58.652838 25213 model_repository_manager.cc:724] "failed to load model 'noversion': at least one version \
must be available under the version policy of model 'noversion'"
I1122 02:03:16.640509 1724 pb_stub.cc:2105]  Failed to preinitialize Python stub: Python model file not found in 'x'
"""


def test_refused_models_are_found_with_their_reasons() -> None:
    """Models that Triton did not try to load stand in the log only, a syntax error in a line before."""
    assert _log.refused_models(LOG) == {
        "misnamed": "unexpected directory name 'misnamed' for model 'other', directory name must equal model name",
        "syntax": "failed to read text proto from /tmp/x/repository/syntax/config.pbtxt "
        '(2:9: Expected ":", found ""python"".)',
        "noversion": "at least one version must be available under the version policy of model 'noversion'",
    }


def test_what_a_dying_stub_said_is_found() -> None:
    """Its last words are in the server's log."""
    assert _log.stub_complaints(LOG) == ["Failed to preinitialize Python stub: Python model file not found in 'x'"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Internal: TritonModelException: no weights\n\nAt:\n  /be/model.py(12): initialize\n", "no weights"),
        (
            "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: RuntimeError: x;\n",
            "RuntimeError: x",
        ),
        ('Traceback (most recent call last):\n  File "m.py", line 1\n    x\nValueError: bad\n', "ValueError: bad"),
        ("", ""),
    ],
)
def test_the_reason_is_freed_from_its_wrappings(message: str, reason: str) -> None:
    """Traceback, places and repeated prefixes are left out."""
    assert _log.reason_in(message) == reason


def test_a_taken_port_is_recognised() -> None:
    """Triton's words for a port in use give its number."""
    said = "failed to start GRPC service: Unavailable - Socket '127.0.0.1:19001' already in use"
    assert (_log.port_taken(said), _log.port_taken("all is well")) == (19001, None)


def test_usage_is_not_shown() -> None:
    """Of a refused command line only the complaint is worth showing."""
    assert _log.essence("unrecognized option '--x'\nUsage: tritonserver [options]\n  --help\n", 5) == (
        "unrecognized option '--x'"
    )
