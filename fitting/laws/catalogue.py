"""Every law by name. To add one, write its terms in the file of its family and add it to the family's LAWS."""

from collections.abc import Collection, Mapping

from fitting.laws import (
    annealing,
    architecture,
    distillation,
    experts,
    mixtures,
    params_and_tokens,
    precision,
    rays,
    repeated_data,
    streams,
    sweeps,
    vocabulary,
    wall_clock,
)
from fitting.laws.downstream import errors, public_models, sampling
from fitting.laws.law import Law
from fitting.laws.mixtures import PROPORTION

LOSS_LAWS: Mapping[str, Law] = {
    law.name: law
    for family in (
        *(params_and_tokens, rays, repeated_data, architecture, precision, annealing),
        *(experts, vocabulary, sweeps, streams, distillation, wall_clock),
    )
    for law in family.LAWS
}
ERROR_LAWS: Mapping[str, Law] = {law.name: law for law in errors.LAWS}
# Laws of how often tasks are solved, which know no loss: what they are of is fitted as a loss is.
TASK_LAWS: Mapping[str, Law] = {law.name: law for family in (sampling, public_models) for law in family.LAWS}
# Laws of as many domains as a table has: `mixture` of it is, say, `mixture:web,code`, and so a law.json names it.
FAMILIES = mixtures.FAMILIES

OVER_TRAINING = LOSS_LAWS["over_training"]
EXPONENTIAL_DECAY = ERROR_LAWS["exponential_decay"]


def named(name: str) -> Law:
    """The law of that name. Raises ValueError where there is none."""
    family, _, domains = name.partition(":")
    if domains and family in FAMILIES:
        return FAMILIES[family](*domains.split(","))
    known = {**LOSS_LAWS, **TASK_LAWS, **ERROR_LAWS}
    if name not in known:
        raise ValueError(f"law {name!r} is unknown to this version; it knows {', '.join((*known, *FAMILIES))}")
    return known[name]


def loss_law(name: str, columns: Collection[str]) -> Law:
    """The loss law of that name for a table of these columns: a family's is of the domains that the table has.

    Raises:
      ValueError: no such law; a column that it needs and the table lacks, with the laws that could be fitted instead.
    """
    domains = [column.removeprefix(PROPORTION) for column in columns if column.startswith(PROPORTION)]
    if name in FAMILIES:
        if len(domains) > 1:
            return FAMILIES[name](*domains)
        of, missing = f"{PROPORTION}<domain> of two domains or more", f"{PROPORTION}<domain>"
    else:
        if name not in {**LOSS_LAWS, **TASK_LAWS} and ":" not in name:
            raise ValueError(f"law {name!r} is unknown; there are {', '.join((*LOSS_LAWS, *TASK_LAWS, *FAMILIES))}")
        law = named(name)
        if set(law.inputs) <= set(columns):
            return law
        of, missing = ", ".join(law.inputs), ", ".join(input for input in law.inputs if input not in columns)
    others = [other for other, law in LOSS_LAWS.items() if set(law.inputs) <= set(columns)]
    others += FAMILIES if len(domains) > 1 else ()
    raise ValueError(
        f"law {name} is of {of}: there is no column {missing}; those there are are enough for {', '.join(others)}"
    )
