"""A line for threads: one loop for all of them, and the same outcomes."""

from __future__ import annotations

import os
import threading

from kiki.outbound.blocking_line import BlockingLine
from kiki.outbound.exchange import Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.outcome import Outcome
from tests.engage.fakes.service import SHORT_SECONDS, Answer, FakeService, Fault, once_taken

READ = Request(method="GET", path="x", write=False)
WRITE = Request(method="POST", path="x", write=True, json={})


class Echo(FakeService):
    def handle(self, _call) -> Answer:
        return Answer(200, {"process": os.getpid()})


def test_threads_share_a_loop_and_each_gets_its_answer():
    with Echo() as echo, BlockingLine(lambda: Line(echo.url)) as one, BlockingLine(lambda: Line(echo.url)) as two:
        answers: list[Reply | Outcome] = []
        threads = [
            threading.Thread(target=lambda line=line: answers.append(line.send(READ)))
            for line in (one, two)
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 20 == sum(isinstance(answer, Reply) for answer in answers)
    assert 1 == sum(thread.name == "kiki-outbound" for thread in threading.enumerate())


def test_silence_means_what_it_means_on_a_line():
    with Echo() as echo:
        with BlockingLine(lambda: Line(echo.url)) as line:
            echo.faults.append(Fault.CUT_AFTER_TAKING)
            lost = line.send(WRITE)
        echo.calls.clear()
        echo.faults.append(Fault.SILENCE_AFTER_TAKING)

        def attempt() -> Outcome:
            with BlockingLine(lambda: Line(echo.url, timeout_seconds=SHORT_SECONDS)) as line:
                answer = line.send(WRITE)
            assert isinstance(answer, Outcome)
            return answer

        late = once_taken(echo, attempt)
    assert isinstance(lost, Outcome)
    assert (("unknown", "connection_lost"), ("unknown", "timeout")) == (
        (lost.fate.value, lost.code),
        (late.fate.value, late.code),
    )
