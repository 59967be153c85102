"""One worker for all who wait: nobody's result is lost, doubled or given to another."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kiki.ledger import group_commit
from kiki.ledger.group_commit import AsyncLead, GroupCommit


class Squares:
    """Works off numbers: each ticket gets its square, each batch is remembered."""

    def __init__(self):
        self.batches = []
        self.working = 0
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, batch):
        self.working += 1
        assert self.working == 1  # one batch at a time
        self.batches.append([ticket.item for ticket in batch])
        self.entered.set()
        self.go_on.wait(60)
        for ticket in batch:
            if ticket.item < 0:
                ticket.fail(ValueError(f"{ticket.item} is negative"))
            else:
                ticket.resolve(ticket.item**2)
        self.working -= 1


def in_threads(count, act):
    """Run `act(index)` in `count` threads that start together; what each returned or raised."""
    found = [None] * count
    ready = threading.Barrier(count)

    def run(index):
        ready.wait()
        try:
            found[index] = act(index)
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return found


def test_every_caller_gets_its_own_result():
    """Fifty threads, each with many items: the right result for each, each item worked off once."""
    squares = Squares()
    group = GroupCommit(squares)

    def ask(index):
        return [group.submit(index * 100 + number).result() for number in range(40)]

    assert [[(i * 100 + n) ** 2 for n in range(40)] for i in range(50)] == in_threads(50, ask)
    worked = [item for batch in squares.batches for item in batch]
    assert sorted(i * 100 + n for i in range(50) for n in range(40)) == sorted(worked)


def test_nothing_is_worked_off_before_somebody_waits():
    """Submitting alone does no work; the first to wait works off all, in the order they came."""
    squares = Squares()
    group = GroupCommit(squares)
    tickets = [group.submit(number) for number in range(5)]
    assert squares.batches == []
    assert tickets[3].result() == 9
    assert squares.batches == [[0, 1, 2, 3, 4]]
    assert [ticket.result() for ticket in tickets] == [0, 1, 4, 9, 16]
    assert len(squares.batches) == 1


def test_what_comes_during_a_batch_shares_the_next():
    """While one batch is being worked off, all who come gather into a single next one."""
    squares = Squares()
    group = GroupCommit(squares)
    squares.go_on.clear()
    first = threading.Thread(target=lambda: group.submit(0).result())
    first.start()
    assert squares.entered.wait(60)
    found = []
    others = [threading.Thread(target=lambda n=n: found.append(group.submit(n).result())) for n in range(1, 21)]
    for thread in others:
        thread.start()
    while len(group.waiting) < 20:
        pass
    squares.go_on.set()
    for thread in [first, *others]:
        thread.join(60)
    assert squares.batches[0] == [0]
    assert [list(range(1, 21))] == [sorted(batch) for batch in squares.batches[1:]]
    assert [n**2 for n in range(1, 21)] == sorted(found)


def test_a_batch_has_a_largest_size():
    """More than `batch_max` items take several batches, in order."""
    squares = Squares()
    group = GroupCommit(squares, batch_max=4)
    tickets = [group.submit(number) for number in range(10)]
    group.drain()
    assert squares.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [number**2 for number in range(10)] == [ticket.result() for ticket in tickets]


def test_one_bad_item_fails_alone():
    """A ticket that the worker fails raises for its own caller; its neighbours have their results."""
    group = GroupCommit(Squares())
    good, bad, other = group.submit(2), group.submit(-1), group.submit(3)
    assert good.result() == 4
    with pytest.raises(ValueError, match="-1 is negative"):
        bad.result()
    assert other.result() == 9


def test_a_worker_that_raises_fails_its_batch_and_no_other():
    """Tickets that were done keep their results, the open ones get the error, and the next batch goes on."""
    broken = [True]

    def work(batch):
        batch[0].resolve("done")
        if broken[0]:
            raise RuntimeError("worker broke")
        for ticket in batch[1:]:
            ticket.resolve("later")

    group = GroupCommit(work)
    tickets = [group.submit(number) for number in range(3)]
    assert tickets[0].result() == "done"
    for ticket in tickets[1:]:
        with pytest.raises(RuntimeError, match="worker broke"):
            ticket.result()
    broken[0] = False
    assert group.submit(0).result() == "done"
    more = [group.submit(number) for number in range(2)]
    assert [ticket.result() for ticket in more] == ["done", "later"]


def test_an_interrupt_reaches_its_thread_and_fails_the_rest():
    """Ctrl-C in a leading thread is raised there; the batch's other callers get an error and do not hang."""
    once = [KeyboardInterrupt()]

    def work(batch):
        if once:
            raise once.pop()
        for ticket in batch:
            ticket.resolve("ok")

    group = GroupCommit(work)
    mine, other = group.submit(1), group.submit(2)
    with pytest.raises(KeyboardInterrupt):
        mine.result()
    assert other.done
    assert other.error is not None
    assert group.submit(3).result() == "ok"


def test_an_interrupt_of_one_thread_is_not_raised_in_another():
    """Only the thread that was interrupted sees the interrupt; the others see a failure they can catch."""

    def work(batch):
        raise KeyboardInterrupt

    group = GroupCommit(work)
    mine, other = group.submit(1), group.submit(2)
    with pytest.raises(KeyboardInterrupt):
        mine.result()
    try:
        other.result()
    except BaseException as error:
        raised = error
    assert isinstance(raised, Exception)


def test_an_interrupted_waiter_does_not_take_the_others_turn():
    """Ctrl-C in a thread that only waits: its item is still worked off, and the others that wait are answered."""
    squares = Squares()
    group = GroupCommit(squares)
    squares.go_on.clear()
    leader = threading.Thread(target=lambda: group.submit(1).result(), daemon=True)
    leader.start()
    assert squares.entered.wait(60)
    found = []
    mine, other = group.submit(2), group.submit(3)
    waiter = threading.Thread(target=lambda: found.append(other.result()), daemon=True)
    waiter.start()

    def interrupted(number, frame):
        raise KeyboardInterrupt

    this = threading.get_ident()

    def interrupt():
        while sys._current_frames()[this].f_code.co_filename != group_commit.__file__:
            time.sleep(0.001)  # until it waits: it does so until it is interrupted
        signal.pthread_kill(this, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            mine.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    squares.go_on.set()
    leader.join(60)
    waiter.join(60)
    assert found == [9]
    assert mine.done


def test_a_failure_raised_again_and_again_does_not_grow():
    """The same error given to a thousand callers keeps no trace of each: an outage must not fill the memory."""
    failure = RuntimeError("down")

    def work(batch):
        raise failure

    group = GroupCommit(work)

    def depth():
        length, trace = 0, failure.__traceback__
        while trace is not None:
            length, trace = length + 1, trace.tb_next
        return length

    for _ in range(1000):
        with pytest.raises(RuntimeError, match="down"):
            group.submit(0).result()
    assert depth() < 20


def test_exclusively_runs_between_batches():
    """While somebody acts exclusively no batch runs, and those who wait get their results afterwards."""
    squares = Squares()
    group = GroupCommit(squares)
    seen = []

    def act():
        waiter = threading.Thread(target=lambda: seen.append(group.submit(3).result()))
        waiter.start()
        while not group.waiting:
            pass
        waiter.join(0.05)
        assert seen == []
        return waiter

    waiter = group.exclusively(act)
    waiter.join(60)
    assert seen == [9]


def test_drain_waits_for_the_batch_that_is_being_worked_off():
    """After `drain` everything submitted before is done, also what another thread had already taken up."""
    squares = Squares()
    group = GroupCommit(squares)
    squares.go_on.clear()
    ticket = group.submit(4)
    leader = threading.Thread(target=ticket.result)
    leader.start()
    assert squares.entered.wait(60)
    threading.Timer(0.1, squares.go_on.set).start()
    group.drain()
    was_done = ticket.done
    leader.join(60)
    assert was_done


# -- from an event loop --------------------------------------------------------------------------------


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_coroutines_get_their_own_results(executor):
    """A thousand awaited items: the right result for each, and far fewer batches than items."""
    squares = Squares()
    lead = AsyncLead(GroupCommit(squares), executor)
    found = await asyncio.gather(*(lead.submit(number) for number in range(1000)))
    assert [number**2 for number in range(1000)] == found
    assert len(squares.batches) <= 3
    assert await lead.submit(7) == 49


async def test_waves_of_coroutines_are_all_answered(executor):
    """Items that come while a batch runs are answered by the next, again and again."""
    squares = Squares()
    lead = AsyncLead(GroupCommit(squares, batch_max=16), executor)

    async def caller(index):
        found = []
        for number in range(20):
            found.append(await lead.submit(index * 20 + number))
            await asyncio.sleep(0)
        return found

    found = await asyncio.gather(*(caller(index) for index in range(30)))
    assert [[(i * 20 + n) ** 2 for n in range(20)] for i in range(30)] == found
    worked = [item for batch in squares.batches for item in batch]
    assert list(range(600)) == sorted(worked)


async def test_who_stops_waiting_undoes_nothing(executor):
    """A cancelled caller's item is worked off once all the same, and its neighbours are answered."""
    squares = Squares()
    lead = AsyncLead(GroupCommit(squares), executor)
    squares.go_on.clear()
    first = asyncio.ensure_future(lead.submit(1))
    await asyncio.sleep(0.05)

    async def wait(number):
        return await lead.submit(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(2, 8)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    await asyncio.sleep(0)
    squares.go_on.set()
    found = await asyncio.wait_for(asyncio.gather(first, *tasks, return_exceptions=True), 60)
    kept = [each for each in found if not isinstance(each, BaseException)]
    assert kept == [1, 9, 16, 36, 49]
    assert sum(isinstance(each, asyncio.CancelledError) for each in found) == 2
    assert list(range(1, 8)) == sorted(item for batch in squares.batches for item in batch)


async def test_errors_reach_the_awaiting_caller(executor):
    """A failed item raises where it is awaited, a broken worker fails its batch, and the next is fine."""
    broken = [False]

    def work(batch):
        if broken[0]:
            raise RuntimeError("worker broke")
        for ticket in batch:
            ticket.resolve(ticket.item) if ticket.item else ticket.fail(ValueError("zero"))

    lead = AsyncLead(GroupCommit(work), executor)
    found = await asyncio.gather(lead.submit(1), lead.submit(0), return_exceptions=True)
    assert found[0] == 1
    assert isinstance(found[1], ValueError)
    broken[0] = True
    with pytest.raises(RuntimeError, match="worker broke"):
        await lead.submit(1)
    broken[0] = False
    assert await asyncio.wait_for(lead.submit(2), 60) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_worker_that_exits_leaves_nobody_waiting(executor):
    """Even SystemExit in the worker answers those who wait, and later callers are served."""
    once = [SystemExit(1)]

    def work(batch):
        if once:
            raise once.pop()
        for ticket in batch:
            ticket.resolve("ok")

    lead = AsyncLead(GroupCommit(work), executor)
    (found,) = await asyncio.wait_for(asyncio.gather(lead.submit(1), return_exceptions=True), 60)
    assert isinstance(found, BaseException)
    assert await asyncio.wait_for(lead.submit(2), 60) == "ok"


async def test_a_batch_led_by_another_thread_answers_its_coroutines(executor):
    """A thread that shares the group may work off what a coroutine awaits: the coroutine is told."""
    squares = Squares()
    group = GroupCommit(squares)
    lead = AsyncLead(group, executor)
    future = lead.submit(5)
    found = await asyncio.get_running_loop().run_in_executor(None, lambda: group.submit(6).result())
    assert found == 36
    assert await asyncio.wait_for(future, 60) == 25


async def test_coroutines_and_threads_share_one_group(executor):
    """Callers of both kinds, mixed, are all answered."""
    squares = Squares()
    group = GroupCommit(squares)
    lead = AsyncLead(group, executor)
    threads = asyncio.get_running_loop().run_in_executor(
        None, in_threads, 8, lambda i: [group.submit(i * 50 + n).result() for n in range(50)]
    )
    own = [await asyncio.wait_for(lead.submit(1000 + n), 60) for n in range(200)]
    assert [(1000 + n) ** 2 for n in range(200)] == own
    assert [[(i * 50 + n) ** 2 for n in range(50)] for i in range(8)] == await threads


def test_a_loop_that_is_gone_does_not_disturb_the_thread_that_leads(executor):
    """What a coroutine of a closed loop had asked for is worked off, and the thread that did it has its own result."""
    group = GroupCommit(Squares())

    async def ask_and_leave():
        lead = AsyncLead(group, executor)
        lead._busy = True  # nobody of this loop comes round to lead
        lead.submit(5)

    asyncio.run(ask_and_leave())
    assert group.submit(6).result() == 36
