"""What a fit itself says against trusting it: told when it is made, and again in its report.

From law.json alone, in milliseconds to a second: nothing is fitted again that NumPy cannot do at once.
"""

from collections.abc import Iterator

import numpy as np

from fitting import forms
from fitting.artifacts.fitted import FittedLaw, LawFit, inputs_of, is_lawful

_FAR = 4  # times beyond the ladder's tokens a parameter: the mission's own targets lie up to 2 beyond
_SURE, _BETTER = 0.9, 0.8  # weight of another form, and its miss over the law's, from which it is told
_FEW, _MANY = 12, 1000  # runs that a pattern of residuals, or two forms, can be told by; more are steps of curves
_NEIGHBOURS = 4
_SHUFFLES, _RARE = 999, 0.002
_OF_NO_CONCERN = 0.002  # of the loss: a pattern smaller than what a seed makes


def doubts(law: FittedLaw) -> Iterator[str]:
    """What should be known before the law is used, one sentence each with the remedy where there is one."""
    for part, fit in law.fits.items():
        for name in fit.at_bound:
            yield f"Parameter {name} of the {part} law lies at its bound: the data do not determine it."
    better = better_form(law)
    if better:
        yield better
    elif pattern := _pattern(law.loss):
        yield pattern
    if law.error and not is_lawful(law.tasks.get(law.error.column, 1.0)):
        yield (
            f"{law.error.column} follows no law on this ladder: the others' law foretells a run left out hardly better "
            "than their mean. Predict an average of tasks in its place."
        )
    yield from _far(law)


def ranked(fit: LawFit) -> tuple[forms.Form, ...]:
    """The loss laws that a law's runs can tell apart, by weight; empty where sizes are too few, or runs are steps."""
    points = fit.points
    if len(points) > _MANY:
        return ()
    shared = set.intersection(*(set(point.columns) for point in points))
    names = ("params", "tokens", *sorted(shared))
    return forms.ranked(inputs_of(points, names), np.array([point.measured for point in points]))


def better_form(law: FittedLaw) -> str:
    """Which other law foretells each run from the rest far better; nothing where none does."""
    found = {form.law: form for form in ranked(law.loss)} if len(law.loss.points) >= _FEW else {}
    own, best = found.get(law.loss.law), next(iter(found.values()), None)
    if not (own and best) or best.law == own.law or best.weight < _SURE or best.miss > _BETTER * own.miss:
        return ""
    return (
        f"The law {best.law} foretells each run from the others to {best.miss:.2%}, {own.law} to {own.miss:.2%}, and "
        f"has {best.weight:.0%} of the weight: compare --law {best.law} --method best."
    )


def _pattern(fit: LawFit) -> str:
    """Moran's I (1950) of neighbours among sizes: whether runs alike in size lie off the law alike; else nothing."""
    points = fit.points
    if not _FEW <= len(points) <= _MANY:
        return ""
    at_NxK = np.log([(point.params, point.tokens) for point in points])
    off_N = np.array([point.measured / point.fitted - 1 for point in points])
    if np.sqrt(np.mean(off_N**2)) < _OF_NO_CONCERN:
        return ""
    distance_NxN = ((at_NxK[:, None] - at_NxK) ** 2).sum(-1)
    distance_NxN[distance_NxN == 0] = np.inf  # itself, and seeds of one size, which share what they are off by
    near_NxM = distance_NxN.argsort(1)[:, :_NEIGHBOURS]
    off_N = off_N - off_N.mean()
    shuffled_SxN = np.random.default_rng(0).permuted(np.tile(off_N, (_SHUFFLES, 1)), axis=1)
    alike_S = (shuffled_SxN * shuffled_SxN[:, near_NxM].mean(-1)).sum(1)
    if (1 + (alike_S >= off_N @ off_N[near_NxM].mean(-1)).sum()) / (1 + _SHUFFLES) > _RARE:
        return ""
    return (
        f"Runs alike in size lie off the {fit.law} law alike, by {np.sqrt(np.mean(off_N**2)):.2%} root mean square: "
        "that is a pattern that the law lacks, not noise, and it goes on where the law extrapolates."
    )


def _far(law: FittedLaw) -> Iterator[str]:
    multipliers = [point.token_multiplier for point in law.loss.points]
    low, high = min(multipliers), max(multipliers)
    beyond = {p.run: max(p.token_multiplier / high, low / p.token_multiplier) for p in law.predictions}
    if far := [run for run, times in beyond.items() if times > _FAR]:
        run = max(far, key=beyond.__getitem__)
        others = f" and {len(far) - 1} more" if len(far) > 1 else ""
        yield (
            f"{run}{others} lie up to {beyond[run]:.2g} times beyond the runs fitted in tokens a parameter ({low:.3g} "
            f"to {high:.3g}): how size and data trade off there, no run tells."
        )
