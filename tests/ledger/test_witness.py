"""The client of a witness, against one that was written from the specification and trusts nobody."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki.errors import AnchorUnavailable, CheckpointInvalid, SettingsError
from kiki.ledger import anchor_post
from kiki.ledger.checkpoint import LOG_KEY, Checkpoint, Signer, VerifierKey, add_signature, open_note
from kiki.ledger.merkle import Tree, consistency_proof, perfect_root
from kiki.ledger.witness import Witness
from tests.ledger.independent_witness import SEED, running_witness


class Log:
    """A log of leaves in memory."""

    def __init__(self, name="kiki/5f0c2a9b7d3e4f10", salt=b""):
        self.signer = Signer(name, bytes(range(32)))
        self.salt = salt
        self.proofs = []

    def leaf(self, index):
        return (index.to_bytes(8, "big") + self.salt).ljust(32, b"\0")[:32]

    def note(self, size):
        tree = Tree()
        tree.extend(self.leaf(index) for index in range(size))
        return self.signer.sign(Checkpoint(self.signer.name, size, tree.root(), ("time 2026-11-22T10:00:00.000001Z",)))

    def node(self, height, index):
        return perfect_root([self.leaf(leaf) for leaf in range(index << height, (index + 1) << height)])

    def proof(self, old, new):
        self.proofs.append((old, new))
        return consistency_proof(self.node, old, new)


@pytest.fixture(scope="module")
def running():
    with running_witness() as witness:
        yield witness


@pytest.fixture
def witness(running):
    running.mood = "honest"
    running.trusted.clear()
    running.largest.clear()
    running.requests.clear()
    running.trust(Log().signer.verifier_key)
    return running


@pytest.fixture
def client(witness):
    return Witness(witness.url, witness.key)


def test_a_checkpoint_comes_back_cosigned_and_the_cosignature_verifies(witness, client):
    log = Log()
    signature = client.cosign(log.note(7), 0, log.proof)
    note = add_signature(log.note(7), signature)
    _, signatures = open_note(note, log.signer.key, VerifierKey.parse(witness.key))
    assert [True, True] == [one.verified for one in signatures]
    assert witness.now == signatures[1].seen_at


def test_the_request_is_as_the_specification_has_it(witness, client):
    log = Log()
    client.cosign(log.note(4), 0, log.proof)
    client.cosign(log.note(6), 4, log.proof)
    first, second = witness.requests
    assert "old 0\n\n" + log.note(4).decode() == first
    lines = second.split("\n")
    assert "old 4" == lines[0]
    assert "" == lines[1 + len(log.proof(4, 6))]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_any_growth_is_cosigned(witness, client, steps):
    witness.largest.clear()
    log, size = Log(), 0
    for step in steps:
        client.cosign(log.note(size + step), size, log.proof)
        size += step
    assert size == witness.largest[log.signer.name][0]


@pytest.mark.parametrize("thought", [0, 3, 9])
def test_a_witness_that_knows_another_size_says_so_and_gets_the_right_proof(client, thought):
    """After a crash, or with a new process, nobody here knows what it cosigned last."""
    log = Log()
    client.cosign(log.note(5), 0, log.proof)
    log.proofs.clear()
    client.cosign(log.note(9), thought, log.proof)
    assert (5, 9) == log.proofs[-1]


def test_the_same_checkpoint_may_be_cosigned_again(client):
    log = Log()
    client.cosign(log.note(5), 0, log.proof)
    client.cosign(log.note(5), 5, log.proof)
    client.cosign(log.note(5), 0, log.proof)


def test_a_rewritten_ledger_of_the_same_size_is_found_out(client):
    log, rewritten = Log(), Log(salt=b"rewritten")
    client.cosign(log.note(5), 0, log.proof)
    for thought in (0, 5):
        with pytest.raises(CheckpointInvalid, match="one of the two was rewritten"):
            client.cosign(rewritten.note(5), thought, rewritten.proof)


def test_a_ledger_that_did_not_grow_from_what_was_cosigned_is_found_out(client):
    log, rewritten = Log(), Log(salt=b"rewritten")
    client.cosign(log.note(5), 0, log.proof)
    with pytest.raises(CheckpointInvalid, match="does not find that"):
        client.cosign(rewritten.note(9), 5, rewritten.proof)


def test_a_ledger_that_lost_entries_is_found_out(client):
    """A restored backup: the witness remembers more than the ledger has."""
    log = Log()
    client.cosign(log.note(9), 0, log.proof)
    for thought in (0, 5, 9):
        with pytest.raises(CheckpointInvalid, match=r"cosigned 9 entries .* has 5: entries were lost"):
            client.cosign(log.note(5), thought, log.proof)


@pytest.mark.parametrize(
    ("mood", "error", "message"),
    [
        ("forger", CheckpointInvalid, "does not belong to this text"),
        ("stranger", CheckpointInvalid, "without a cosignature of witness.example/w1"),
        ("silent", CheckpointInvalid, "without a cosignature"),
        ("garbage", CheckpointInvalid, "without a cosignature"),
        ("broken", AnchorUnavailable, "answered 500"),
        ("fibber", AnchorUnavailable, "keeps naming other sizes"),
        ("endless", AnchorUnavailable, "sent more than"),
    ],
)
def test_a_witness_that_misbehaves_is_believed_nothing(witness, client, mood, error, message):
    log = Log()
    witness.mood = mood
    with pytest.raises(error, match=message) as caught:
        client.cosign(log.note(50), 0, log.proof)
    assert "secret" not in str(caught.value)
    assert len(witness.requests) <= 3


def test_a_log_that_the_witness_does_not_know_hears_what_to_do(witness, client):
    log = Log("kiki/0000000000000000")
    with pytest.raises(AnchorUnavailable, match="404") as caught:
        client.cosign(log.note(5), 0, log.proof)
    assert "register the log kiki/0000000000000000" in caught.value.hint
    witness.trust(Signer(log.signer.name, b"x" * 32).verifier_key)
    with pytest.raises(AnchorUnavailable, match="403") as caught:
        client.cosign(log.note(5), 0, log.proof)
    assert "verifier key" in caught.value.hint


def test_a_witness_that_is_not_there_is_unavailable_and_its_password_is_not_said():
    log = Log()
    client = Witness("http://user:canary@127.0.0.1:1/", VerifierKey.of_seed("w", SEED, 4).text)
    with pytest.raises(AnchorUnavailable, match=r"127\.0\.0\.1 did not answer: ConnectError") as caught:
        client.cosign(log.note(5), 0, log.proof)
    assert "canary" not in str(caught.value)


def test_a_witness_that_drips_its_answer_is_given_up(monkeypatch):
    """Every byte comes in time, and the whole never ends."""
    monkeypatch.setattr(anchor_post, "WHOLE_SECONDS", 0.2)
    enough = threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            while not enough.wait(0.05):
                self.wfile.write(b"\n")
                self.wfile.flush()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Dripping)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    log = Log()
    try:
        with pytest.raises(AnchorUnavailable, match="took too long"):
            Witness(f"http://127.0.0.1:{server.server_port}", VerifierKey.of_seed("w", SEED, 4).text).cosign(
                log.note(5), 0, log.proof
            )
    finally:
        enough.set()
        thread.join(60)
        server.server_close()


@pytest.mark.parametrize("key", ["", "witness", "w+00000000+AAAA", VerifierKey.of_seed("w", SEED, LOG_KEY).text])
def test_a_key_that_is_no_witness_key_is_refused(key):
    with pytest.raises(SettingsError, match="KIKI_WITNESS_KEY"):
        Witness("http://127.0.0.1:1", key)
