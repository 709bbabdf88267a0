"""Versions in the repository: append-only, whole or absent, promoted and rolled back."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import export_publisher
from export_publisher import publish
from naiad.export import (
    ContractChanged,
    CorruptVersion,
    InvalidExport,
    InvalidModel,
    InvalidName,
    ModelNotFound,
    NothingToRollBack,
    NotWritable,
    OutOfSpace,
    Repository,
    VersionNotFound,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def contents(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.name != ".lock")


def assert_whole(root: Path) -> None:
    """Every version is what its manifest says, and every model serves versions that exist."""
    repo = Repository(root)
    for path in root.iterdir():
        assert path.is_file() or (path / "config.pbtxt").is_file(), f"{path} would not load"
    for model in repo.models():
        assert repo.served(model)
        assert repo.config(model).name == model
        for number in repo.versions(model):
            assert repo.verify(model, number).problems == ()


class TestPublish:
    def test_versions_count_up_and_the_newest_is_served(self, root: Path) -> None:
        """Each publication is the next version; the ones before stay."""
        assert [publish(root).number for _ in range(3)] == [1, 2, 3]
        repo = Repository(root)
        assert (repo.models(), repo.versions("some"), repo.served("some")) == (("some",), (1, 2, 3), (3,))

    def test_without_promotion_the_served_version_stays(self, root: Path) -> None:
        """A version that is not promoted is there and not served; the first of a model always is."""
        assert publish(root, promote=False).number == 1
        assert publish(root, promote=False).number == 2
        assert Repository(root).served("some") == (1,)

    def test_a_number_is_never_used_again(self, root: Path) -> None:
        """A removed version's number, and one that Triton would read from a stray directory, are not given again."""
        publish(root)
        publish(root)
        for name in ("2/model.onnx", "2/golden.npz", "2/manifest.json"):
            (root / "some" / name).unlink()
        (root / "some" / "2").rmdir()
        assert publish(root).number == 3
        (root / "some" / "7.tmp").mkdir()
        assert publish(root).number == 8

    def test_everybody_may_read_what_was_published(self, root: Path) -> None:
        """The modes follow the umask, though the stage was private: a server of another user must read them."""
        before = os.umask(0o022)
        try:
            version = publish(root)
        finally:
            os.umask(before)
        assert version.path.stat().st_mode & 0o777 == 0o755
        assert version.path.parent.stat().st_mode & 0o777 == 0o755
        assert (version.path / "model.onnx").stat().st_mode & 0o777 == 0o644

    def test_settings_reach_an_existing_model_and_the_rest_is_kept(self, root: Path) -> None:
        """A configuration that its owner tuned keeps its values; what this export asks for by name is applied."""
        publish(root, settings={"dynamic_batching.max_queue_delay_microseconds": 5})
        repo = Repository(root)
        config = root / "some" / "config.pbtxt"
        config.write_text(config.read_text() + "instance_group { count: 3 }\n")
        publish(root, settings={"dynamic_batching.preferred_batch_size": [4, 8]})
        assert repo.config("some").instance_group[0].count == 3
        assert list(repo.config("some").dynamic_batching.preferred_batch_size) == [4, 8]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_batch_size": 3}, "cannot be set: give max_batch_size to the export"),
            ({"dynamic_batching.nonsense": 3}, "no field 'dynamic_batching.nonsense'"),
            ({"nonsense.more": 3}, "there is no field 'nonsense.more'"),
            ({"dynamic_batching.max_queue_delay_microseconds": "soon"}, "'soon' does not fit"),
        ],
    )
    def test_wrong_settings_are_refused(self, root: Path, settings: dict[str, object], message: str) -> None:
        """A field that does not exist, is derived or has another type is named, and nothing is published."""
        publish(root)
        before = contents(root)
        with pytest.raises(InvalidExport, match=message):
            publish(root, settings=settings)
        assert contents(root) == before

    @pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "n$(touch x)", "-x", "a" * 129])
    def test_unsafe_names_are_refused(self, root: Path, name: str) -> None:
        """A name that a shell or the server would misread is refused."""
        with pytest.raises(InvalidName, match="is not a model name"):
            publish(root, name)

    @pytest.mark.parametrize("change", [{"dims": 5}, {"labels": ("a", "b", "c")}])
    def test_a_changed_contract_is_refused(self, root: Path, change: dict[str, object]) -> None:
        """Other dims or labels than the published versions have need a new name."""
        publish(root)
        before = contents(root)
        with pytest.raises(ContractChanged, match=r"Nothing was published: .*new name"):
            publish(root, **change)  # type: ignore[arg-type]
        assert contents(root) == before

    def test_a_directory_that_is_not_a_model_is_left_alone(self, root: Path) -> None:
        """A directory of that name without a configuration is reported, not filled."""
        (root / "some" / "1").mkdir(parents=True)
        with pytest.raises(InvalidModel, match=r"exists without a config\.pbtxt"):
            publish(root)
        assert contents(root) == ["some", "some/1"]


class TestServe:
    def test_promote_and_rollback_change_what_is_served(self, root: Path) -> None:
        """Rolling back goes one promotion back each time, until there is nothing before."""
        for _ in range(3):
            publish(root)
        repo = Repository(root)
        assert repo.promote("some", 1, 2) == (1, 2)
        assert repo.served("some") == (1, 2)
        assert repo.rollback("some") == (3,)
        assert repo.rollback("some") == (2,)
        assert repo.rollback("some") == (1,)
        with pytest.raises(NothingToRollBack, match="serves 1 and no earlier state"):
            repo.rollback("some")
        assert repo.served("some") == (1,)

    def test_rollback_after_a_change_by_hand_or_a_torn_journal(self, root: Path) -> None:
        """A state that the journal does not know is rolled back to the last one it does; a torn line is passed over."""
        for _ in range(3):
            publish(root)
        with (root / "journal.jsonl").open("a") as journal:
            journal.write('{"time": "2026-')
        config = root / "some" / "config.pbtxt"
        config.write_text(config.read_text().replace("versions: 3", "versions: 1"))
        repo = Repository(root)
        assert repo.rollback("some") == (3,)
        assert repo.rollback("some") == (2,)

    def test_the_journal_has_who_when_and_what(self, root: Path) -> None:
        """Each act is one line with the versions served before and after."""
        publish(root)
        publish(root)
        Repository(root).rollback("some")
        entries = Repository(root).history("some")
        assert [(entry.action, entry.before, entry.after) for entry in entries] == [
            ("publish", (), (1,)),
            ("publish", (1,), (2,)),
            ("rollback", (2,), (1,)),
        ]
        assert all(entry.user and entry.time for entry in entries)

    def test_only_the_version_policy_changes(self, root: Path) -> None:
        """Promoting leaves every other field of the configuration as it was."""
        publish(root)
        publish(root, promote=False)
        repo = Repository(root)
        before = repo.config("some")
        repo.promote("some", 2)
        after = repo.config("some")
        assert list(after.version_policy.specific.versions) == [2]
        after.version_policy.CopyFrom(before.version_policy)
        assert after == before

    @pytest.mark.parametrize("policy", ["", "version_policy: { specific: { versions: [1] } }\n"])
    def test_comments_in_a_configuration_stay(self, root: Path, policy: str) -> None:
        """An operator's comments survive a promotion."""
        publish(root)
        publish(root, promote=False)
        config = root / "some" / "config.pbtxt"
        config.write_text(
            f'# tuned in May\nname: "some" {policy and chr(10)}{policy}backend: "onnxruntime" # {{ really\n'
        )
        repo = Repository(root)
        repo.promote("some", 2)
        assert repo.served("some") == (2,)
        assert config.read_text().startswith("# tuned in May\nname:")
        assert "# { really" in config.read_text()

    def test_a_changed_file_is_found_and_not_promoted(self, root: Path) -> None:
        """`verify` names files that are changed, missing or new, and such a version cannot be promoted."""
        version = publish(root)
        publish(root)
        (version.path / "model.onnx").write_bytes(b"other")
        (version.path / "golden.npz").unlink()
        (version.path / "extra").write_text("?")
        repo = Repository(root)
        problems = " | ".join(repo.verify("some", 1).problems)
        assert "golden.npz is missing" in problems
        assert "extra is not in the manifest" in problems
        assert "model.onnx was changed" in problems
        with pytest.raises(CorruptVersion, match="is not what was published"):
            repo.promote("some", 1)
        assert repo.served("some") == (2,)

    def test_what_is_not_there_is_named(self, root: Path) -> None:
        """An unknown repository, model or version says what there is instead."""
        repo = Repository(root)
        with pytest.raises(ModelNotFound, match="no model repository"):
            repo.models()
        publish(root)
        with pytest.raises(ModelNotFound, match=r"no model 'other' in .*it has: some"):
            repo.served("other")
        with pytest.raises(VersionNotFound, match="some has no version 9; it has 1"):
            repo.promote("some", 9)

    @pytest.mark.parametrize(
        ("policy", "served"),
        [
            ("", (3,)),
            ("version_policy { latest { num_versions: 2 } }", (2, 3)),
            ("version_policy { latest {} }", ()),
            ("version_policy { all {} }", (1, 2, 3)),
            ("version_policy { specific { versions: [1, 9] } }", (1,)),
        ],
    )
    def test_every_policy_is_understood(self, root: Path, policy: str, served: tuple[int, ...]) -> None:
        """What is served follows Triton's rules also for a configuration that was written by hand."""
        for number in ("1", "2", "3", "007", "abc"):
            (root / "hand" / number).mkdir(parents=True)
        (root / "hand" / "config.pbtxt").write_text(f'name: "hand" backend: "onnxruntime" {policy}')
        repo = Repository(root)
        assert repo.served("hand") == served
        assert repo.promote("hand", 2) == (2,)

    def test_a_broken_configuration_is_named_with_its_line(self, root: Path) -> None:
        """A config.pbtxt that is not one gives the file, the line and the reason."""
        publish(root)
        (root / "some" / "config.pbtxt").write_text('name: "some"\nnonsense: 3\n')
        with pytest.raises(InvalidModel, match=r"config\.pbtxt is not a Triton model configuration: 2:1"):
            Repository(root).served("some")


class TestDisaster:
    def test_killed_while_publishing(self, root: Path) -> None:
        """Whenever an export is killed, the repository has whole versions only, and the next export cleans up."""
        script = export_publisher.__file__
        assert script is not None
        for point in range(12):
            command = [sys.executable, script, str(root), "some", "1000", "3000000"]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()  # it is publishing now, one version after another
                try:
                    process.wait(timeout=0.003 + 0.017 * point)  # a moment that falls anywhere in a publication
                except subprocess.TimeoutExpired:
                    process.kill()
            assert_whole(root)
        publish(root)
        assert_whole(root)
        assert [path.name for path in root.parent.iterdir()] == ["models"]

    def test_interrupted_while_publishing(self, root: Path) -> None:
        """Ctrl-C leaves whole versions, and nothing that the next export would not remove."""
        assert export_publisher.__file__ is not None
        command = [sys.executable, export_publisher.__file__, str(root), "some", "1000", "3000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=60)
        assert b"KeyboardInterrupt" in log
        assert_whole(root)
        publish(root)
        assert [path.name for path in root.parent.iterdir()] == ["models"]

    def test_concurrent_exports_get_different_numbers(self, root: Path) -> None:
        """Eight processes publish the same model at once: every number is given once, and every version is whole."""
        assert export_publisher.__file__ is not None
        command = [sys.executable, export_publisher.__file__, str(root), "some", "4", "100000"]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(8)]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * 8
        numbers = sorted(int(number) for output in outputs for number in output.split())
        assert numbers == list(range(1, 33))
        assert Repository(root).versions("some") == tuple(numbers)
        assert sorted(entry.version or 0 for entry in Repository(root).history("some")) == numbers
        assert Repository(root).audit().problems == ()
        assert_whole(root)

    def test_a_full_disk_publishes_nothing(self, tmp_path: Path) -> None:
        """A disk that fills up while a version is written gives one clear error, and leaves what was there."""
        script = Path(__file__).with_name("full_disk.py")
        for command in _small_disks(tmp_path):
            done = subprocess.run([*command, sys.executable, script, tmp_path / "disk"], capture_output=True, text=True)
            if done.returncode != _NOT_PERMITTED:
                break
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["errors"]
        assert all("no space left" in error for error in answer["errors"])
        assert answer["changed"] == []
        assert answer["problems"] == []
        assert answer["served"] == answer["versions"][-1:]

    def test_a_repository_without_permission(self, tmp_path: Path) -> None:
        """A repository of another user is refused before anything is staged."""
        root = tmp_path / "models"
        publish(root)
        before = contents(tmp_path)
        tmp_path.chmod(0o555)
        root.chmod(0o555)
        (root / ".lock").chmod(0o444)
        try:
            error = _as_ordinary_user(root)
        finally:
            tmp_path.chmod(0o755)
            root.chmod(0o755)
        assert isinstance(error, NotWritable)
        assert "cannot write to the model repository" in str(error)
        assert contents(tmp_path) == before


def test_errors_survive_pickling() -> None:
    """An error that crosses a process keeps its message and its fields."""
    error = CorruptVersion("broken", model="some", version=3, problems=("gone",))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.model, copy.version, copy.problems) == ("broken", "some", 3, ("gone",))
    assert isinstance(pickle.loads(pickle.dumps(OutOfSpace("full"))), OutOfSpace)


_NOT_PERMITTED = 77


def _small_disks(tmp_path: Path) -> list[list[str]]:
    """Return prefixes that give the script a disk of two megabytes: a private tmpfs, or else a limit on file sizes."""
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=2m none '{tmp_path}/disk' || exit {_NOT_PERMITTED}; exec \"$@\""
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    allowed = subprocess.run([*namespace, "true"], capture_output=True).returncode == 0
    limit = ["sh", "-c", 'ulimit -f 2048; exec "$@"', "sh"]
    return [namespace, limit] if allowed else [limit]


def _as_ordinary_user(root: Path) -> BaseException | None:
    """Publish in a forked child as a user without privileges, whose error comes back."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        error: BaseException | None = None
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)
            publish(root)
        except BaseException as exc:
            exc.__cause__ = exc.__context__ = None
            error = exc.with_traceback(None)
        os.write(writer, pickle.dumps(error))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.read()
    os.waitpid(child, 0)
    found = pickle.loads(data)
    assert found is None or isinstance(found, BaseException)
    return found
