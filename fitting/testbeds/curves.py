"""Whole training curves as rows of the annealing law: what a schedule has summed up by each of its steps."""

import numpy as np


def annealing_sums(learning_rate_S: np.ndarray, *, decay: float = 0.999) -> tuple[np.ndarray, np.ndarray]:
    """The forward area S1 and the annealing area S2 of a schedule after each step (Tissue et al. 2024).

    S1 is the sum of the learning rates so far. S2 sums, over the steps so far, a momentum of the rate's fall:
    m_i = decay m_{i-1} + (lr_{i-1} - lr_i). They are the columns `lr_area` and `lr_annealing` of the law `annealing`.

    Args:
      learning_rate_S: of each step, in the order of training.
      decay: how much of the momentum a step keeps, 0.99 to 0.9999.

    Returns:
      S1_S and S2_S.

    Raises:
      ValueError: a schedule that is no vector of learning rates, or a decay outside 0 to 1.
    """
    learning_rate_S = np.asarray(learning_rate_S, float)
    if learning_rate_S.ndim != 1 or not (learning_rate_S >= 0).all() or not learning_rate_S.any():
        raise ValueError("a schedule is a vector of learning rates, one a step, none negative and not all zero")
    if not 0 <= decay < 1:
        raise ValueError(f"decay is {decay}: a step keeps a share of the momentum, 0 or more and less than 1")
    momentum, annealing_S = 0.0, np.empty_like(learning_rate_S)
    for step, fall in enumerate(-np.diff(learning_rate_S, prepend=learning_rate_S[0])):
        momentum = decay * momentum + fall
        annealing_S[step] = momentum
    return np.cumsum(learning_rate_S), np.cumsum(annealing_S)
