"""What a function sees beside its arguments: the part of its identity that a compilation cache must know.

A door that compiles takes the user's function as a static argument, so its cache would answer for a function whose
captured values have changed since: a global that was assigned again, an attribute of `self`, an entry of a list. The
fingerprint of a function contains those values; it goes to the compiled function as one more static argument.
"""

import collections
import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import sys
import types
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

# Values that compare by what they are.
PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    type(Ellipsis),
    type,
    np.dtype,
    np.generic,
    enum.Enum,
    range,
)

# Libraries whose functions and objects are constants; the search does not go into them.
CONSTANT = {"builtins", "equinox", "jax", "jaxlib", "jaxtyping", "numpy", "optax", "diffrax", "scipy"}
CONSTANT |= {"beartype", "typing_extensions"} | (set(sys.stdlib_module_names) - {"types"})  # a SimpleNamespace is not

# What people count calls in, and its methods that give nothing back. Other objects may have `add` or `update` that do.
COUNTERS = (int, list, dict, set, collections.deque)
MUTATORS = {"append", "extend", "insert", "add", "update", "clear"}

# How far the search goes into the objects that a function captures.
DEEPEST, MOST = 6, 2000


class _Same:
    """Compares by identity, and keeps what it compares alive, so that the identity is not given away."""

    def __init__(self, thing: Any):
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def fingerprint(tree: Any) -> Any:
    """A hashable that changes when something changes which the functions in a pytree capture.

    Looked at: cells of closures, globals that the code names, defaults, `functools.partial`, `self` of bound methods,
    methods of objects, and functions called by the function; in them numbers, strings, arrays (NumPy by content),
    containers and attributes. A traced value is new each time. Arrays that are leaves of the pytree are not looked at:
    they are arguments, not constants. Nor is what a function only writes to, such as a counter of its calls.

    Example:
        >>> scale = [1.0]
        >>> f = (lambda scale: lambda x: scale[0] * x)(scale)
        >>> before = fingerprint(f)
        >>> before == fingerprint(f)
        True
        >>> scale[0] = 2.0
        >>> before == fingerprint(f)
        False
    """
    leaves = [x for x in jax.tree.leaves(tree) if not isinstance(x, jax.Array | np.ndarray)]
    return _Search().walk(leaves, 0)


def fingerprint_of_run(*parts: Any) -> Any:
    """The fingerprint of what a loop calls: an equation, its observers.

    Looked at beside the leaves: the methods of a struct that is the user's, and functions in static fields.
    """
    return _Seen(fingerprint((parts, [_hidden(part) for part in parts])))


class _Seen:
    """A fingerprint as one leaf of a pytree, hashed once."""

    def __init__(self, marks: Any):
        self.marks, self.hash = marks, hash(marks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Seen) and self.hash == other.hash and self.marks == other.marks

    def __hash__(self) -> int:
        return self.hash


def _hidden(part: Any) -> list:
    """Functions of a struct that are no leaves of it."""
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return []
    static = [getattr(part, name, None) for name in _static_names(type(part))]
    functions = (types.FunctionType, types.MethodType, functools.partial)
    return [*_methods(type(part)), *(x for x in static if isinstance(x, functions))]


@functools.cache
def _static_names(kind: type) -> tuple:
    return tuple(f.name for f in dataclasses.fields(kind) if f.metadata.get("static"))


@functools.cache
def _methods(kind: type) -> tuple:
    """Functions in the body of a class and of those above it, as far as they are the user's."""
    users = [k for k in kind.__mro__ if k.__module__.split(".")[0] not in CONSTANT | {"solvers"}]
    found = [getattr(x, "__func__", getattr(x, "fget", x)) for k in users for x in vars(k).values()]
    return tuple(x for x in found if isinstance(x, types.FunctionType))


class _Search:
    """One walk through captured objects; remembers where it has been."""

    def __init__(self):
        # With the things themselves: the identity of one that dies is given to another.
        self.visited: dict[int, tuple[int, Any]] = {}

    def walk(self, thing: Any, depth: int) -> Any:
        if isinstance(thing, PLAIN):
            # 1, 1.0 and True are equal to Python and different to a trace; so are 0.0 and -0.0.
            return (type(thing), thing, str(thing)) if isinstance(thing, float | complex) else (type(thing), thing)
        if isinstance(thing, Tracer):
            return _Same(object())
        if isinstance(thing, jax.Array | types.ModuleType | types.BuiltinFunctionType):
            return _Same(thing)
        if _is_constant(thing):
            return _Same(thing)
        if id(thing) in self.visited:
            return ("again", self.visited[id(thing)][0])
        if depth > DEEPEST or len(self.visited) > MOST:
            return _Same(thing)
        self.visited[id(thing)] = (len(self.visited), thing)
        return (_Same(type(thing)), self.contents(thing, depth + 1))

    def contents(self, thing: Any, depth: int) -> Any:
        if isinstance(thing, np.ndarray):
            return (thing.shape, thing.dtype, hashlib.blake2b(thing.tobytes()).digest())
        if isinstance(thing, list | tuple):
            return tuple(self.walk(x, depth) for x in thing)
        if isinstance(thing, set | frozenset):
            return frozenset(self.walk(x, depth) for x in thing)
        if isinstance(thing, dict):
            return tuple((self.walk(k, depth), self.walk(v, depth)) for k, v in thing.items())
        if isinstance(thing, functools.partial):
            return tuple(self.walk(x, depth) for x in (thing.func, thing.args, thing.keywords))
        if isinstance(thing, types.MethodType):
            return (self.walk(thing.__func__, depth), self.walk(thing.__self__, depth))
        if isinstance(thing, types.FunctionType):
            # Deeper than that what it sees would be compared by identity, and the collection of it is new each time.
            inside = _seen_by(thing) if depth <= DEEPEST else ()
            return (_Same(thing.__code__), *(self.walk(x, depth) for x in inside))
        wrapped = getattr(thing, "__wrapped__", None)
        if wrapped is not None:
            return (_Same(thing), self.walk(wrapped, depth))
        # Objects that compare by what they hold are the same if they hold the same.
        own = None if type(thing).__eq__ is not object.__eq__ else _Same(thing)
        return (own, self.walk(getattr(thing, "__dict__", None), depth), self.walk(_methods(type(thing)), depth))


def _is_constant(thing: Any) -> bool:
    """True for functions and objects of libraries, except containers and wrappers of what is the user's."""
    if isinstance(thing, list | tuple | dict | set | frozenset | np.ndarray | functools.partial | types.MethodType):
        return False
    if hasattr(thing, "__wrapped__"):
        thing = inspect.unwrap(thing)
    if isinstance(thing, types.FunctionType):
        root = str(thing.__module__).split(".")[0]
        # Ours with a closure are looked into, since they may wrap the user's.
        return root in CONSTANT or (root == "solvers" and not thing.__closure__ and not hasattr(thing, "__wrapped__"))
    # Our structs are frozen.
    return type(thing).__module__.split(".")[0] in CONSTANT | {"solvers"}


def _seen_by(function: types.FunctionType) -> tuple:
    """Contents of closure cells, defaults, and the globals that the code names."""
    code, cells = function.__code__, []
    counters = _only_written(code)

    def kept(name: str, value: Any) -> Any:
        return None if name in counters and isinstance(value, COUNTERS) else value

    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells.append(kept(name, cell.cell_contents))
        except ValueError:  # not yet assigned
            cells.append(None)
    found = [name for name in sorted(_names(code)) if name in function.__globals__]
    named = {name: kept(name, function.__globals__[name]) for name in found}
    return cells, function.__defaults__, function.__kwdefaults__, named


def _names(code: types.CodeType) -> set:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


@functools.cache
def _only_written(code: types.CodeType) -> frozenset:
    """Names from outside of which the code makes no use but to change them.

    That is `calls.append(1)`, `calls[0] += 1` and `calls += 1`. The first counts for containers alone, whose methods
    give nothing back: see `_seen_by`.
    """
    written, read = _uses(code)
    return frozenset(written - read)


def _uses(code: types.CodeType) -> tuple[set, set]:
    """Names from outside that the code, or code inside of it, changes; and those that it reads."""
    lines = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "PUSH_NULL", "EXTENDED_ARG")]
    written, read = set(), set()
    for i, line in enumerate(lines):
        if line.opname in ("LOAD_DEREF", "LOAD_GLOBAL", "LOAD_CLASSDEREF", "LOAD_NAME"):
            (written if _is_change(line, lines[i + 1 : i + 4]) else read).add(line.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more = _uses(inner)
            written, read = written | more[0], read | more[1]
    return written, read


def _is_change(load: dis.Instruction, after: list[dis.Instruction]) -> bool:
    """Whether a name is loaded to be changed and for nothing else, by the instructions that follow."""
    if len(after) < 3:
        return False
    first, second, third = after
    if first.opname in ("LOAD_METHOD", "LOAD_ATTR"):
        return first.argval in MUTATORS
    if first.opname not in ("LOAD_CONST", "LOAD_FAST", "LOAD_SMALL_INT"):
        return False
    # An item is read and stored with both, container and index, copied; a name is stored under its own.
    item = all(x.opname == "COPY" and x.arg == 2 for x in (second, third))
    return item or (second.opname == "BINARY_OP" and third.opname.startswith("STORE_") and third.argval == load.argval)
