"""Elementary functions, of which laws and objectives are made: NumPy's of numbers and arrays, JAX's of what JAX traces.

So each is written once, is differentiated and compiled where that pays, and is evaluated without waiting for JAX.
"""

from typing import Any

import numpy as np


def cos(x: Any) -> Any:
    """The cosine of x."""
    return _numpy_of(x).cos(x)


def exp(x: Any) -> Any:
    """e to the power x."""
    return _numpy_of(x).exp(x)


def expm1(x: Any) -> Any:
    """e to the power x, less one, exact for tiny x."""
    return _numpy_of(x).expm1(x)


def log(x: Any) -> Any:
    """The natural logarithm of x."""
    return _numpy_of(x).log(x)


def logaddexp(x: Any, y: Any) -> Any:
    """log(e^x + e^y), without overflow."""
    return _numpy_of(x, y).logaddexp(x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger of x and y."""
    return _numpy_of(x, y).maximum(x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of x and y."""
    return _numpy_of(x, y).minimum(x, y)


def sqrt(x: Any) -> Any:
    """The square root of x."""
    return _numpy_of(x).sqrt(x)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y."""
    return _numpy_of(condition, x, y).where(condition, x, y)


def _numpy_of(*arguments: Any) -> Any:
    """NumPy, or JAX's where an argument is an array of JAX's or stands for one."""
    if any(hasattr(x, "aval") for x in arguments):
        import jax.numpy

        return jax.numpy
    return np
