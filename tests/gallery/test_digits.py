"""The digits, as a run of the gallery: `make test` runs the same demo as the README's first command."""

from naiad.export import Repository


def test_the_digits_are_served_as_they_were_trained(demo_of):
    """As accurate served as in PyTorch, no request lost while versions changed, and the first version serves again."""
    run = demo_of("digits")
    found = run.found
    assert found["accuracy_served"] == found["accuracy_pytorch"] >= 0.97
    assert found["switch_failed"] == 0
    assert (run.report / "report.html").stat().st_size > 50_000
    assert Repository(run.repository).served("digits") == (1,)
