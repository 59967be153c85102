"""A system over HTTP: real calls to a receiver that was written from the documentation alone, with every fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kiki.errors import InvalidInput, KikiError, StillWorking, SystemUnavailable
from kiki.settings import Secret
from kiki.shield.dsr import Kind, State
from kiki.shield.opening import open_decider
from kiki.shield.remote_data import RemoteData
from kiki.shield.request_desk import RequestDesk
from kiki.shield.subject_data import Task
from kiki.shield.subject_request import Kept
from kiki.shield.subject_systems import SystemConfig
from tests.ledger.doubles import FakeClock
from tests.shield.subject_receiver import SECRET, SubjectReceiver, serving

TASK = Task("DSR-1-00000000", Kind.DELETION, "c-1", "ab" * 16, ["marketing"])


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[SubjectReceiver, str]]:
    receiver = SubjectReceiver()
    with serving(receiver) as url:
        yield receiver, url


@pytest.fixture
def receiver(served) -> SubjectReceiver:
    receiver, _ = served
    receiver.__init__()
    receiver.records["c-1"] = ["order 1", "order 2"]
    return receiver


@pytest.fixture
def crm(served, receiver) -> RemoteData:
    config = SystemConfig("crm", served[1], Secret(SECRET), ("shop",), 60)
    return RemoteData(config, patience_seconds=0.2, sleep=lambda _: None)


def test_every_method_does_what_it_says(crm: RemoteData, receiver: SubjectReceiver):
    assert ("crm", ("shop",)) == (crm.name, crm.depends_on)
    assert (2, ["orders"]) == crm.locate(TASK)
    crm.restrict(TASK)
    assert {"c-1": ["marketing"]} == receiver.restricted
    documents = {document.name: b"".join(document.parts) for document in crm.export(TASK)}
    assert {"orders.txt": b"order 1\norder 2\n", "photo.png": b"\x89PNG"} == documents
    assert 2 == crm.rectify(TASK, {"name": "Zoë"})
    assert ["name=Zoë"] == receiver.records["c-1"]
    assert (1, []) == crm.erase(TASK)
    assert (0, 1) == crm.verify(TASK)


def test_what_is_kept_is_read_and_checked(crm: RemoteData, receiver: SubjectReceiver):
    receiver.kept = [
        {"reason": "tax_records", "article": "GDPR 17(3)(b)", "until": "2030-01-01T00:00:00Z", "records": 3}
    ]
    assert [Kept("tax_records", "GDPR 17(3)(b)", 1893456000000000, 3)] == crm.erase(TASK).kept
    for wrong in (
        {"reason": "Mr Smith's taxes", "article": "GDPR 17"},
        {"reason": "tax", "article": ""},
        {"reason": "tax", "article": "GDPR 17", "until": "soon"},
        {"reason": "tax", "article": "GDPR 17", "records": -1},
    ):
        receiver.kept = [wrong]
        receiver.done.clear()
        with pytest.raises(InvalidInput):
            crm.erase(TASK)


@pytest.mark.parametrize("method", ["locate", "restrict", "erase", "verify"])
def test_a_call_that_failed_once_is_made_again_under_the_same_key(
    crm: RemoteData, receiver: SubjectReceiver, method: str
):
    for mood in ("once", "lost"):
        receiver.mood[method] = mood
        getattr(crm, method)(TASK)
    assert {(method, f"DSR-1-00000000:{method}")} == set(receiver.calls)
    assert receiver.erasures == (method == "erase")


def test_another_round_is_another_key(crm: RemoteData, receiver: SubjectReceiver):
    crm.erase(TASK)
    receiver.records["c-1"] = ["came back"]
    assert 1 == crm.erase(TASK._replace(round=1)).records
    assert ["DSR-1-00000000:erase", "DSR-1-00000000:erase:1"] == [key for _, key in receiver.calls]


@pytest.mark.parametrize(
    ("mood", "calls"),
    [(400, 1), (401, 1), (403, 1), (404, 1), (302, 1), (500, 3), (503, 3), (429, 3), ("garbage", 1), ("huge", 1)],
)
def test_what_is_no_answer_is_an_error_that_names_nobody(
    crm: RemoteData, receiver: SubjectReceiver, mood: object, calls: int
):
    receiver.mood["erase"] = mood
    with pytest.raises(SystemUnavailable, match="crm") as caught:
        crm.erase(TASK)
    assert calls == len(receiver.calls)
    for needle in ("c-1", SECRET, "http"):
        assert needle not in f"{caught.value} {caught.value.hint}"


def test_counts_are_counts(crm: RemoteData, receiver: SubjectReceiver):
    for method in ("locate", "erase", "verify"):
        receiver.mood[method] = "negative"
        with pytest.raises(InvalidInput):
            getattr(crm, method)(TASK)


def test_another_secret_and_a_wrong_clock_are_refused_with_a_hint(served, crm: RemoteData, receiver: SubjectReceiver):
    stranger = RemoteData(SystemConfig("crm", served[1], Secret("another secret of somebody")))
    with pytest.raises(SystemUnavailable) as caught:
        stranger.locate(TASK)
    assert "same secret" in caught.value.hint
    receiver.skew = 400
    with pytest.raises(SystemUnavailable, match="401"):
        crm.locate(TASK)


def test_nobody_there_and_nobody_who_answers(served, crm: RemoteData, receiver: SubjectReceiver):
    nobody = RemoteData(SystemConfig("crm", "http://127.0.0.1:1/privacy", Secret(SECRET)), sleep=lambda _: None)
    with pytest.raises(SystemUnavailable, match="did not answer: ConnectError"):
        nobody.locate(TASK)
    hurried = RemoteData(SystemConfig("crm", served[1], Secret(SECRET), (), 0.1), sleep=lambda _: None)
    receiver.mood["locate"] = "slow"
    with pytest.raises(SystemUnavailable, match="ReadTimeout"):
        hurried.locate(TASK)


def test_long_work_is_asked_for_until_it_is_done(crm: RemoteData, receiver: SubjectReceiver):
    receiver.mood["erase"] = "works"
    asked = []

    def sleep(_seconds):
        asked.append(len(receiver.calls))
        receiver.release = len(asked) > 2

    patient = RemoteData(crm._config, patience_seconds=60, sleep=sleep)
    assert 7 == patient.erase(TASK).records
    assert ["erase", "job", "job", "job"] == [method for method, _ in receiver.calls]
    assert {"DSR-1-00000000:erase"} == {key for _, key in receiver.calls}


def test_work_that_takes_longer_than_a_run_waits_is_left_to_the_next_attempt(
    crm: RemoteData, receiver: SubjectReceiver
):
    receiver.mood["erase"] = "works"
    with pytest.raises(StillWorking) as caught:
        crm.erase(TASK)
    assert caught.value.retry_after >= 30
    receiver.release = True
    assert 2 == crm.erase(TASK).records


def test_nobody_is_sent_elsewhere(crm: RemoteData, receiver: SubjectReceiver):
    receiver.mood["erase"] = "elsewhere"
    with pytest.raises(SystemUnavailable, match="Location of its own"):
        crm.erase(TASK)


def test_an_export_without_its_end_is_no_export(crm: RemoteData, receiver: SubjectReceiver):
    for mood in ("cut", "garbage"):
        receiver.mood["export"] = mood
        with pytest.raises(SystemUnavailable):
            [b"".join(document.parts) for document in crm.export(TASK)]


def test_no_word_of_a_secret_is_shown(crm: RemoteData):
    assert SECRET not in f"{crm._config!r} {crm!r} {TASK!r}"
    assert "c-1" not in repr(TASK)


def test_a_whole_deletion_over_http(crm: RemoteData, receiver: SubjectReceiver, served):
    decider = open_decider(None, None, clock=FakeClock())
    remote = RemoteData(SystemConfig("crm", served[1], Secret(SECRET)), sleep=lambda _: None)
    desk = RequestDesk(decider, [remote])
    record = desk.create("c-1", "DELETION")
    desk.verify_identity(record.id, method="operator", actor="anna")
    receiver.mood["erase"] = 500
    waits = desk.run(record.id)
    assert (State.WAITING, "system_unavailable") == (waits.state, waits.request.systems["crm"].failure)
    receiver.mood.clear()
    try:
        done = desk.run(record.id)
    except KikiError as error:  # the message says more than the type
        pytest.fail(str(error))
    assert (State.COMPLETED, 2, []) == (done.state, done.request.systems["crm"].erased, receiver.records["c-1"])
    desk.close()
    decider.close()
