"""The file of systems that hold personal data: read strictly, every mistake with its line, no secret told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import SystemsError
from kiki.shield.subject_systems import FILE_BYTES_MAX, load_systems, parse_systems

SECRETS = {"CRM_SECRET": "0123456789abcdef", "SHORT": "short"}
GOOD = """
systems:
  - name: crm
    url: https://crm.example/privacy/
    secret_env: CRM_SECRET
    depends_on: [orders]
    timeout_seconds: 5
  - {name: orders, url: "http://localhost:9/x", secret_env: CRM_SECRET}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(SystemsError) as caught:
        parse_systems(text, SECRETS, "s.yaml")
    assert "0123456789abcdef" not in str(caught.value)
    return list(caught.value.problems)


def system(**members: str) -> str:
    given_members = {"name": "crm", "url": "https://crm.example", "secret_env": "CRM_SECRET"} | members
    lines = [f"    {name}: {value}" for name, value in given_members.items() if value is not None]
    return "systems:\n  -\n" + "\n".join(lines)


def test_a_good_file():
    crm, orders = parse_systems(GOOD, SECRETS, "s.yaml")
    assert ("crm", "https://crm.example/privacy", ("orders",), 5) == (
        crm.name,
        crm.url,
        crm.depends_on,
        crm.timeout_seconds,
    )
    assert ("0123456789abcdef", (), 30) == (orders.secret.reveal(), orders.depends_on, orders.timeout_seconds)
    assert "0123456789abcdef" not in repr(crm)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "s.yaml:1: expected the file with systems"),
        ("systems: 7", "s.yaml:1: expected a list under 'systems:'"),
        ("systems: [7]", "s.yaml:1: expected a system with name, url"),
        ("system: []", "s.yaml:1: 'system' is not known here"),
        (": : :\n\t", "s.yaml:1: not YAML"),
        ("a: &a [*a]", "s.yaml:1: "),
        (system(name="CRM"), "s.yaml:3: the name of a system is one word"),
        (system(name="keys"), "s.yaml:3: the name 'keys' is taken: a store of kiki has it"),
        (system(name=None), "s.yaml:3: the name of a system is one word"),
        (system(url="http://crm.example"), "s.yaml:4: url: http:// would show who is asked about"),
        (system(url="ftp://crm.example"), "s.yaml:4: url: expected https://host/path"),
        (system(url="https://u:p@crm.example"), "s.yaml:4: url: no user and no password"),
        (system(url="https://crm.example/?a=1"), "s.yaml:4: url: expected https://host/path"),
        (system(url='"https://["'), "s.yaml:4: url: expected https://host/path"),
        (system(secret_env="NOT_SET"), "s.yaml:5: the variable NOT_SET holds no secret of at least 16 bytes"),
        (system(secret_env="SHORT"), "s.yaml:5: the variable SHORT holds no secret"),
        (system(secret_env="A=B"), "s.yaml:5: secret_env: expected the name of an environment variable"),
        (system(secret_env=None), "s.yaml:3: expected secret_env"),
        (system(secret_file="/nowhere"), "s.yaml:3: expected secret_env"),
        (system(secret_env=None, secret_file="/nowhere"), "s.yaml:5: secret_file: No such file"),
        (system(depends_on="[nobody]"), "s.yaml:6: depends_on names 'nobody'"),
        (system(depends_on="crm"), "s.yaml:6: depends_on: expected a list of names"),
        (system(timeout_seconds="0"), "s.yaml:6: timeout_seconds: expected a whole number from 1 to 600"),
        (system(plaintext="perhaps"), "s.yaml:6: plaintext: expected true or false"),
        (system(colour="red"), "s.yaml:6: 'colour' is not known here"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, expected: str):
    assert problems(text)[0].startswith(expected), problems(text)


def test_every_mistake_is_told_at_once():
    text = "systems:\n  - {name: A, url: x, secret_env: NOPE}\n  - {name: b}\n  - {name: b}\n"
    assert ["2", "2", "2", "3", "3", "4", "4", "4"] == [problem.split(":")[1] for problem in problems(text)]


def test_plain_http_may_be_wanted():
    (crm,) = parse_systems(system(url="http://crm.svc", plaintext="true"), SECRETS, "s.yaml")
    assert "http://crm.svc" == crm.url


def test_files_that_cannot_be_read_are_told(tmp_path: Path):
    path = tmp_path / "s.yaml"
    for content, expected in ((None, "No such file"), (b"\xff", "not UTF-8"), (b" " * (FILE_BYTES_MAX + 1), "larger")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SystemsError, match=expected):
            load_systems(path, SECRETS)
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef\n")
    path.write_text(system(secret_env=None, secret_file=str(secret)))
    (crm,) = load_systems(path, {})
    assert "0123456789abcdef" == crm.secret.reveal()


@given(st.text(alphabet="systemnaurlc_dpo:-[]{}&*!|>'\"\n\t #?,", max_size=200))
def test_garbage_is_systems_or_a_list_of_mistakes(text: str):
    found: tuple[str, ...] = ()
    try:
        parse_systems(text, SECRETS, "s.yaml")
    except SystemsError as error:
        found = error.problems
    assert all(problem.startswith("s.yaml:") for problem in found)
