"""From token losses to the numbers of a testbed, each with its sampling error. NumPy only."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over a sample and the standard error of that mean."""

    value: float
    stderr: float


def mean_loss(loss_sum_N: np.ndarray, tokens_N: np.ndarray) -> Estimate:
    """Gives the token-weighted mean loss, in nats a token, and its standard error over sequences.

    Tokens of one sequence are not independent, sequences nearly are, so the error is the ratio estimator's
    (Cochran 1977, Sampling Techniques, Eq. 6.13): sqrt(N / (N - 1) sum_i (loss_i - r tokens_i)^2) / sum_i tokens_i.

    Args:
      loss_sum_N: summed loss of each sequence, nats.
      tokens_N: how many tokens each sum covers.

    Raises:
      ValueError: no tokens at all, or shapes that differ.
    """
    loss_sum_N = np.asarray(loss_sum_N, np.float64)
    tokens_N = np.asarray(tokens_N, np.float64)
    if loss_sum_N.shape != tokens_N.shape or loss_sum_N.ndim != 1:
        raise ValueError(f"losses {loss_sum_N.shape} and token counts {tokens_N.shape}: need vectors of one length")
    tokens = tokens_N.sum()
    if not tokens > 0:
        raise ValueError("a mean loss needs at least one token; the validation set is empty")
    mean = loss_sum_N.sum() / tokens
    n = len(tokens_N)
    if n < 2:
        return Estimate(float(mean), math.nan)
    residual_N = loss_sum_N - mean * tokens_N
    stderr = math.sqrt(n / (n - 1) * np.square(residual_N).sum()) / tokens
    return Estimate(float(mean), float(stderr))


def bits_per_byte(loss: Estimate, tokens: float, text_bytes: float) -> Estimate:
    """Gives the loss in bits a byte of text, which compares vocabularies: loss / ln 2 * tokens / text_bytes."""
    scale = tokens / text_bytes / math.log(2)
    return Estimate(loss.value * scale, loss.stderr * scale)


def choice_error(loss_N: np.ndarray, question_N: np.ndarray, choice_N: np.ndarray, gold_N: np.ndarray) -> Estimate:
    """Gives the top-1 error of multiple choice: the choice of least mean loss a token is the answer, the first on ties.

    This is llm-foundry's InContextLearningMultipleChoiceAccuracy, as an error and with its binomial standard error.

    Args:
      loss_N: mean loss a token of each row's answer; a row is one choice of one question.
      question_N: which question the row belongs to.
      choice_N: which of the question's choices it is, from 0.
      gold_N: the right choice of the row's question.

    Raises:
      ValueError: no rows, or losses that do not match them, or a loss that is no number.
    """
    loss_N = np.asarray(loss_N, np.float64)
    question_N, choice_N, gold_N = (np.asarray(a, np.int64) for a in (question_N, choice_N, gold_N))
    if not len(loss_N) or not len(loss_N) == len(question_N) == len(choice_N) == len(gold_N):
        raise ValueError(f"{len(loss_N)} losses for {len(question_N)} rows; each choice of each question needs one")
    if np.isnan(loss_N).any():
        raise ValueError(f"the loss of row {int(np.argmax(np.isnan(loss_N)))} is NaN; did the run diverge?")
    questions, row_N = np.unique(question_N, return_inverse=True)
    loss_QxC = np.full((len(questions), choice_N.max() + 1), np.inf)
    loss_QxC[row_N, choice_N] = loss_N
    gold_Q = np.empty(len(questions), np.int64)
    gold_Q[row_N] = gold_N
    error = float(np.mean(loss_QxC.argmin(axis=1) != gold_Q))
    return Estimate(error, math.sqrt(error * (1 - error) / len(questions)))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Gives the unweighted mean of independent estimates, as the paper averages its downstream tasks."""
    if not estimates:
        raise ValueError("nothing to average; name at least one task")
    return Estimate(
        float(np.mean([e.value for e in estimates])),
        float(np.sqrt(np.sum([e.stderr**2 for e in estimates])) / len(estimates)),
    )
