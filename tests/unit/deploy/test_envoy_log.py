"""What is read out of Envoy's log."""

from pathlib import Path

from naiad.deploy._envoy import log

PLACE = "[2026-01-02 03:04:05.678][12]"
REFUSED = (
    f"{PLACE}[warning][config] [source/subscription.cc:81] Filesystem config update rejected: goo.gle/debugonly    \n"
    'cluster_name: "main-grpc"\nendpoints {\n}\n'
    ": Proto constraint validation failed (PortValue: value must be less than or equal to 65535)\n"
)


def test_complaints_are_told_without_times_and_places_and_once() -> None:
    """Information and what is only noise are left out."""
    lines = [
        f"{PLACE}[info][main] [source/server.cc:1] starting",
        f"{PLACE}[warning][config] [source/a.cc:1] the key does not fit",
        f"{PLACE}[critical][main] [source/b.cc:2] cannot go on",
        f"{PLACE}[warning][config] [source/a.cc:1] the key does not fit",
        f"{PLACE}[warning][main] [source/server.cc:2] caught ENVOY_SIGTERM",
    ]
    assert log.complaints("\n".join(lines)) == ["the key does not fit", "cannot go on"]


def test_a_complaint_of_several_lines_is_told_without_the_dump_of_the_message() -> None:
    """The reason comes at the end."""
    (complaint,) = log.complaints(REFUSED)
    assert complaint.endswith("less than or equal to 65535)")
    assert "main-grpc" not in complaint


def test_a_long_complaint_keeps_its_beginning_and_its_end() -> None:
    """Nobody reads pages of it."""
    (complaint,) = log.complaints(f"{PLACE}[error][main] [source/a.cc:1] begin {'x' * 5000} end")
    assert complaint.startswith("begin")
    assert complaint.endswith("end")
    assert len(complaint) < 1000


def test_a_program_that_only_says_something_is_quoted() -> None:
    """Where nothing looks like Envoy's log, the last lines are shown."""
    assert log.essence("one\ntwo\n") == "one\ntwo"


def test_a_port_that_is_taken_is_found() -> None:
    """For a listener of the bootstrap and for one from a file."""
    said = "error adding listener: cannot bind '127.0.0.1:4711': Address already in use"
    assert log.port_taken(said) == 4711
    assert log.port_taken("all is well") is None


def test_the_log_is_read_from_where_a_run_began(tmp_path: Path) -> None:
    """What an earlier run said is not this one's reason."""
    path = tmp_path / "envoy.log"
    assert log.text(path) == ""
    assert log.size(path) == 0
    path.write_text("before")
    start = log.size(path)
    path.write_text("beforeafter")
    assert log.text(path, start) == "after"
