"""Every law by name. To add one, write its terms in the file of its family and add it to the family's LAWS."""

from collections.abc import Mapping

from fitting.laws import (
    annealing,
    architecture,
    errors,
    experts,
    params_and_tokens,
    precision,
    rays,
    repeated_data,
    streams,
    sweeps,
    vocabulary,
)
from fitting.laws.law import Law

LOSS_LAWS: Mapping[str, Law] = {
    law.name: law
    for family in (
        *(params_and_tokens, rays, repeated_data, architecture, precision, annealing),
        *(experts, vocabulary, sweeps, streams),
    )
    for law in family.LAWS
}
ERROR_LAWS: Mapping[str, Law] = {law.name: law for law in errors.LAWS}

OVER_TRAINING = LOSS_LAWS["over_training"]
EXPONENTIAL_DECAY = ERROR_LAWS["exponential_decay"]


def named(name: str) -> Law:
    """The law of that name. Raises ValueError where there is none."""
    known = {**LOSS_LAWS, **ERROR_LAWS}
    if name not in known:
        raise ValueError(f"law {name!r} is unknown to this version; it knows {', '.join(known)}")
    return known[name]
