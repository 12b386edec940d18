"""What became of a run: one enumeration and one exception for the whole library."""

import enum


class Status(enum.IntEnum):
    """How a run ended. The integers are stable: they may be stored and compared.

    Inside `jit` a status is an array of these integers; outside it is a member.

    Example:
        >>> Status.OK.ok, Status(1).name, Status.NONFINITE.ok
        (True, 'NONFINITE', False)
    """

    OK = 0
    NONFINITE = 1

    @property
    def ok(self) -> bool:
        """True for every success."""
        return self is Status.OK


class SolverError(RuntimeError):
    """A run did not succeed; raised by `.check()` of its result, with the numbers in the message."""
