"""Fitting: runs in, laws and predictions out. A leaf: needs no TensorFlow and no accelerator.

>>> import fitting
>>> testbed = fitting.read("gadre2024")  # or your own: a CSV with run, params, tokens and loss/<set>
>>> law = fitting.fit(testbed, loss="c4_val", error="average_17", select="corpus == 'rpj' and role == 'rung'")
>>> fitting.predict(law, params=1.4e9, tokens=900e9)  # doctest: +ELLIPSIS
Prediction(run='', params=1400000000.0, tokens=900000000000.0, level=0.95, loss=2.5...

In a notebook a table, a law, a prediction, advice and a comparison show themselves. `fitting.library` says more.
"""

import typing

if typing.TYPE_CHECKING:
    from fitting.library import (
        Testbed,
        advise,
        annealed,
        best_settings,
        compare,
        draw,
        fit,
        load,
        pooled_error,
        predict,
        read,
        report,
        save,
    )

__all__ = [
    "Testbed",
    "advise",
    "annealed",
    "best_settings",
    "compare",
    "draw",
    "fit",
    "load",
    "pooled_error",
    "predict",
    "read",
    "report",
    "save",
]


def __getattr__(name: str) -> typing.Any:
    # A name is looked up when it is first asked for: what asks for none, such as `ladder --help`, stays fast.
    if name not in __all__:
        raise AttributeError(f"module 'fitting' has no attribute {name!r}")
    from fitting import library

    return getattr(library, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
