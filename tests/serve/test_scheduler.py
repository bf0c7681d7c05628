"""The line in front of the lanes: batches, fairness, bounds, and requests that are given up."""

import asyncio

import numpy as np
import pytest

from serve.faults import Overloaded, TooLarge, Unavailable
from serve.pace import Pace
from serve.scheduler import Scheduler

from .lane import ask, busy, firsts, until


def test_requests_share_batches_and_get_their_own_rows(scheduler, slow):
    async def run():
        first = await busy(scheduler, slow)
        others = [ask(scheduler, slow, 1, 2), ask(scheduler, slow, 3), ask(scheduler, slow, 4)]
        await until(lambda: scheduler.queued_tokens == 40)
        slow.let.release(10)
        await first
        found = [await o for o in others]
        assert [firsts(f) for f in found] == [[1, 2], [3], [4]]
        assert all(f.queued > 0 and f.computing >= 0 for f in found)

    asyncio.run(run())
    assert slow.batches == [[999], [1, 2, 3, 4]]


def test_batches_are_of_one_length_and_bounded(scheduler, slow):
    async def run():
        first = await busy(scheduler, slow)
        many = ask(scheduler, slow, *range(1, 7), length=128)
        one = ask(scheduler, slow, 7, length=5)
        await until(lambda: scheduler.queued_tokens == 6 * 128 + 5)
        slow.let.release(10)
        await asyncio.gather(first, many, one)

    asyncio.run(run())
    assert slow.batches[1:] == [[7], [1, 2, 3, 4], [5, 6]]


def test_a_small_request_is_not_held_up_by_a_large_one(scheduler, slow):
    async def run():
        first = await busy(scheduler, slow)
        large = ask(scheduler, slow, *range(1, 10), length=100)
        await until(lambda: scheduler.queued_tokens == 900)
        small = ask(scheduler, slow, 50, length=90)
        await until(lambda: scheduler.queued_tokens == 990)
        slow.let.release(2)
        await small
        assert not large.done()
        slow.let.release(10)
        await asyncio.gather(first, large)

    asyncio.run(run())
    assert slow.batches[1] == [50]


def test_a_text_does_not_wait_behind_the_large_request_that_has_it_too(slow):
    async def run():
        scheduler = Scheduler(lanes=1, max_queue_tokens=10_000)
        first = await busy(scheduler, slow)
        large = ask(scheduler, slow, *range(1, 10), length=300)  # a batch each
        await until(lambda: scheduler.queued_tokens == 2700)
        small = ask(scheduler, slow, 9, length=300)
        await until(lambda: len([*scheduler._flying.values()][-1].waiters) == 2)
        slow.let.release(3)
        assert firsts(await small) == [9]
        slow.let.release(10)
        await first
        assert firsts(await large) == [*range(1, 10)]
        assert not scheduler._flying and not scheduler._line.groups and not scheduler.queued_tokens
        await asyncio.to_thread(scheduler.close)

    asyncio.run(run())
    assert slow.batches == [[999], [1], [9], *([n] for n in range(2, 9))]


def test_what_waits_is_told_when_clients_have_left(slow):
    told = []

    async def run():
        scheduler = Scheduler(lanes=1, max_queue_tokens=1000, on_line=told.append)
        first = await busy(scheduler, slow)
        left = ask(scheduler, slow, *range(1, 10))
        await until(lambda: scheduler.queued_tokens == 90)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        slow.let.release(10)
        await first
        await until(lambda: not scheduler._flying)
        await asyncio.to_thread(scheduler.close)

    asyncio.run(run())
    assert told[-1] == 0 and slow.batches == [[999]]


def test_equal_texts_in_flight_are_computed_once(scheduler, slow):
    async def run():
        first = ask(scheduler, slow, 5)
        await until(lambda: not scheduler.queued_tokens and scheduler._flying)
        twins = [ask(scheduler, slow, 5) for _ in range(3)] + [ask(scheduler, slow, 6, 6)]
        await until(lambda: scheduler.queued_tokens == 10)
        slow.let.release(10)
        found = await asyncio.gather(first, *twins)
        assert [firsts(f) for f in found] == [[5], [5], [5], [5], [6, 6]]

    asyncio.run(run())
    assert slow.batches == [[5], [6]]
    assert not scheduler._flying and not scheduler._line.groups


def test_a_full_line_refuses_and_says_when_to_come_again(scheduler, slow):
    async def run():
        first = await busy(scheduler, slow)
        waiting = ask(scheduler, slow, *range(1, 10), length=100)
        await until(lambda: scheduler.queued_tokens == 900)
        scheduler._pace = Pace(10.0)
        with pytest.raises(Overloaded, match="900 pieces are waiting") as error:
            await ask(scheduler, slow, 1000, 1001, length=100)
        assert error.value.retry_after == 10  # 100 pieces too many at 10 a second
        with pytest.raises(TooLarge, match="1100 pieces, expected at most 1000"):
            await ask(scheduler, slow, *range(11), length=100)
        fits = ask(scheduler, slow, 2000, length=100)
        slow.let.release(20)
        await asyncio.gather(first, waiting, fits)

    asyncio.run(run())


def test_a_line_that_takes_too_long_refuses_even_if_it_is_short(slow):
    async def run():
        scheduler = Scheduler(lanes=1, max_queue_tokens=1000, max_queue_seconds=2.0)
        first = await busy(scheduler, slow)
        scheduler._pace = Pace(50.0)
        waiting = [ask(scheduler, slow, n, length=100) for n in (1, 2)]  # one is not too many
        await until(lambda: scheduler.queued_tokens == 200 or waiting[1].done())
        assert scheduler.queued_tokens == 200
        with pytest.raises(
            Overloaded, match=r"200 pieces are waiting, which takes 4\.0 s"
        ) as error:
            await ask(scheduler, slow, 3)
        assert error.value.retry_after == 2
        slow.let.release(20)
        await asyncio.gather(first, *waiting)
        assert firsts(await ask(scheduler, slow, 3)) == [3]  # an empty line takes all
        await asyncio.to_thread(scheduler.close)

    asyncio.run(run())


def test_the_pace_is_that_of_the_wall_clock_while_something_waits():
    pace = Pace(20_000.0)
    pace.note(512, 10.0)
    for step in range(1, 41):
        pace.note(500, 10.0 + 0.1 * step)
    assert pace.rate == pytest.approx(5000, rel=0.1)
    kept = pace.rate
    pace.rest()
    pace.note(500, 1000.0)  # the hours without work say nothing
    assert pace.rate == kept


def test_clients_that_left_do_not_slow_the_pace(slow):
    """A line of texts that nobody wants is no work: what comes after it is not late."""

    async def run():
        now = [0.0]
        scheduler = Scheduler(lanes=1, max_queue_tokens=1000, max_queue_seconds=1.0)
        told = []
        kept = scheduler._pace.note
        scheduler._pace.note = lambda pieces, _: told.append(pieces) or kept(pieces, now[0])
        first = await busy(scheduler, slow)
        left = ask(scheduler, slow, 2)
        await until(lambda: scheduler.queued_tokens == 10)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left  # else the lane may take its text before it is gone
        slow.let.release(1)
        await first
        await until(lambda: scheduler._pace._last is None)
        now[0] = 30_000.0
        slow.let.release(5)
        before = scheduler._pace.rate
        await ask(scheduler, slow, 3)
        assert len(told) == 2 and scheduler._pace.rate == before
        await asyncio.to_thread(scheduler.close)

    asyncio.run(run())


def test_what_nobody_waits_for_is_not_computed(scheduler, slow):
    async def run():
        first = await busy(scheduler, slow)
        late = asyncio.ensure_future(asyncio.wait_for(ask(scheduler, slow, 1), 0.5))
        left = ask(scheduler, slow, 2)
        shared = [ask(scheduler, slow, 3), ask(scheduler, slow, 3)]
        await until(lambda: scheduler.queued_tokens == 30)
        left.cancel()
        shared[0].cancel()
        with pytest.raises(TimeoutError):
            await late
        slow.let.release(10)
        await first
        assert firsts(await shared[1]) == [3]

    asyncio.run(run())
    assert slow.batches == [[999], [3]]
    assert scheduler.queued_tokens == 0 and not scheduler._flying


def test_an_error_reaches_everyone_in_the_batch_and_the_lane_goes_on(scheduler, slow):
    async def run():
        slow.error = ValueError("broken")
        both = [ask(scheduler, slow, 1), ask(scheduler, slow, 2)]
        slow.let.release(2)
        for waiting in both:
            with pytest.raises(ValueError, match="broken"):
                await waiting
        slow.error = None
        slow.let.release(1)
        assert firsts(await ask(scheduler, slow, 3)) == [3]

    asyncio.run(run())


def test_closing_answers_what_waits(slow):
    async def run():
        scheduler = Scheduler(lanes=2, max_queue_tokens=1000)
        waiting = [ask(scheduler, slow, i, length=i + 3) for i in range(5)]
        await until(lambda: len(scheduler._flying) == 5)
        slow.let.release(10)
        await asyncio.to_thread(scheduler.close)
        assert [firsts(await w)[0] for w in waiting] == [0, 1, 2, 3, 4]
        with pytest.raises(Unavailable, match="stopping"):
            await ask(scheduler, slow, 1)

    asyncio.run(run())


def test_many_requests_from_many_lanes_all_get_their_rows():
    class Quick:
        def compute(self, texts, output):
            return np.array([[t.ids[0], len(t.ids)] for t in texts], dtype=np.float32)

    async def run():
        batches = []
        scheduler = Scheduler(
            lanes=4,
            max_queue_tokens=10**6,
            on_batch=lambda count, tokens, seconds: batches.append((count, tokens)),
        )
        rng = np.random.default_rng(0)
        model = Quick()
        wanted, asked = [], []
        for _ in range(500):
            names = rng.integers(0, 50, rng.integers(1, 20)).tolist()
            length = int(rng.integers(2, 60))
            wanted.append([[name, length] for name in names])
            asked.append(ask(scheduler, model, *names, length=length))
        found = await asyncio.gather(*asked)
        assert [[row.tolist() for row in f.rows] for f in found] == wanted
        assert all(tokens <= 512 for _, tokens in batches)
        scheduler.close()

    asyncio.run(run())


@pytest.mark.parametrize("length", [10, 200, 300])  # batches of 51, 2 and 1 texts
def test_nothing_of_a_text_stays_when_it_is_computed(scheduler, slow, length):
    async def run():
        slow.let.release(10_000)
        for first in range(20):
            asked = [ask(scheduler, slow, name, length=length) for name in (first, 8000, 9000)]
            await asyncio.gather(*asked)

    asyncio.run(run())
    scheduler.close()  # the lane has seen that nothing waits
    line = scheduler._line
    assert not line.first and not line.groups and not line.tokens and not scheduler._flying
