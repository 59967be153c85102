"""The token file: every mistake with its line, no token ever repeated, callers found by what they present."""

from __future__ import annotations

import hashlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import ConfigurationError
from kiki.web.tokens import FILE_BYTES_MAX, Principal, TokensError, load_tokens, parse_tokens

GOOD = """# callers
tokens:
  - name: runner
    token: runner-token-0123456789
    roles: [read, spend]
  - name: auditor
    token_sha256: "{}"
    roles: [read, privacy, admin]
""".format(hashlib.sha256(b"auditor-token-0123456789").hexdigest())


def mistakes(text: str) -> list[str]:
    with pytest.raises(TokensError) as caught:
        parse_tokens(text, "t.yaml")
    return list(caught.value.problems)


def entry(**fields: str) -> str:
    given_ = {"name": "a", "token": "a-token-0123456789", "roles": "[read]", **fields}
    lines = [f"{key}: {value}" for key, value in given_.items() if value]
    return "tokens:\n  - " + "\n    ".join(lines) + "\n"


def test_callers_are_found_by_token_and_by_digest():
    tokens = parse_tokens(GOOD, "t.yaml")
    assert tokens.find("runner-token-0123456789") == Principal("runner", frozenset({"read", "spend"}))
    assert tokens.find("auditor-token-0123456789").name == "auditor"
    for wrong in ("", "runner-token-012345678", "runner", "\ud800", "ü" * 20):
        assert tokens.find(wrong) is None
    assert len(tokens) == 2
    assert "token-0123" not in repr(tokens)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "t.yaml:1: expected a mapping"),
        ("[]", "t.yaml:1: expected a mapping"),
        ("{}", "t.yaml:1: expected a mapping"),
        ("tokens: []", "t.yaml:1: expected at least one entry"),
        ("tokens: 5", "t.yaml:1: expected a list"),
        ("tokens:\n  - just-text", "t.yaml:2: expected an entry"),
        ("tokens: [\n  {", "t.yaml:2: not YAML"),
        ("a: b: c", "t.yaml:1: not YAML"),
        ("tokens: &a [*a]", "t.yaml:1: expected an entry"),
        (entry() + "others: 1\n", "t.yaml:5: 'others' is unknown"),
        (entry() + entry(), "t.yaml:5: 'tokens' is given twice"),
        (entry(name=""), "t.yaml:2: the entry has no name"),
        (entry(name="a b"), "t.yaml:2: the name"),
        (entry(name="17"), "t.yaml:2: the name"),
        (entry(token="short"), "t.yaml:3: the token must be 16"),
        (entry(token="1234567890123456"), "t.yaml:3: the token must be"),
        (entry(token='"has spaces in the middle"'), "t.yaml:3: the token must be"),
        (entry(token="x" * 5000), "t.yaml:3: the token must be"),
        (entry(token=""), "t.yaml:2: the entry has neither"),
        (entry(token_sha256="a" * 64), "t.yaml:2: give token or token_sha256, not both"),
        (entry(token="", token_sha256="abc"), "t.yaml:4: token_sha256 must be 64"),
        (entry(roles=""), "t.yaml:2: the entry has no roles"),
        (entry(roles="[]"), "t.yaml:4: roles must be a list"),
        (entry(roles="read"), "t.yaml:4: roles must be a list"),
        (entry(roles="[read, boss]"), "t.yaml:4: 'boss' is not a role"),
        (entry(roles="[read, read]"), "t.yaml:4: the role 'read' is given twice"),
        (entry(rolls="[read]"), "t.yaml:5: 'rolls' is unknown in an entry"),
        (entry() + "  - {name: a, token: b-token-0123456789, roles: [read]}", "t.yaml:5: the name 'a' was used before"),
        (entry() + "  - {name: b, token: a-token-0123456789, roles: [read]}", "t.yaml:5: the same token"),
    ],
)
def test_each_mistake_has_its_line(text, expected):
    (told,) = mistakes(text)
    assert told.startswith(expected)


def test_every_mistake_is_told_at_once():
    text = "tokens:\n  - name: a b\n    token: x\n    roles: [boss]\n  - token: short\n    extra: 1\n"
    assert [told.split(": ")[0] for told in mistakes(text)] == [
        *("t.yaml:2", "t.yaml:3", "t.yaml:4"),
        *("t.yaml:6", "t.yaml:5", "t.yaml:5", "t.yaml:5"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        entry(token='"hunter2 hunter2 hunter2"'),
        entry(token="hunter2"),
        "tokens:\n  - hunter2-hunter2-hunter2: read\n",
        "hunter2-hunter2-hunter2: 1\n",
        entry(token='"hunter2-hunter2-hunter2'),
        entry(token_sha256="hunter2", token=""),
    ],
)
def test_no_mistake_repeats_a_token(text):
    assert "hunter2" not in "".join(mistakes(text))


@given(st.text(max_size=200))
def test_any_text_is_tokens_or_a_list_of_mistakes(text):
    try:
        parse_tokens(text, "t.yaml")
    except TokensError as error:
        assert all(told.startswith("t.yaml:") for told in error.problems)  # noqa: PT017


class TestFiles:
    def test_a_file_that_only_its_owner_and_group_read_is_silent(self, tmp_path, caplog):
        path = tmp_path / "t.yaml"
        path.write_text(GOOD)
        path.chmod(0o440)  # as Kubernetes mounts secrets
        assert len(load_tokens(path)) == 2
        assert caplog.records == []

    def test_one_that_others_read_is_warned_about_and_taken(self, tmp_path, caplog):
        path = tmp_path / "t.yaml"
        path.write_text(GOOD)
        path.chmod(0o644)
        with caplog.at_level(logging.WARNING):
            assert len(load_tokens(path)) == 2
        assert ["may be read by others" in record.getMessage() for record in caplog.records] == [True]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [(b"tokens:\n  - name: \xff\n", ":2: the file is not UTF-8"), (b"#" * (FILE_BYTES_MAX + 1), "larger than")],
    )
    def test_what_is_no_token_file_is_told_with_its_name(self, tmp_path, content, expected):
        path = tmp_path / "t.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=expected):
            load_tokens(path)

    def test_a_file_that_is_not_there_is_a_mistake_of_configuration(self, tmp_path):
        with pytest.raises(TokensError, match="No such file"):
            load_tokens(tmp_path / "absent.yaml")
