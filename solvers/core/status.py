"""What became of a run: one enumeration and one exception for the whole library."""

import enum


class Status(enum.IntEnum):
    """How a run ended. The integers are stable: they may be stored and compared.

    Inside `jit` a status is an array of these integers; outside it is a member.

    Example:
        >>> Status.OK.ok, Status.CONVERGED.ok, Status(1).name, Status.NONFINITE.ok
        (True, True, 'NONFINITE', False)

    Attributes:
        OK: a run came to its end with finite values.
        NONFINITE: a value that is not finite appeared.
        CONVERGED: the equation is solved to the tolerance.
        MAX_STEPS: the allowed steps did not suffice.
        STAGNATED: the residual no longer falls.
        DIVERGED: the residual grew beyond all bounds.
        LINEAR_FAILED: an inner linear solve missed its tolerance.
        UNSTABLE: the equation is solved, but iterating the map would leave this solution. A warning: derivatives hold.
    """

    OK = 0
    NONFINITE = 1
    CONVERGED = 2
    MAX_STEPS = 3
    STAGNATED = 4
    DIVERGED = 5
    LINEAR_FAILED = 6
    UNSTABLE = 7

    @property
    def ok(self) -> bool:
        """True for every success."""
        return self in (Status.OK, Status.CONVERGED)


class SolverError(RuntimeError):
    """A run did not succeed; raised by `.check()` of its result, with the numbers in the message."""
