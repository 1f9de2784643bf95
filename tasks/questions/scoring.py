"""From token losses to the numbers of a testbed, each with its sampling error. NumPy only."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000


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


def mean_loss_over_tokens(loss_sum_N: np.ndarray, square_sum_N: np.ndarray, tokens_N: np.ndarray) -> Estimate:
    """Gives the same mean loss with its standard error over tokens, as if each were drawn by itself.

    Args:
      loss_sum_N: summed loss of each sequence, nats.
      square_sum_N: summed square of its tokens' losses.
      tokens_N: how many tokens each sum covers.
    """
    tokens = int(np.sum(tokens_N))
    mean = float(np.sum(loss_sum_N)) / tokens
    if tokens < 2:
        return Estimate(mean, math.nan)
    variance = max(0.0, float(np.sum(square_sum_N)) - tokens * mean**2) / (tokens - 1)
    return Estimate(mean, math.sqrt(variance / tokens))


def interval_over_sequences(loss_sum_N: np.ndarray, tokens_N: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Gives the 95 % interval of the mean loss, nats a token, by drawing sequences anew (percentile bootstrap).

    Args:
      loss_sum_N: summed loss of each sequence, nats.
      tokens_N: how many tokens each sum covers.
      seed: of the draws.

    Returns:
      Both ends; NaN of a single sequence.
    """
    n = len(tokens_N)
    if n < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        times_N = np.bincount(rng.integers(n, size=n), minlength=n)
        means.append(times_N @ loss_sum_N / (times_N @ tokens_N))
    lower, upper = np.quantile(means, [0.025, 0.975])
    return float(lower), float(upper)


def interval_over_tokens(loss: Estimate) -> tuple[float, float]:
    """Gives the 95 % interval of a mean over so many tokens that it is normal; see `mean_loss_over_tokens`."""
    return loss.value - 1.96 * loss.stderr, loss.value + 1.96 * loss.stderr


def bits_per_byte(loss: Estimate, tokens: float, text_bytes: float) -> Estimate:
    """Gives the loss in bits a byte of text, which compares vocabularies: loss / ln 2 * tokens / text_bytes."""
    scale = tokens / text_bytes / math.log(2)
    return Estimate(loss.value * scale, loss.stderr * scale)


@dataclasses.dataclass(frozen=True)
class Rows:
    """What is known of a task's questions before they are answered; a row is one choice of one question.

    Attributes:
      question_N: which question the row belongs to.
      choice_N: which of the question's choices it is, from 0.
      gold_N: the right choice of the row's question.
      tokens_N: of the row's answer.
      bytes_N: of its text.
      category_N: the part of the task that the question belongs to; parts weigh alike, however large they are.
    """

    question_N: np.ndarray
    choice_N: np.ndarray
    gold_N: np.ndarray
    tokens_N: np.ndarray
    bytes_N: np.ndarray
    category_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of each question, in the order of their numbers.

    Attributes:
      category_Q: the part of the task that it belongs to.
      gold_Q: its right choice.
      answer_Q: the choice of least mean loss a token, the first on ties; of an only choice, 0 or, where a greedy reader
        would write something else, -1.
      loss_Q: mean loss of the right choice, nats a token.
      bits_per_byte_Q: loss of the right choice in bits a byte of its text.
      margin_Q: how much more the best wrong choice loses than the right one, nats a token; NaN of an only choice.
      probability_Q: of the right choice, each as likely as exp(-its mean loss a token); NaN of an only choice.
    """

    category_Q: np.ndarray
    gold_Q: np.ndarray
    answer_Q: np.ndarray
    loss_Q: np.ndarray
    bits_per_byte_Q: np.ndarray
    margin_Q: np.ndarray
    probability_Q: np.ndarray


def score(rows: Rows, loss_sum_N: np.ndarray, greedy_N: np.ndarray | None = None) -> Scores:
    """Gives the scores of each question.

    The answer is llm-foundry's, of InContextLearningMultipleChoiceAccuracy and InContextLearningLMAccuracy.

    Args:
      rows: the questions' choices.
      loss_sum_N: summed loss of each row's answer, nats.
      greedy_N: whether each token of the row's answer is the likeliest; needed only of questions with one choice.

    Raises:
      ValueError: no rows, losses that do not match them, or a loss that is no number.
    """
    loss_sum_N = np.asarray(loss_sum_N, np.float64)
    if not len(loss_sum_N) or loss_sum_N.shape != rows.question_N.shape:
        raise ValueError(
            f"{len(loss_sum_N)} losses for {len(rows.question_N)} rows; each choice of each question needs one"
        )
    if np.isnan(loss_sum_N).any():
        raise ValueError(f"the loss of row {int(np.argmax(np.isnan(loss_sum_N)))} is NaN; did the run diverge?")
    _, first_Q, question_N = np.unique(rows.question_N, return_index=True, return_inverse=True)
    loss_QxC = np.full((len(first_Q), rows.choice_N.max() + 1), np.inf)
    loss_QxC[question_N, rows.choice_N] = loss_sum_N / rows.tokens_N
    gold_Q = rows.gold_N[first_Q]
    answer_Q = loss_QxC.argmin(axis=1)
    only_Q = np.bincount(question_N) == 1
    if only_Q.any():
        if greedy_N is None:
            raise ValueError("a question with one choice is judged by what a greedy reader writes; give greedy_N")
        answer_Q[only_Q & ~np.asarray(greedy_N, bool)[first_Q]] = -1
    right_N = rows.choice_N == rows.gold_N
    bits_Q = np.empty(len(first_Q))
    bits_Q[question_N[right_N]] = (loss_sum_N / rows.bytes_N)[right_N] / math.log(2)
    each_Q = np.arange(len(first_Q))
    loss_Q = loss_QxC[each_Q, gold_Q]
    wrong_QxC = loss_QxC.copy()
    wrong_QxC[each_Q, gold_Q] = np.inf
    likelihood_QxC = np.exp(loss_QxC.min(axis=1, keepdims=True) - loss_QxC)
    probability_Q = likelihood_QxC[each_Q, gold_Q] / likelihood_QxC.sum(axis=1)
    return Scores(
        category_Q=rows.category_N[first_Q],
        gold_Q=gold_Q,
        answer_Q=answer_Q,
        loss_Q=loss_Q,
        bits_per_byte_Q=bits_Q,
        margin_Q=np.where(only_Q, math.nan, wrong_QxC.min(axis=1) - loss_Q),
        probability_Q=np.where(only_Q, math.nan, probability_Q),
    )


def summarise(scores: Scores, chance_accuracy: float) -> dict[str, Estimate]:
    """Gives a task's scores: means over questions, then unweighted over categories, as the paper averages jeopardy.

    They are `accuracy`, `accuracy_above_chance` (0 for a blind guess, 1 for all right), `loss` of the right choice
    (nats a token), its `bits_per_byte`, and where there are choices, `margin` (nats a token) and `probability`.
    """
    accuracy = _mean(scores.answer_Q == scores.gold_Q, scores.category_Q)
    scale = 1 / (1 - chance_accuracy)
    above_chance = Estimate((accuracy.value - chance_accuracy) * scale, accuracy.stderr * scale)
    summary = {"accuracy": accuracy, "accuracy_above_chance": above_chance}
    for name in ("loss", "bits_per_byte", "margin", "probability"):
        values_Q = getattr(scores, f"{name}_Q")
        if not np.isnan(values_Q).any():
            summary[name] = _mean(values_Q, scores.category_Q)
    return summary


def _mean(values_Q: np.ndarray, category_Q: np.ndarray) -> Estimate:
    means = []
    for category in np.unique(category_Q):
        part = values_Q[category_Q == category].astype(np.float64)
        stderr = part.std(ddof=1) / math.sqrt(len(part)) if len(part) > 1 else math.nan
        means.append(Estimate(float(part.mean()), float(stderr)))
    return average(means)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Gives the unweighted mean of independent estimates, as the paper averages its downstream tasks."""
    if not estimates:
        raise ValueError("nothing to average; name at least one task")
    return Estimate(
        float(np.mean([e.value for e in estimates])),
        float(np.sqrt(np.sum([e.stderr**2 for e in estimates])) / len(estimates)),
    )
