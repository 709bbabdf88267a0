"""Signatures: who vouches for a version, and every way in which one does not hold."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from export_helpers import contents
from naiad.export import CorruptVersion, InvalidKey, InvalidModel, NotTrusted, Repository, generate_keys
from verbs_helpers import publish_graph


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the keys of a release and of a reviewer."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("release", "review"):
        generate_keys(directory / f"{name}.pem", directory / f"{name}.pub")
    return directory


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    repo = Repository(tmp_path / "models")
    publish_graph(repo)
    return repo


def state(repo: Repository, key: Path, number: int = 1) -> str:
    check = repo.verify("linear", number, key=key).signature
    assert check is not None
    return check.state


class TestKeys:
    def test_the_private_key_is_its_owners_alone(self, keys: Path) -> None:
        """Nobody else may read it, whatever the umask; the public one is for everybody."""
        assert (keys / "release.pem").stat().st_mode & 0o777 == 0o600
        assert (keys / "release.pub").stat().st_mode & 0o044 == 0o044

    def test_keys_are_never_replaced(self, keys: Path, tmp_path: Path) -> None:
        """An existing file stops the making of keys, and no half of a pair is left."""
        before = (keys / "release.pem").read_bytes()
        with pytest.raises(InvalidKey, match="exists, and a key is never replaced"):
            generate_keys(keys / "release.pem", keys / "new.pub")
        with pytest.raises(InvalidKey, match="never replaced"):
            generate_keys(tmp_path / "new.pem", keys / "release.pub")
        with pytest.raises(InvalidKey, match="cannot write the key"):
            generate_keys(tmp_path / "nowhere" / "new.pem", tmp_path / "new.pub")
        assert (keys / "release.pem").read_bytes() == before
        assert list(tmp_path.iterdir()) == []

    def test_a_key_that_others_may_read_is_refused(self, repo: Repository, keys: Path, tmp_path: Path) -> None:
        """As ssh does; the message has the command that repairs it."""
        for mode in (0o640, 0o604, 0o620):
            copy = Path(shutil.copy(keys / "release.pem", tmp_path / "copy.pem"))
            copy.chmod(mode)
            with pytest.raises(InvalidKey, match=rf"mode {mode:o}\); make it yours alone: chmod 600"):
                repo.sign("linear", 1, copy)

    def test_a_password_protects_a_key(self, repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With NAIAD_KEY_PASSWORD the private key is encrypted, and of no use without it."""
        monkeypatch.setenv("NAIAD_KEY_PASSWORD", "secret")
        generate_keys(tmp_path / "a.pem", tmp_path / "a.pub")
        assert b"ENCRYPTED" in (tmp_path / "a.pem").read_bytes()
        repo.sign("linear", 1, tmp_path / "a.pem")
        assert state(repo, tmp_path / "a.pub") == "valid"
        monkeypatch.setenv("NAIAD_KEY_PASSWORD", "wrong")
        with pytest.raises(InvalidKey, match="or its password is another"):
            repo.sign("linear", 1, tmp_path / "a.pem")
        monkeypatch.delenv("NAIAD_KEY_PASSWORD")
        with pytest.raises(InvalidKey, match="give its password"):
            repo.sign("linear", 1, tmp_path / "a.pem")

    def test_what_is_no_key_is_refused(self, repo: Repository, keys: Path, tmp_path: Path) -> None:
        """A missing file, text, a private key in place of a public one, and keys of another kind."""
        other = tmp_path / "rsa.pem"
        command = ["openssl", "genpkey", "-algorithm", "RSA", "-out", str(other)]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", other, "-pubout", "-out", tmp_path / "rsa.pub"], check=True)
        other.chmod(0o600)
        text = tmp_path / "text"
        text.write_text("no key")
        text.chmod(0o600)
        for key, message in (
            (tmp_path / "gone", "expected a private key at"),
            (text, "not a private key"),
            (other, "Ed25519"),
        ):
            with pytest.raises(InvalidKey, match=message):
                repo.sign("linear", 1, key)
        public = (
            (keys / "gone", "expected a public key at"),
            (text, "not a public key"),
            (keys / "release.pem", "this is the private key"),
            (tmp_path / "rsa.pub", "Ed25519"),
        )
        for key, message in public:
            with pytest.raises(InvalidKey, match=message):
                repo.verify("linear", 1, key=key)


class TestSign:
    def test_a_signature_is_added_and_nothing_else_changes(self, repo: Repository, keys: Path) -> None:
        """It lies beside the manifest as one file more, which is no part of what was published."""
        before = contents(repo.path)
        manifest = (repo.path / "linear" / "1" / "manifest.json").read_bytes()
        assert state(repo, keys / "release.pub") == "missing"
        key_id = repo.sign("linear", 1, keys / "release.pem", reason="it is good")
        assert contents(repo.path) == sorted([*before, "linear/1/manifest.sig"])
        assert (repo.path / "linear" / "1" / "manifest.json").read_bytes() == manifest
        assert state(repo, keys / "release.pub") == "valid"
        assert repo.verify("linear", 1).ok
        entry = repo.history("linear")[-1]
        assert (entry.action, entry.version, entry.key, entry.reason) == ("sign", 1, key_id, "it is good")
        assert repo.promote("linear", 1) == (1,)

    def test_several_keys_sign_the_same_version(self, repo: Repository, keys: Path) -> None:
        """A second signature leaves the first, and the same key twice changes nothing."""
        repo.sign("linear", 1, keys / "release.pem")
        first = (repo.path / "linear" / "1" / "manifest.sig").read_bytes()
        repo.sign("linear", 1, keys / "release.pem")
        assert (repo.path / "linear" / "1" / "manifest.sig").read_bytes() == first
        assert state(repo, keys / "review.pub") == "unknown key"
        repo.sign("linear", 1, keys / "review.pem")
        assert [state(repo, keys / f"{name}.pub") for name in ("release", "review")] == ["valid", "valid"]
        (version,) = repo.overview("linear").versions
        assert len(version.signed_by) == 2

    def test_other_tools_can_check_it(self, repo: Repository, keys: Path, tmp_path: Path) -> None:
        """The signature is plain Ed25519 over the manifest's bytes: openssl agrees."""
        repo.sign("linear", 1, keys / "release.pem")
        directory = repo.path / "linear" / "1"
        (signature,) = json.loads((directory / "manifest.sig").read_text())["signatures"].values()
        (tmp_path / "raw").write_bytes(base64.b64decode(signature))
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys / "release.pub", "-rawin"]
        files = ["-in", directory / "manifest.json", "-sigfile", tmp_path / "raw"]
        done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
        assert "Signature Verified Successfully" in done.stdout

    def test_what_is_not_whole_is_not_signed(self, repo: Repository, keys: Path) -> None:
        """A key is not lent to files that were changed, nor to a version without a manifest."""
        second = publish_graph(repo)
        (second.path / "model.onnx").write_bytes(b"other")
        with pytest.raises(CorruptVersion, match="is not signed, because it is not what was published"):
            repo.sign("linear", 2, keys / "release.pem")
        (repo.path / "linear" / "1" / "manifest.json").unlink()
        with pytest.raises(InvalidModel, match=r"has no manifest\.json to sign"):
            repo.sign("linear", 1, keys / "release.pem")


class TestVerify:
    @pytest.fixture(autouse=True)
    def signed(self, repo: Repository, keys: Path) -> Path:
        repo.sign("linear", 1, keys / "release.pem")
        return repo.path / "linear" / "1"

    def test_a_changed_manifest_is_found(self, repo: Repository, keys: Path, signed: Path) -> None:
        """Files and manifest changed together fit each other, and the signature shows it."""
        manifest = json.loads((signed / "manifest.json").read_text())
        manifest["precision"] = "int8"
        (signed / "manifest.json").write_text(json.dumps(manifest))
        found = repo.verify("linear", 1, key=keys / "release.pub")
        assert found.problems == ()
        assert state(repo, keys / "release.pub") == "invalid"
        assert any("is not of this manifest.json: one of them was changed" in each for each in found.findings)

    def test_a_changed_file_is_found(self, repo: Repository, keys: Path, signed: Path) -> None:
        """The signature still holds, and the file is not the one that it vouches for."""
        (signed / "model.onnx").write_bytes(b"other")
        found = repo.verify("linear", 1, key=keys / "release.pub")
        assert state(repo, keys / "release.pub") == "valid"
        assert not found.ok
        assert "model.onnx was changed" in found.findings[0]

    def test_a_signature_of_another_version_is_found(self, repo: Repository, keys: Path, signed: Path) -> None:
        """Signed files copied under another number are not what was signed there."""
        second = publish_graph(repo)
        for name in ("manifest.json", "manifest.sig", "model.onnx", "golden.npz"):
            shutil.copy(signed / name, second.path / name)
        found = repo.verify("linear", 2, key=keys / "release.pub")
        assert state(repo, keys / "release.pub", 2) == "valid"
        assert "manifest.json is that of linear version 1" in found.findings[0]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "invalid"),
            ("[]", "invalid"),
            ('{"signatures": {"KEY": "no base64!"}}', "invalid"),
            ("{}", "missing"),
            ('{"signatures": {"another": ""}}', "unknown key"),
            ('{"signatures": {"KEY": ""}}', "invalid"),
        ],
    )
    def test_a_broken_signature_is_no_signature(
        self, repo: Repository, keys: Path, signed: Path, text: str, expected: str
    ) -> None:
        """A file that cannot be read, or has nothing in it, never counts as valid; signing again repairs it."""
        key_id = next(iter(json.loads((signed / "manifest.sig").read_text())["signatures"]))
        (signed / "manifest.sig").write_text(text.replace("KEY", key_id))
        assert state(repo, keys / "release.pub") == expected
        repo.sign("linear", 1, keys / "release.pem")
        assert state(repo, keys / "release.pub") == "valid"


class TestRequire:
    def test_only_what_is_signed_is_served(self, repo: Repository, keys: Path) -> None:
        """With a required key, promote and rollback refuse other versions and change nothing."""
        strict = Repository(repo.path, require_signature=keys / "release.pub")
        publish_graph(repo)
        with pytest.raises(
            NotTrusted, match="linear version 1 is not served, because a signature is required"
        ) as caught:
            strict.rollback("linear")
        assert (caught.value.state, caught.value.version) == ("missing", 1)
        repo.sign("linear", 1, keys / "review.pem")
        with pytest.raises(NotTrusted, match="it is signed by the key"):
            strict.promote("linear", 1)
        assert repo.served("linear") == (2,)
        repo.sign("linear", 1, keys / "release.pem")
        assert strict.promote("linear", 1) == (1,)

    def test_a_publication_signs_what_it_serves(self, repo: Repository, keys: Path, tmp_path: Path) -> None:
        """A new version that would be served needs the required key; one that is not served does not."""
        strict = Repository(repo.path, require_signature=keys / "release.pub")
        before = contents(repo.path)
        for key, found in ((None, "no key to sign with"), (keys / "review.pem", "it would be signed by")):
            with pytest.raises(NotTrusted, match=found):
                publish_graph(Repository(repo.path, sign_key=key, require_signature=keys / "release.pub"))
        with pytest.raises(NotTrusted):
            publish_graph(strict, "new", promote=False)  # a model's first version is always served
        assert contents(repo.path) == before
        assert publish_graph(strict, promote=False).number == 2
        signing = Repository(repo.path, sign_key=keys / "release.pem", require_signature=keys / "release.pub")
        assert publish_graph(signing).number == 3
        assert repo.verify("linear", 3, key=keys / "release.pub").ok
        assert repo.served("linear") == (3,)

    def test_a_version_made_by_hand_is_not_trusted(self, keys: Path, tmp_path: Path) -> None:
        """Without a manifest there is nothing that could be signed."""
        root = tmp_path / "models"
        (root / "hand" / "1").mkdir(parents=True)
        (root / "hand" / "config.pbtxt").write_text('name: "hand" backend: "onnxruntime"')
        with pytest.raises(NotTrusted, match="it is not signed"):
            Repository(root, require_signature=keys / "release.pub").promote("hand", 1)
