"""Words of memory for compiled code: what numba lacks to read bytes as C does. Needs numba.

Compiled functions here take *addresses* (int64) instead of arrays: an array argument costs numba a counted reference
at every call, which made the scanner of orders five times slower. Nothing checks an address. Whoever calls from Python
keeps the arrays alive, and leaves readable bytes behind whatever is read in words (`sales.memory.PADDING`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def compiled(signature: str, *, nogil: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function for one signature when its module is imported, so that no call waits for it.

    With ``nogil`` other threads run Python meanwhile.

    What was compiled is kept beside the source, in NUMBA_CACHE_DIR or in the user's cache; where none of these can be
    written it lasts as long as the process. An image brings it along (`sales.shipped`).
    """

    def compile_now(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, cache=True, nogil=nogil)(function)
        except (RuntimeError, OSError):  # "no locator available for file"; or what an image brings is for another CPU
            return njit(signature, nogil=nogil)(function)

    return compile_now


_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)


@intrinsic
def byte_at(_context: Any, _address: Any) -> Any:
    """The byte at an address, 0 to 255."""

    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args[0], _BYTE), _LONG)

    return types.int64(types.int64), emit


@intrinsic
def int_at(_context: Any, _address: Any) -> Any:
    """The four bytes at an address as a signed number, least significant first."""

    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.sext(_load(builder, args[0], _INT), _LONG)

    return types.int64(types.int64), emit


@intrinsic
def long_at(_context: Any, _address: Any) -> Any:
    """The eight bytes at an address as a signed number, least significant first."""

    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _load(builder, args[0], _LONG)

    return types.int64(types.int64), emit


@intrinsic
def word_at(_context: Any, _address: Any) -> Any:
    """The eight bytes at an address as an unsigned number, least significant first."""

    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _load(builder, args[0], _LONG)

    return types.uint64(types.int64), emit


@intrinsic
def put_byte(_context: Any, _address: Any, _value: Any) -> Any:
    """Writes one byte."""

    def emit(target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _store(target, builder, args[0], builder.trunc(args[1], _BYTE), _BYTE)

    return types.void(types.int64, types.int64), emit


@intrinsic
def put_int(_context: Any, _address: Any, _value: Any) -> Any:
    """Writes four bytes."""

    def emit(target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _store(target, builder, args[0], builder.trunc(args[1], _INT), _INT)

    return types.void(types.int64, types.int64), emit


@intrinsic
def put_long(_context: Any, _address: Any, _value: Any) -> Any:
    """Writes eight bytes."""

    def emit(target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _store(target, builder, args[0], args[1], _LONG)

    return types.void(types.int64, types.int64), emit


@intrinsic
def trailing_zeros(_context: Any, _word: Any) -> Any:
    """How many of the lowest bits are zero; 64 of 0."""

    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), emit


@intrinsic
def signed(_context: Any, _word: Any) -> Any:
    """The same 64 bits as a signed number."""
    return types.int64(types.uint64), lambda _target, _builder, _signature, args: args[0]


def _load(builder: Any, address: Any, width: Any) -> Any:
    value = builder.load(builder.inttoptr(address, width.as_pointer()))
    value.align = 1
    return value


def _store(target: Any, builder: Any, address: Any, value: Any, width: Any) -> Any:
    builder.store(value, builder.inttoptr(address, width.as_pointer())).align = 1
    return target.get_dummy_value()


@compiled("uint64(int64)")
def lowest(count: int) -> np.uint64:
    """A mask of the ``count`` lowest bytes, 0 to 7."""
    return (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)


@compiled("boolean(int64, int64, int64)")
def same(place: int, other: int, length: int) -> bool:
    """Whether ``length`` bytes at two addresses are equal."""
    i = 0
    while length - i >= 8:
        if word_at(place + i) != word_at(other + i):
            return False
        i += 8
    return ((word_at(place + i) ^ word_at(other + i)) & lowest(length - i)) == 0
