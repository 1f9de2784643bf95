"""Objectives as data: what a fit minimises. To add one, add an entry to OBJECTIVES.

All are one function of a run's residual r, Huber's (1964) with a weight for either sign and a corner at `delta`:
weight(r) times r²/2 within delta, and delta (|r| - delta/2) beyond. A large delta leaves squares, a tiny one |r|.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fitting.laws.elementary import maximum, minimum, where


@dataclasses.dataclass(frozen=True)
class Objective:
    """A sum over runs of rho(residual), where the residual is law minus measurement over its scale.

    Attributes:
      name: its key in the dict of objectives.
      words: what is minimised, `{quantity}` standing for loss or error.
      scale: what the residual is measured in: `absolute` as it is, `relative` to the measurement, `log` a difference of
        logarithms, `noise` in sampling standard errors.
      delta: where squares turn into absolute values.
      over: weight of runs that the law lies above.
      under: weight of runs that the law lies below.
    """

    name: str
    words: str
    scale: str
    delta: float
    over: float
    under: float

    @property
    def relative(self) -> bool:
        """Whether residuals are fractions of the law's value, or nearly."""
        return self.scale in ("log", "relative")

    @property
    def log(self) -> bool:
        """Whether residuals are differences of logarithms."""
        return self.scale == "log"

    def rho(self, r: Any, delta: Any) -> Any:
        """The objective of each residual."""
        size = abs(r)
        return self._side(r) * where(size < delta, r * r / 2, delta * (size - delta / 2))

    def slope(self, r: Any, delta: Any) -> Any:
        """Derivative of `rho`."""
        return self._side(r) * minimum(maximum(r, -delta), delta)

    def curvature(self, r: Any, delta: Any) -> Any:
        """Second derivative of `rho`."""
        return self._side(r) * (abs(r) < delta)

    def majoriser(self, r: Any, delta: Any) -> Any:
        """Curvature of the parabola that touches `rho` at r and nowhere lies below it: slope over r."""
        return self._side(r) * delta / maximum(abs(r), delta)

    def _side(self, r: Any) -> Any:
        return where(r > 0, self.over, self.under)


_SQUARES = {"delta": 1e100, "over": 2.0, "under": 2.0}
_CORNER = 1e-8  # absolute values, but for a corner that no measurement resolves
_LOW, _HIGH = 0.75, 0.25

OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in [
        Objective("squares", "sum of squared residuals of the {quantity}", "absolute", **_SQUARES),
        Objective("relative_squares", "sum of squared relative residuals of the {quantity}", "relative", **_SQUARES),
        Objective(
            "noise_squares",
            "sum of squared residuals of the {quantity} in units of their sampling standard errors",
            "noise",
            **_SQUARES,
        ),
        # Hoffmann et al. 2022, Eq. 3, and all who follow it.
        Objective("log_huber", "sum of Huber(0.001) of residuals of the log {quantity}", "log", 1e-3, 1.0, 1.0),
        Objective(
            "log_absolute",
            "sum of absolute residuals of the log {quantity}",
            "log",
            _CORNER,
            1 / _CORNER,
            1 / _CORNER,
        ),
        # The pinball loss (Koenker & Bassett 1978): a run can be worse than its size allows, hardly better.
        Objective(
            "log_asymmetric",
            f"sum of absolute residuals of the log {{quantity}}, times {_LOW} where the law lies above, {_HIGH} below",
            "log",
            _CORNER,
            _LOW / _CORNER,
            _HIGH / _CORNER,
        ),
    ]
}


def named(name: str) -> Objective:
    """The objective of that name. Raises ValueError where there is none."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective {name!r} is unknown; objectives are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
