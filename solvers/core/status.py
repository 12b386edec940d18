"""What became of a run: one enumeration and one exception for the whole library."""

import enum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from .checks import is_known


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
        UNSTABLE: the equation is solved, but iterating the map would leave this solution. A warning: derivatives hold,
            `.check()` passes, `.ok` is False.
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
        """True for every success without reservation: not for UNSTABLE, which `.check()` lets pass with a warning."""
        return self in (Status.OK, Status.CONVERGED)


class SolverError(RuntimeError):
    """A run did not succeed; raised by `.check()` of its result, with the numbers in the message."""


class Failures(NamedTuple):
    """Members of a batch that did not succeed; a single run is a batch of one.

    Attributes:
        which: their indices in the flattened batch.
        status: that of the first.
        shape: of the batch.
    """

    which: np.ndarray
    status: Status
    shape: tuple[int, ...]

    def __str__(self) -> str:
        entries = int(np.prod(self.shape))
        return self.status.name + (f" in {self.which.size} of {entries} batch entries" if entries > 1 else "")

    def first(self, values: Any) -> Any:
        """What belongs to the first of them, of an array with a leading shape like the batch or one value for all."""
        values = np.asarray(values)
        rest = values.shape[len(self.shape) :]
        return np.broadcast_to(values, self.shape + rest).reshape((-1, *rest))[self.which[0]]


def public_status(code: Array) -> Status | Array:
    """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
    return code if not is_known(code) or code.ndim else Status(int(code))


def failures(code: Array, *good: Status) -> Failures | None:
    """The members of a batch whose code is none of `good`; None where there are none.

    Raises:
        TypeError: inside `jit`, where no value is known.
    """
    if not is_known(code):
        raise TypeError("check() looks at values: call it on the result outside of jit, grad and vmap.")
    codes = np.asarray(code)
    which = np.flatnonzero(~np.isin(codes, good))
    return Failures(which, Status(int(codes.flat[which[0]])), codes.shape) if which.size else None
