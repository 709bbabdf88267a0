"""`naiad deploy` as a user runs it: what it prints, as words and as JSON, and its exit codes."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from naiad.cli.app import app
from naiad.deploy import DeployError, InvalidCertificate, InvalidKeys, InvalidService, KeyFile
from naiad.deploy.certificates import Certificate, make_authority, make_server_certificate
from naiad.deploy.keys import hash_key

SMALL = '[[identities]]\nname = "vision"\nrights = { infer = ["digits"] }\n[[identities]]\nname = "nobody"\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with a small description, in which the commands run."""
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/service.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def secrets(project):
    assert naiad("secrets").exit_code == 0
    return project / "deploy/secrets"


def naiad(*args):
    """Run the command in this process; an error of the room comes as the exception, as `main` gets it."""
    return CliRunner().invoke(app, ["deploy", *args])


def as_json(*args):
    done = naiad(*args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def error(*args):
    found = naiad(*args).exception
    assert isinstance(found, DeployError), found
    return found


def test_init_writes_a_description_that_check_accepts(project):
    """It is found without being named, and one that is there is never replaced."""
    done = naiad("init", "new")
    assert (done.exit_code, done.stdout) == (0, "wrote new/deploy/service.toml\n")
    text = (project / "new/deploy/service.toml").read_text()
    assert as_json("check", "new/deploy/service.toml", "--no-validate")["service"]["name"] == "naiad"
    again = naiad("init", "new")
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    assert (project / "new/deploy/service.toml").read_text() == text


def test_check_says_who_may_do_what_and_what_is_probably_not_meant(project):
    """Advice is no error."""
    done = naiad("check", "--no-validate")
    assert done.exit_code == 0
    assert "deploy/service.toml is right" in done.stdout
    assert "nobody may do nothing" in done.stderr
    assert as_json("check", "--no-validate")["advice"] == ["nobody may do nothing: it has no rights"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nobody may call"),
        ("tls = false", "can be read on the network"),
        ("anonymous = { admin = true }", "load code of their own"),
        ("[[pools]]\nname = 'a'\nnum_replicas = 2\n[[pools]]\nname = 'b'", "nothing goes to the pool b"),
        ("[[pools]]\nname = 'a'", "has one replica"),
        ("[[issuers]]\nname = 'a'\nissuer = 'https://a'", "its tokens for other services are believed"),
        ("[[issuers]]\nname = 'a'\nissuer = 'https://a'\naudiences = ['x']", "no identity has a token"),
        ("[[objectives]]\nmodel = 'a'", "a model that nobody may ask"),
        ("[triton]\nmodel_control = 'explicit'", "one of the 2 replicas only"),
    ],
)
def test_what_is_allowed_and_probably_not_meant_is_said(project, text, words):
    """One sentence that says what it leads to."""
    Path("deploy/service.toml").write_text(text)
    assert [note for note in as_json("check", "--no-validate")["advice"] if words in note]


def test_a_wrong_description_is_wrong_use(project):
    """Every command that reads it says where, and writes nothing."""
    Path("deploy/service.toml").write_text("[limits]\nrequest_gb = 1\n")
    for command in (["check"], ["render"], ["secrets"], ["key", "add", "vision"]):
        found = error(*command)
        assert isinstance(found, InvalidService)
        assert str(found).startswith("deploy/service.toml:2: limits.request_gb: expected one of request_mb, ")
    assert os.listdir("deploy") == ["service.toml"]


def test_render_writes_once_and_then_only_what_changed(project):
    """Each file that is written is named."""
    first = naiad("render", "--no-validate")
    assert first.exit_code == 0
    assert "wrote     docker-compose.yml" in first.stdout
    assert naiad("render", "--no-validate").stdout == "every file says what it should\n"
    Path("deploy/service.toml").write_text(SMALL.replace("digits", "other"))
    assert as_json("render", "--no-validate") == {
        "missing": [],
        "stale": ["deploy/gateway/authorize.yaml"],
        "left_over": [],
        "root": str(project),
        "written": True,
    }


def test_render_check_fails_a_build_whose_files_are_old(project):
    """And changes nothing."""
    naiad("render", "--no-validate")
    assert naiad("render", "--check", "--no-validate").exit_code == 0
    Path("docker-compose.yml").write_text("services: {}\n")
    Path("deploy/gateway/envoy.yaml").unlink()
    done = naiad("render", "--check", "--no-validate")
    assert done.exit_code == 1
    assert "stale     docker-compose.yml" in done.stdout
    assert "missing   deploy/gateway/envoy.yaml" in done.stdout
    assert "run: naiad deploy render" in done.stderr
    assert Path("docker-compose.yml").read_text() == "services: {}\n"


def test_render_writes_beside_the_description_or_where_it_is_told(project):
    """From whatever directory it runs."""
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    naiad("render", "../deploy/service.toml", "--no-validate")
    assert (project / "docker-compose.yml").exists()
    naiad("render", "../deploy/service.toml", "--no-validate", "--output", "out")
    assert Path("out/docker-compose.yml").exists()


def test_a_key_is_all_that_is_printed(secrets):
    """So that a script can take it; what a person should know goes to stderr."""
    done = naiad("key", "add", "vision", "--days", "3", "--note", "nightly")
    (kept,) = KeyFile.keys(KeyFile(secrets / "api-keys"))
    assert hash_key(done.stdout.strip()) == kept.sha256
    assert kept.expires == datetime.now(UTC).date() + timedelta(days=3)
    assert f"naiad deploy key revoke vision {kept.id}" in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_keys_are_listed_and_revoked(secrets):
    """By the ids that the list shows."""
    first, second = (as_json("key", "add", name) for name in ("vision", "nobody"))
    assert [each["id"] for each in as_json("key", "list")] == [first["id"], second["id"]]
    assert first["id"] in naiad("key", "list", "vision").stdout
    assert second["id"] not in naiad("key", "list", "vision").stdout
    assert f"revoked {first['id']} of vision" in naiad("key", "revoke", "vision", first["id"]).stdout
    assert [each["id"] for each in as_json("key", "revoke", "nobody", "all")] == [second["id"]]
    assert "no keys" in naiad("key", "list").stdout
    assert isinstance(error("key", "revoke", "vision", "all"), InvalidKeys)


def test_a_key_for_nobody_is_refused(secrets):
    """The gateway would know it, and grant it nothing."""
    done = naiad("key", "add", "visoin")
    assert done.exit_code == 2
    assert "has no identity visoin" in " ".join(done.stderr.replace("│", " ").split())
    assert KeyFile.keys(KeyFile(secrets / "api-keys")) == ()


def test_secrets_says_what_it_made_and_what_is_missing(project):
    """A second run makes nothing, and says so."""
    made = {Path(each["path"]).name: each["state"] for each in as_json("secrets", "--name", "triton.example.com")}
    assert made["tls.key"] == "made"
    assert made["alert-webhook"] == "placeholder"
    assert "triton.example.com" in Certificate.read("deploy/secrets/tls.crt", "deploy/secrets/tls.key").names
    assert {each["state"] for each in as_json("secrets")} == {"there"}
    assert "development only" not in naiad("secrets").stdout


def test_secrets_says_as_whom_the_containers_have_to_run(project):
    """Where their usual user could not read what was made."""
    done = naiad("secrets", "--owner", "4711")
    owner = Path("deploy/secrets").stat()
    assert f"export NAIAD_UID={owner.st_uid} NAIAD_GID={owner.st_gid}" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="root is told something else")
def test_root_is_told_to_give_its_directory_away(project):
    """Containers that run as root would be the worse way out."""
    Path("deploy/secrets").mkdir()
    assert "chown -R 1000:1000 deploy/secrets" in naiad("secrets").stderr


def test_a_certificate_is_shown_renewed_and_installed(secrets, tmp_path):
    """Each is the one that is served afterwards."""
    old = Certificate.read(secrets / "tls.crt", secrets / "tls.key")
    renewed = as_json("certificate", "renew", "--name", "triton.example.com", "--days", "30")
    assert renewed["names"] == [*old.names, "triton.example.com"]
    assert 29.9 < as_json("certificate", "show")["days_left"]["tls.crt"] < 30
    assert naiad("certificate", "show", "--min-days", "31").exit_code == 1
    own = make_server_certificate(make_authority("own"), ["own.example.com"])
    (tmp_path / "own.crt").write_bytes(own.certificate_pem)
    (tmp_path / "own.key").write_bytes(own.key_pem)
    assert as_json("certificate", "install", "own.crt", "own.key")["names"] == ["own.example.com"]
    assert Certificate.read(secrets / "tls.crt", secrets / "tls.key") == own
    assert isinstance(error("certificate", "renew"), InvalidCertificate)


def test_a_certificate_that_has_ended_is_not_installed(secrets, tmp_path):
    """The one that is served goes on being served."""
    old = Certificate.read(secrets / "tls.crt", secrets / "tls.key")
    ended = make_server_certificate(make_authority(), ["a"], days=-1)
    (tmp_path / "own.crt").write_bytes(ended.certificate_pem)
    (tmp_path / "own.key").write_bytes(ended.key_pem)
    assert "expected a certificate that is valid" in str(error("certificate", "install", "own.crt", "own.key"))
    assert Certificate.read(secrets / "tls.crt", secrets / "tls.key") == old


def test_a_caller_gets_a_certificate_of_its_own(secrets):
    """Only from an authority that is there."""
    issued = as_json("certificate", "issue", "spiffe://example.com/vision", "-o", "vision")
    assert Certificate.read(issued["certificate"], issued["key"]).names == ("spiffe://example.com/vision",)
    assert "none" in str(error("certificate", "issue", "a", "-o", "b", "--authority", "missing"))
    assert not Path("b").exists()


def test_another_directory_of_secrets_is_named_once_for_all_commands(project, monkeypatch):
    """By the variable that docker-compose.yml reads."""
    monkeypatch.setenv("NAIAD_SECRETS", "elsewhere")
    naiad("secrets")
    as_json("key", "add", "vision")
    assert len(KeyFile.keys(KeyFile("elsewhere/api-keys"))) == 1
    assert not Path("deploy/secrets").exists()


def test_metrics_of_nothing_are_an_error(project, unused_tcp_port):
    """As those of another program would be."""
    assert "expected a gateway's metrics at" in str(
        error("status", "--metrics-url", f"http://127.0.0.1:{unused_tcp_port}")
    )


def test_help_and_a_wrong_description_need_no_extra():
    """Where the extra is not installed, the message says which one is missing."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['yaml', 'httpx', 'cryptography', 'envoy']));"
    code = f"{blocked} from naiad.cli import main; sys.argv = ['naiad', 'deploy', *sys.argv[1:]]; main()"

    def run(*args):
        return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)

    assert run("--help").returncode == 0
    for command in (["render"], ["secrets"], ["status"]):
        done = run(*command)
        assert done.returncode == 2
        assert "pip install 'naiad[deploy]'" in done.stderr, (command, done.stderr)
