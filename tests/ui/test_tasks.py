"""One task for each device, in order; cancelled, full, crashed and abandoned queues."""

import logging
import threading
from types import SimpleNamespace

import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.ui import tasks
from dynamicrafter.ui.tasks import ABANDONED, OUT_OF_MEMORY, ClipTask, TaskQueue, is_abandoned


@pytest.fixture
def bench():
    """A queue whose work is to do what the request says, when the gate is open."""
    gate, running, most = threading.Event(), [], []
    lock = threading.Lock()

    def work(task, progress):
        with lock:
            running.append(task)
            most.append(len(running))
        try:
            assert gate.wait(10)
            return task.request(progress) if callable(task.request) else task.request
        finally:
            with lock:
                running.remove(task)

    queues = []

    def make(devices=1, **limits):
        queue = TaskQueue([work] * devices, **{"most_waiting": 5, "most_each": 5, **limits})
        queues.append(queue)
        return queue

    yield SimpleNamespace(make=make, gate=gate, most=most)
    gate.set()
    for queue in queues:
        queue.close()


def _poll(condition):
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(1000))


def test_tasks_run_in_order_one_at_a_time(bench):
    queue, done = bench.make(), []
    made = [queue.submit(lambda _, number=number: done.append(number), owner=str(number)) for number in range(4)]
    _poll(lambda: queue.counts == (3, 1))
    assert [queue.place(task) for task in made] == [0, 1, 2, 3]
    bench.gate.set()
    assert all(task.finished.wait(10) for task in made)
    assert done == [0, 1, 2, 3]
    assert max(bench.most) == 1


def test_two_devices_work_at_two_tasks_at_once(bench):
    queue = bench.make(devices=2)
    for number in range(3):
        queue.submit(number, owner="me")
    assert _poll(lambda: queue.counts == (1, 2))


def test_a_waiting_task_is_cancelled_at_once_and_the_others_move_up(bench):
    queue = bench.make()
    _, second, third = (queue.submit(number, owner="me") for number in range(3))
    assert _poll(lambda: queue.counts == (2, 1))
    seen = third.version
    queue.cancel(second)
    assert second.state == "cancelled"
    assert queue.place(third) == 1
    assert third.version > seen


def test_a_running_task_is_cancelled_at_its_next_step(bench):
    queue, steps = bench.make(), []

    def work(progress):
        for step in range(1, 100):
            progress.on_step(step, 100)
            steps.append(step)
            if step == 3:
                queue.cancel(task)

    task = queue.submit(work, owner="me")
    bench.gate.set()
    assert task.finished.wait(10)
    assert task.state == "cancelled"
    assert steps == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("steps must be less."), "steps must be less."),
        (MemoryError(), OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate"), OUT_OF_MEMORY),
    ],
)
def test_a_failure_is_said_in_words_and_the_next_task_runs(bench, error, said):
    queue = bench.make()

    def fail(_):
        raise error

    task, following = queue.submit(fail, owner="me"), queue.submit("fine", owner="me")
    bench.gate.set()
    assert following.finished.wait(10)
    assert (task.state, task.problem) == ("failed", said)
    assert (following.state, following.result) == ("done", "fine")


def test_a_full_queue_and_a_full_share_of_it_are_refused(bench):
    queue = bench.make(most_waiting=2, most_each=2)
    for _ in range(2):
        queue.submit(0, owner="one")
        _poll(lambda: queue.counts[1] == 1)
    with pytest.raises(InputError, match="you have 2 clips in the queue already"):
        queue.submit(0, owner="one")
    queue.submit(0, owner="two")
    with pytest.raises(InputError, match=r"the queue is full \(2 clips wait\)"):
        queue.submit(0, owner="three")


def test_a_task_that_nobody_watches_any_more_ends(bench, monkeypatch):
    monkeypatch.setattr(tasks, "ABANDONED", -1.0)
    queue = bench.make()
    task = queue.submit(lambda progress: progress.on_step(1, 2), owner="me")
    bench.gate.set()
    assert task.finished.wait(10)
    assert task.state == "cancelled"


def test_a_task_is_abandoned_only_when_long_unwatched():
    task = ClipTask("x", "me", watched=100.0)
    assert not is_abandoned(task, 100 + ABANDONED)
    assert is_abandoned(task, 101 + ABANDONED)
    task.watchers = 1
    assert not is_abandoned(task, 1000 + ABANDONED)


def test_waiting_time_is_estimated_from_the_last_tasks():
    clock = [0.0]
    gate = threading.Semaphore(0)

    def work(task, progress):
        assert gate.acquire(timeout=10)

    queue = TaskQueue([work], most_waiting=9, most_each=9, clock=lambda: clock[0])
    first, second, third = (queue.submit(0, owner="me") for _ in range(3))
    assert _poll(lambda: queue.counts == (2, 1))
    assert queue.seconds_until(1) is None
    clock[0] = 10.0
    gate.release()
    assert first.finished.wait(10)
    assert _poll(lambda: queue.counts == (1, 1))
    clock[0] = 14.0
    assert queue.place(third) == 1
    assert queue.seconds_until(1) == pytest.approx(6.0)
    for _ in range(2):
        gate.release()
    assert second.finished.wait(10)
    queue.close()
    with pytest.raises(InputError, match="the server is shutting down"):
        queue.submit(0, owner="me")


def test_closing_cancels_what_waits(bench):
    queue = bench.make()
    running, waiting = queue.submit(lambda progress: progress.on_phase("on"), owner="a"), queue.submit(0, owner="b")
    assert _poll(lambda: queue.counts == (1, 1))
    threading.Timer(0.05, bench.gate.set).start()
    queue.close()
    assert {running.state, waiting.state} == {"cancelled"}


def test_warnings_of_a_task_are_kept_with_it(bench):
    queue = bench.make()
    task = queue.submit(lambda _: logging.getLogger("dynamicrafter.x").warning("motion is large"), owner="me")
    bench.gate.set()
    assert task.finished.wait(10)
    assert task.notes == ["motion is large"]


def test_what_was_known_before_is_kept_with_a_task_and_said_once(bench):
    queue = bench.make()
    warn = logging.getLogger("dynamicrafter.x").warning
    task = queue.submit(lambda _: (warn("transparent"), warn("long")), owner="me", notes=["transparent"])
    bench.gate.set()
    assert task.finished.wait(10)
    assert task.notes == ["transparent", "long"]
