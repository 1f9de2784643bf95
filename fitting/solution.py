"""What a minimisation finds, and when a term of a law counts as gone."""

import dataclasses

import numpy as np

FLOOR = 1e-12  # the least share of a term at all, in place of none: coefficients are positive
BOUND = 1e-6  # a term with a smaller share than this has vanished


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a search found, for B datasets of a law with P parameters.

    Attributes:
      theta_BxP: parameters at the lowest objective found.
      objective_B: the objective there.
      screened: how many starts each dataset had.
      starts: how many of them, the best, were polished.
      share_at_optimum_B: share of those that reached that objective.
      at_bound: names of the parameters of the first dataset that lie at a bound.
      node_Q: the shapes of the first dataset, each in its unit: where to start on others like it.
    """

    theta_BxP: np.ndarray
    objective_B: np.ndarray
    screened: int
    starts: int
    share_at_optimum_B: np.ndarray
    at_bound: tuple[str, ...]
    node_Q: np.ndarray
