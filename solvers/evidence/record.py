"""One row of the table of `solvers validate`."""

from collections.abc import Callable
from typing import NamedTuple


class Evidence(NamedTuple):
    """Our number beside the one that it should be.

    Attributes:
        ours: what we computed.
        reference: the truth, or what others published.
        error: distance from the truth, in the sense that the row's quantity says.
        bound: largest error that passes.
    """

    ours: float
    reference: float
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        """True if the error keeps the bound; a NaN does not."""
        return bool(self.error <= self.bound)


class Row(NamedTuple):
    """A quantity, where its reference comes from, and how to compute it.

    Attributes:
        name: what `solvers validate NAME` matches, by its beginning.
        quantity: what is compared, in words.
        source: theory, or a publication.
        compute: the function that does it.
        long: takes minutes, and so runs only where its full name is asked for.
        gpu: too long without a GPU, and so left out where there is none.
    """

    name: str
    quantity: str
    source: str
    compute: Callable[[], Evidence]
    long: bool = False
    gpu: bool = False
