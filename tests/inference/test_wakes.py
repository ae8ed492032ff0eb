from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from inference import wakes


@pytest.fixture
def held() -> Iterator[None]:
    wakes.hold()
    yield
    wakes.stop_holding()


def test_a_thread_that_holds_nothing_is_woken_at_once() -> None:
    done: list[int] = []
    wakes.wake(lambda: done.append(1))
    assert done == [1]


@pytest.mark.usefixtures("held")
def test_what_is_held_is_done_once_and_in_order() -> None:
    done: list[int] = []
    for n in range(3):
        wakes.wake(lambda n=n: done.append(n))  # type: ignore[misc]
    assert done == []
    wakes.release()
    wakes.release()
    assert done == [0, 1, 2]


@pytest.mark.usefixtures("held")
def test_one_that_asks_for_another_does_not_go_round_for_ever() -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        wakes.wake(lambda: done.append("second"))

    wakes.wake(first)
    wakes.release()
    assert done == ["first"]
    wakes.release()
    assert done == ["first", "second"]


@pytest.mark.usefixtures("held")
def test_other_threads_hold_nothing() -> None:
    done: list[int] = []
    other = threading.Thread(target=wakes.wake, args=(lambda: done.append(1),))
    other.start()
    other.join()
    assert done == [1]


@pytest.mark.usefixtures("held")
def test_one_that_fails_keeps_no_other_asleep() -> None:
    done: list[int] = []
    wakes.wake(lambda: done.append(1 // 0))
    wakes.wake(lambda: done.append(1))
    wakes.release()
    assert done == [1]


def test_who_stops_holding_leaves_nobody_asleep() -> None:
    done: list[int] = []
    wakes.hold()
    wakes.wake(lambda: done.append(1))
    wakes.stop_holding()
    wakes.wake(lambda: done.append(2))
    assert done == [1, 2]
