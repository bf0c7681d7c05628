"""How fast a line is worked off, and how long it may be."""

from .faults import Overloaded

_SMOOTHING = 0.05  # a batch's share: the mean is over some twenty of them
_BATCH_SECONDS = 0.01


class Pace:
    """Pieces a second on all lanes together, measured on the wall clock while something waits.

    Of threads that read, it is characters.

    The time of the batches alone would tell too much: lanes share their cores with whatever else
    the process does. Means of pieces and of seconds are kept apart, so that a batch that follows
    hard upon another does not count as a fast one.
    """

    def __init__(self, rate: float) -> None:
        """Begin with a guess, which weighs as much as one batch."""
        self._pieces, self._seconds = rate * _BATCH_SECONDS, _BATCH_SECONDS
        self._last: float | None = None

    @property
    def rate(self) -> float:
        """Pieces a second."""
        return self._pieces / self._seconds

    def note(self, pieces: int, now: float) -> None:
        """Take in a batch that is done."""
        if self._last is not None:
            self._pieces += _SMOOTHING * (pieces - self._pieces)
            self._seconds += _SMOOTHING * (max(now - self._last, 1e-6) - self._seconds)
        self._last = now

    def rest(self) -> None:
        """Know that nothing waits: the time until the next batch says nothing."""
        self._last = None


def check_room(
    waiting: int, cost: int, *, most: int, seconds: float, rate: float, unit: str
) -> None:
    """Raise Overloaded if a line is too long for `cost` more, in units or in time.

    A line of a few seconds is worse than none: who waits gives up and asks again. An empty one
    takes all.
    """
    bound = min(most, seconds * rate)
    beyond: float = waiting + cost - most if waiting else 0
    if waiting > bound:
        beyond = max(beyond, waiting - bound)
    if beyond > 0:
        raise Overloaded(
            f"{waiting} {unit} are waiting, which takes {waiting / rate:.1f} s: come again later",
            beyond / rate,
        )
