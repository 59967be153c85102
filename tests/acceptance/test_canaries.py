"""Nothing personal in clear, anywhere: canaries go in through every door, and no byte on the disk may sing of them.

A second test erases one person and looks for what said who it was, while every checkpoint goes on verifying.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from urllib.parse import quote

import msgspec
import pytest

from kiki.ledger.checkpoint import VerifierKey, open_note
from kiki.ledger.entry import leaf_hash
from kiki.ledger.ledger import CHECKPOINTS, read_entries
from kiki.ledger.master_key import KeySource
from kiki.ledger.merkle import Tree
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.ledger.subjects import DIRECTORY, SUBJECTS, Subjects
from kiki.shield.fact import ConsentChanged, Decided, decode_fact
from tests.acceptance.serving import END_SECONDS, Shield, shield_in

ID, EMAIL = "canary-4711-kiki", "Zanzibar.Quokka@canary.example"
ADDRESS_LIKE = "198.51.100.237"
"""As an id: some systems know people by their address."""
PROXY_IP, PROXY_IP6 = "203.0.113.249", "2001:db8:77:88::beef"
AGENT = "CanaryBrowser/9.81 (Marigold Smith)"
NOTE, NOTICE, DETAILS = (
    "canary note: Marigold rang",
    "canary notice for Marigold Smith",
    "canary details, please delete",
)
GUARDIAN, REQUESTER, PROOF = "Canary Guardian Smith", "Canary Requester Jones", "canary-proof-drawer-7"
DESK = "privacy-desk"
"""Who did something stands in clear, like the name of a token: evidence says who is answerable for it."""
KEYS = ("canary-key-alpha", "canary-key-beta", "canary-key-gamma", "canary-key-delta")
PERSONS = (ID, EMAIL, ADDRESS_LIKE)
CANARIES = (
    *PERSONS,
    *(PROXY_IP, PROXY_IP6, AGENT, NOTE, NOTICE, DETAILS, GUARDIAN, REQUESTER, PROOF),
    *KEYS,
)
WORDS = (
    "canary",
    "Marigold",
    "Quokka",
    "Zanzibar",
    "Guardian Smith",
    "Requester Jones",
    "100.237",
    "113.249",
    "::beef",
)
"""Parts of them, in case something is cut or split; none that the fraction of a second could be."""


def forms(canary: str) -> set[bytes]:
    """How it may lie about: as it is, quoted, in UTF-16, in hexadecimal, and under hashes without a key."""
    plain = canary.encode()
    found = {plain, plain.lower(), quote(canary).encode(), quote(canary, safe="").encode(), canary.encode("utf-16-le")}
    if canary == NOTICE:
        # Its SHA-256 in clear is the proof of which text was shown; the same text is shown to everybody.
        return found
    for text in {canary, canary.lower(), f"customer:{canary}"}:
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, text.encode(), usedforsecurity=False)
            found |= {digest.digest(), digest.hexdigest().encode(), digest.hexdigest().upper().encode()}
    found.add(plain.hex().encode())
    return found


def bytes_of(shield: Shield, **answers: str) -> dict[str, bytes]:
    """Every byte of every file that the service has, what it said, and what it answers to whoever watches it."""
    found = {}
    for path in sorted(shield.directory.rglob("*")):
        with suppress(FileNotFoundError):  # what was there for a moment only
            if path.is_file():
                found[str(path.relative_to(shield.directory))] = path.read_bytes()
    return found | {name: text.encode() for name, text in answers.items()}


def watched(shield: Shield) -> dict[str, str]:
    paths = ("/metrics", "/readyz", "/livez", "/health", "/openapi.json", "/v1/decisions", "/v1/budgets", "/v1/halts")
    paths += ("/v1/evidence", "/v1/evidence/checkpoints", "/v1/compliance/report", "/compliance/report?period=daily")
    return {path: shield.ask(path)[1] for path in paths}


def found_in(files: dict[str, bytes], needles) -> list[tuple[str, bytes]]:
    return [(name, needle) for name, data in files.items() for needle in needles if needle in data]


def plant(shield: Shield) -> None:
    """Every canary through every route that takes what it is."""

    def ask(path, method="POST", body=None, *, also=(200, 201, 202), **headers):
        headers = {"User_Agent": AGENT, "X_Forwarded_For": f"{PROXY_IP}, {PROXY_IP6}", "X_Real_IP": PROXY_IP} | headers
        status, text, _ = shield.ask(path, method, body, **headers)
        assert status in also, (path, status, text)
        return json.loads(text) if text.startswith(("{", "[")) else text

    for person in PERSONS:
        name = quote(person, safe="")
        scopes = {"customer": person}
        for path in ("/consent/grant", "/consent/revoke"):
            ask(f"{path}?customer_id={name}&consent_type=analytics&ip_address={PROXY_IP}")
        ask(
            "/consent/grant",
            body={"customer_id": person, "type": "marketing", "ip_address": PROXY_IP6, "user_agent": AGENT},
        )
        ask(f"/consent/status?customer_id={name}", "GET")
        ask(
            "/v1/consents",
            body={
                "customer_id": person,
                "purpose": "profiling",
                "state": "granted",
                "notice": NOTICE,
                "guardian": GUARDIAN,
            }
            | {"ip_address": PROXY_IP, "user_agent": AGENT, "note": NOTE, "expires_at": "2090-01-01T00:00:00Z"},
        )
        ask("/v1/consents", body={"customer_id": person, "gpc": "1", "note": NOTE, "ip_address": PROXY_IP})
        ask(f"/v1/consents/{name}", "GET")
        ask(f"/v1/consents/{name}/history", "GET")
        checks = [{"customer_id": person, "purpose": "marketing"}]
        ask("/v1/consents:check", body={"checks": checks, "holder": "worker"})
        ask(f"/spend?amount=1&customer_id={name}", "GET", Idempotency_Key=KEYS[0] + person, also=(200, 400))
        ask(f"/spend?amount=1&customer_id={name}&key={KEYS[0]}", "GET", also=(200, 400, 409))
        ask(f"/check?ltv=600&customer_id={name}", "GET", also=(200, 400, 403))
        ask(f"/check?ltv=1&customer_id={name}", "GET", also=(403, 400))
        ask("/v1/spends", body={"amount": "1", "scopes": scopes, "key": KEYS[1] + person})
        ask("/v1/spends", body={"amount": "1", "scopes": scopes, "purpose": "marketing"}, also=(200, 403))
        ask("/v1/spends", body={"amount": "1", "scopes": scopes, "purpose": "targeting"}, also=(403,))
        ask("/v1/spends", body={"amount": "1000000", "scopes": scopes}, also=(403,))
        ask("/v1/spends", body={"amount": person, "scopes": scopes}, also=(400,))
        ask("/v1/spends", body={"amount": "1", "scopes": scopes, person: NOTE}, also=(400,))
        ask(f"/v1/nowhere/{name}?customer_id={name}", "GET", also=(404,))
        ask("/v1/spends:batch", body={"amounts": ["1", "2"], "scopes": scopes, "key": KEYS[2] + person})
        ask("/v1/checks", body={"amount": "1", "scopes": scopes})
        ask("/v1/records", body={"amount": "1", "scopes": scopes})
        hold = ask("/v1/reservations", body={"amount": "2", "scopes": scopes, "key": KEYS[3] + person})["id"]
        ask(f"/v1/reservations/{hold}/commit", body={"amount": "1"})
        hold = ask("/v1/reservations", body={"amount": "2", "scopes": scopes})["id"]
        ask(f"/v1/reservations/{hold}/release")
        ask("/v1/halts", body={"pattern": f"customer:{person}", "note": NOTE})
        ask("/v1/spends", body={"amount": "1", "scopes": scopes}, also=(403,))
        ask(f"/v1/halts?pattern={quote('customer:' + person, safe='')}", "DELETE")
        ask(f"/dsr/create?customer_id={name}&type=ACCESS&requested_by={quote(REQUESTER)}", also=(200, 201))
        ask("/v1/requests", body={"customer_id": person, "type": "OBJECTION", "details": DETAILS, "requested_by": REQUESTER, "key": KEYS[0] + "r" + person})  # fmt: skip
        made = ask(
            "/v1/requests",
            body={"customer_id": person, "type": "PORTABILITY", "details": DETAILS, "requested_by": REQUESTER}
            | {"agent": GUARDIAN, "ip_address": PROXY_IP, "user_agent": AGENT},
        )
        at = f"/v1/requests/{made['request_id']}"
        ask(f"{at}/verify", body={"operator": DESK, "agent_proof": PROOF, "note": NOTE})
        ask(f"{at}/assign", body={"to": DESK})
        ask(f"{at}/pause", body={"note": NOTE}, also=(200, 400, 409))
        ask(f"{at}/resume", body={"note": NOTE}, also=(200, 400, 409))
        ask(at, "GET")
        ask(f"/v1/requests?customer_id={name}", "GET")
        ask("/v1/legal-holds", body={"reference": "matter 7", "customer_id": person})
        ask(f"/v1/legal-holds?reference=matter%207&customer_id={name}", "DELETE")
    ask("/v1/legal-holds", "GET")
    ask("/v1/requests", "GET")
    ask("/v1/consents", "GET")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A service that was told every canary, and is still running."""
    with shield_in(tmp_path_factory.mktemp("planted"), MAX_BURST_BUDGET="5000", LOG_LEVEL="DEBUG") as shield:
        plant(shield)
        yield shield


def test_no_byte_anywhere_holds_a_canary(planted):
    """Not in database, log, CSV, key files, output, metrics or health, while it runs and after it ended."""
    view, end = planted.data / "shield_audit_gdpr.csv", time.monotonic() + END_SECONDS
    while not (view.exists() and b"DENIED" in view.read_bytes()):  # it follows the ledger in a process of its own
        assert time.monotonic() < end
        time.sleep(0.05)
    running = bytes_of(planted, **watched(planted))
    assert {"data/shield.db", "data/shield.db-wal", "data/shield-subjects.db", "data/master.key"} <= set(running)
    needles = {form for canary in CANARIES for form in forms(canary)} | {word.encode() for word in WORDS}
    needles |= {word.lower().encode() for word in WORDS if len(word) > 5}
    assert [] == found_in(running, needles)
    planted.until("/readyz", 200)
    assert b"DENIED" in running["data/shield_audit_gdpr.csv"]
    planted.process.terminate()
    assert planted.wait() == 0
    assert [] == found_in(bytes_of(planted), needles)
    planted.start()


def test_the_canaries_are_there_for_whoever_has_the_key(planted):
    """Or the test above would look for what never came in: opened with the master key, every one is found."""
    reader = SqliteReader(planted.data / "shield.db")
    store = opened_keys(planted)
    subjects = Subjects(store, KeySource(file=planted.data / "master.key"))
    try:
        told = b"".join(subjects.open(part) for entry in read_entries(reader) for part in entry.sealed)
        names = {subjects.identity(key.hex()) for key, _ in store.scan(SUBJECTS)}
    finally:
        reader.close()
        store.close()
    assert {f"customer:{person}" for person in PERSONS} <= names
    wanted = (PROXY_IP, PROXY_IP6, AGENT, NOTE, NOTICE, DETAILS, GUARDIAN, REQUESTER, PROOF)
    assert [] == [canary for canary in wanted if canary.encode() not in told]


def opened_keys(shield: Shield) -> SqliteStore:
    """The key store of a running service, read from a copy: its lock is the service's."""
    copy = shield.directory.parent / f"{shield.directory.name}-keys-{os.urandom(4).hex()}"
    copy.mkdir()
    for path in shield.data.glob("shield-subjects.db*"):
        if not path.name.endswith((".lock", "-shm")):
            (copy / path.name).write_bytes(path.read_bytes())
    return SqliteStore(copy / "shield-subjects.db")


# -- erasure -------------------------------------------------------------------------------------------


def kiki(shield: Shield, *words: str, code: int = 0) -> str:
    """A command of the CLI over the same directory."""
    environ = os.environ | {name: value for name, value in shield.environ.items() if name != "PORT"}
    done = subprocess.run([sys.executable, "-m", "kiki", *words], env=environ, cwd=shield.directory, capture_output=True, text=True, check=False)  # fmt: skip
    assert code == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_an_erased_person_is_in_no_byte_and_every_checkpoint_still_verifies(tmp_path):
    """By the commands of a privacy officer: the wrapped key and the directory's hash are gone, the tree is what it was."""
    with shield_in(tmp_path, MAX_BURST_BUDGET="5000") as shield:
        plant(shield)
        shield.process.terminate()
        assert shield.wait() == 0
    source, path = KeySource(file=shield.data / "master.key"), shield.data / "shield-subjects.db"
    store = SqliteStore(path)
    subjects = Subjects(store, source)
    person, other = subjects.find(f"customer:{EMAIL}"), subjects.find(f"customer:{ID}")
    row = store.get(SUBJECTS, bytes.fromhex(person.reference))
    lookup = subjects.keyed_hash(f"customer:{EMAIL}")
    needles = [lookup, *[part for part in flattened(msgspec.msgpack.decode(row)) if len(part) > 16], person.key]
    assert {path.name} <= {name.rpartition("/")[2] for name, _ in found_in(bytes_of(shield), needles)}
    store.close()
    before = notes(shield)
    kiki(shield, "audit", "verify")

    made = json.loads(kiki(shield, "dsr", "create", EMAIL, "DELETION", "--details", DETAILS, "--json"))
    kiki(shield, "dsr", "verify", made["request_id"], "--note", NOTE)
    kiki(shield, "dsr", "run", made["request_id"])

    assert [] == found_in(bytes_of(shield), needles)
    gone = forms(EMAIL) | {b"Quokka", b"Zanzibar", NOTE.encode(), DETAILS.encode()}
    assert [] == found_in(bytes_of(shield), gone)
    kiki(shield, "audit", "verify")
    assert before == {size: note for size, note in notes(shield).items() if size in before}
    store = SqliteStore(path)
    subjects = Subjects(store, source)
    assert subjects.find(f"customer:{EMAIL}") is subjects.person_of(person.reference) is None
    assert lookup not in dict(store.scan(DIRECTORY))
    assert subjects.erased_at(f"customer:{EMAIL}") is not None
    assert other == subjects.find(f"customer:{ID}"), "nobody else was erased"
    store.close()
    facts = kept_facts(shield)
    assert any(person.reference in str(fact.scopes) for fact in facts if isinstance(fact, Decided))
    assert any(person.reference == fact.subject for fact in facts if isinstance(fact, ConsentChanged))
    with shield_in(tmp_path, MAX_BURST_BUDGET="5000") as again:
        assert {} == json.loads(again.ask(f"/consent/status?customer_id={quote(EMAIL)}")[1])
        assert again.status("/spend?amount=1") == 200
    assert [] == found_in(bytes_of(again), needles)


def flattened(value) -> list[bytes]:
    return [value] if isinstance(value, bytes) else [part for each in value for part in flattened(each)]


def kept_facts(shield: Shield) -> list:
    reader = SqliteReader(shield.data / "shield.db")
    try:
        return [decode_fact(entry) for entry in read_entries(reader)]
    finally:
        reader.close()


def notes(shield: Shield) -> dict[int, bytes]:
    """Every checkpoint, opened with the ledger's key, against the tree over the entries that are there."""
    key = VerifierKey.parse(kiki(shield, "audit", "key").strip())
    reader = SqliteReader(shield.data / "shield.db")
    try:
        leaves = [leaf_hash(data) for _, data in reader.entries()]
        found = {}
        for _, note in reader.scan(CHECKPOINTS):
            checkpoint, _ = open_note(note, key)
            tree = Tree()
            tree.extend(leaves[: checkpoint.size])
            assert tree.root() == checkpoint.root
            found[checkpoint.size] = note
        assert found
        return found
    finally:
        reader.close()
