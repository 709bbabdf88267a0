"""The description of a service: what it says, and what is said of a wrong one."""

import pickle
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naiad.deploy import (
    Canary,
    Identity,
    InvalidService,
    Issuer,
    Limits,
    Objective,
    Pool,
    Rights,
    Service,
    Shadow,
    Triton,
    load_service,
)
from naiad.deploy._lines import line_of
from naiad.deploy.load import parse_service

ROOT = Path(__file__).parents[3]
FULL = """\
name = "shop"
client-certificates = "optional"
anonymous = { infer = ["public-*"] }

[triton]
release = "26.07"
gpus_per_replica = 2

[limits]
request_mb = 64

[[pools]]
name = "main"
num-replicas = 3

[[pools]]
name = "next"
repository = "s3://models/next"

[canary]
pool = "next"
weight_percent = 5

[shadow]
pool = "next"
percent = 50

[[issuers]]
name = "login"
issuer = "https://login.example.com"

[[identities]]
name = "vision"
rights = { infer = ["digits"], observe = ["*"] }
requests_per_s = 100
certificates = [
  "spiffe://example.com/vision",  # its own
  # and the batch's
  "vision-batch.example.com",
]

[[identities]]
name = "operator"
tokens = ["login/operator"]
[identities.rights]
admin = true

[[objectives]]
model = "digits"
p99_ms = 50
"""


def refusal(old: str, new: str) -> InvalidService:
    assert FULL.count(old) == 1
    with pytest.raises(InvalidService) as caught:
        parse_service(FULL.replace(old, new), path="service.toml")
    return caught.value


def test_every_part_of_a_description_is_read():
    """Hyphens and underscores in keys are the same; whole numbers stand for any."""
    assert parse_service(FULL) == Service(
        name="shop",
        client_certificates="optional",
        anonymous=Rights(infer=("public-*",)),
        triton=Triton(release="26.07", gpus_per_replica=2),
        limits=Limits(request_mb=64.0),
        pools=(Pool(name="main", num_replicas=3), Pool(name="next", repository="s3://models/next")),
        canary=Canary(pool="next", weight_percent=5.0),
        shadow=Shadow(pool="next", percent=50.0),
        issuers=(Issuer(name="login", issuer="https://login.example.com"),),
        identities=(
            Identity(
                name="vision",
                rights=Rights(infer=("digits",), observe=("*",)),
                requests_per_s=100.0,
                certificates=("spiffe://example.com/vision", "vision-batch.example.com"),
            ),
            Identity(name="operator", rights=Rights(admin=True), tokens=("login/operator",)),
        ),
        objectives=(Objective(model="digits", p99_ms=50.0),),
    )


def test_an_empty_description_lets_nobody_in():
    """The defaults are a service behind TLS that trusts nobody."""
    service = parse_service("")
    assert (service.tls, service.identities, service.anonymous) == (True, (), None)


def test_the_repositorys_own_description_is_the_one_that_init_writes():
    """What people start from is what is rendered, checked and tested here."""
    assert (ROOT / "deploy/service.toml").read_bytes() == files("naiad.deploy").joinpath("example.toml").read_bytes()
    service = Service.load(ROOT / "deploy/service.toml")
    assert [identity.name for identity in service.identities] == ["vision", "performance-ci", "operator"]
    assert service.anonymous is None


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("num-replicas = 3", "num-replica = 3", 14, "pools[1].num-replica", "did you mean num_replicas?"),
        (
            "num-replicas = 3",
            "num-replicas = 0",
            14,
            "pools[1].num_replicas",
            "expected a number from 1 to 100, found 0",
        ),
        ("num-replicas = 3", "num_replicas = 3\nnum-replicas = 3", 15, "pools[1].num-replicas", "expected it once"),
        ("num-replicas = 3", "num_replicas = 3.5", 14, "pools[1].num_replicas", "expected a whole number, found 3.5"),
        ("request_mb = 64", "request_mb = true", 10, "limits.request_mb", "expected a number, found true"),
        ("request_mb = 64", "request_mb = nan", 10, "limits.request_mb", "found nan"),
        ("request_mb = 64", "request_mb = -1", 10, "limits.request_mb", "over 0 and at most 2047, found -1.0"),
        ('"26.07"', '"25.02"', 6, "triton.release", "expected release 25.07 or later, found '25.02'"),
        ('"26.07"', '"latest"', 6, "triton.release", "of the form YY.MM"),
        ("gpus_per_replica = 2", 'gpus_per_replica = "some"', 7, "triton.gpus_per_replica", 'a whole number or "all"'),
        ('"optional"', '"optinal"', 2, "client_certificates", "did you mean optional?"),
        ('"optional"', '"none"', 36, "identities[1].certificates", 'set client_certificates = "optional"'),
        ('"optional"', '"optional"\ntls = false', 2, "client_certificates", "set tls = true"),
        ('["digits"]', '"digits"', 34, "identities[1].rights.infer", 'expected an array, as ["a", "b"]'),
        ('["digits"]', '["digits", "a b"]', 34, "identities[1].rights.infer[2]", "a pattern of one with *"),
        ('["digits"]', '["digits", "digits"]', 34, "identities[1].rights.infer[2]", "it is there twice"),
        ('"vision-batch.example.com"', '"vision batch"', 39, "identities[1].certificates[2]", "found 'vision batch'"),
        ('"vision-batch.example.com"', '""', 39, "identities[1].certificates[2]", "found ''"),
        ('name = "vision"', "", 32, "identities[1]", "expected the key name, found only rights"),
        ('name = "vision"', 'name = "anonymous"', 33, "identities[1].name", "the table [anonymous]"),
        ('name = "operator"', 'name = "vision"', 43, "identities[2].name", "it is there twice"),
        ('name = "operator"', 'name = "on duty"', 43, "identities[2].name", "found 'on duty'"),
        ('"login/operator"', '"logon/operator"', 44, "identities[2].tokens[1]", "with the issuer login"),
        ('"login/operator"', '"operator"', 44, "identities[2].tokens[1]", "expected issuer-name/subject"),
        ("requests_per_s = 100", "burst = 5", 35, "identities[1].burst", "expected it beside requests_per_s"),
        ("requests_per_s = 100", "request_mb = 65", 35, "identities[1].request_mb", "raise limits.request_mb"),
        ('[canary]\npool = "next"', '[canary]\npool = "main"', 21, "canary.pool", "expected next, found 'main'"),
        ('[shadow]\npool = "next"', '[shadow]\npool = "nxt"', 25, "shadow.pool", "expected next, found 'nxt'"),
        ("weight_percent = 5", "weight_percent = 101", 22, "canary.weight_percent", "from 0 to 100"),
        ("weight_percent = 5", 'header = "authorization"', 22, "canary.header", "begins with x-"),
        ('name = "shop"', 'name = "Shop"', 1, "name", "small letters"),
        ("p99_ms = 50", "p99_ms = 0", 50, "objectives[1].p99_ms", "over 0"),
        ("[[objectives]]", "[objectives]", 48, "objectives", "expected an array of tables"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(old, new, line, key, words):
    """The message leads to the very line, and says what was expected there."""
    error = refusal(old, new)
    assert str(error).startswith(f"service.toml:{line}: {key}: ")
    assert words in str(error)


def test_what_belongs_to_one_cannot_belong_to_another():
    """A certificate that is two identities would be neither."""
    twice = FULL.replace('tokens = ["login/operator"]', 'certificates = ["vision-batch.example.com"]')
    where = r"service.toml:44: identities\[2\].certificates\[1\].*vision has it as well"
    with pytest.raises(InvalidService, match=where):
        parse_service(twice)


def test_text_that_is_no_toml_is_reported_with_its_line():
    """The line is that of the file, whatever its line ends are."""
    with pytest.raises(InvalidService, match=r"service.toml:3: expected TOML"):
        parse_service('name = "a"\r\n\r\nname\r\n')


def test_a_file_that_cannot_be_read_says_how_to_get_one(tmp_path):
    """A missing file is the first thing that anybody meets."""
    with pytest.raises(InvalidService, match="naiad deploy init"):
        load_service(tmp_path / "service.toml")
    (tmp_path / "latin.toml").write_bytes('# ok\nname = "é"'.encode("latin-1"))
    with pytest.raises(InvalidService, match=r"latin.toml:2: expected text in UTF-8"):
        load_service(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(InvalidService, match="at most 1 MiB"):
        load_service(tmp_path / "large.toml")


def test_a_service_made_in_python_is_checked_alike():
    """There the error names the key, for want of a line."""
    with pytest.raises(InvalidService, match=r"^canary\.pool: expected another pool") as caught:
        Service(canary=Canary(pool="next"))
    assert caught.value.key == ("canary", "pool")
    with pytest.raises(InvalidService, match=r"^pools: expected at least one pool"):
        Service(pools=())


def test_errors_survive_pickling():
    """They come from other processes as well."""
    error = refusal("num-replicas = 3", "num-replicas = 0")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.key, again.line) == (str(error), error.key, error.line)


KEYS = st.sampled_from(["a", "b", "c-d", "e_f"])
VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(alphabet="ab#\"\\\n' ]=[", max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def written(value, wide: bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        if wide:
            return '"""\n' + value.replace("\\", "\\\\").replace('"', '\\"') + '"""'
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    separator, ends = (",\n # ]\n", ("[\n\n", "\n]")) if wide else (", ", "[]")
    return ends[0] + separator.join(written(item, wide) for item in value) + ends[1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES, st.booleans()), max_size=4, unique_by=lambda item: item[0]), st.integers(0, 3))
def test_the_line_of_a_key_is_the_one_it_is_written_on(items, blank):
    """Whatever values stand before it, and over however many lines they go."""
    text, lines = "", {}
    for number in range(2):
        text += "\n" * blank + "[[tables]] # [[tables]]\n"
        for key, value, wide in items:
            lines["tables", number, key] = text.count("\n") + 1
            text += f"{key} = {written(value, wide)}\n"
    tomllib.loads(text)
    assert {key: line_of(text, key) for key in lines} == lines
