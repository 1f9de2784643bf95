"""What happens while a ladder is carried out, as those that do it report it."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Claimed:
    """A run's lease is the process's that is called `holder` there."""

    run: str
    holder: str


@dataclasses.dataclass(frozen=True)
class Begun:
    """A run is about to train the step after these; `attention` is what its machine attends by."""

    run: str
    done: int
    attention: str = ""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run has come to `step`; `loss_nats` and `tokens_per_second` are means since its last report."""

    run: str
    step: int
    loss_nats: float
    tokens_per_second: float


@dataclasses.dataclass(frozen=True)
class Evaluating:
    """A run is trained and is being measured; `done` questions or sequences of `what` are scored."""

    run: str
    what: str = ""
    done: int = 0


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run has its record; `quarantine` says why it must not be fitted, or is empty."""

    run: str
    quarantine: str


@dataclasses.dataclass(frozen=True)
class Waits:
    """A run cannot go on yet: another process holds it, or there is no machine for it."""

    run: str
    why: str


@dataclasses.dataclass(frozen=True)
class Again:
    """An attempt at a run ended without its end; it is carried out again, from its newest checkpoint."""

    run: str
    why: str
    message: str


@dataclasses.dataclass(frozen=True)
class SetAside:
    """A run is not carried out again; `message` is what it ended with."""

    run: str
    why: str
    message: str


@dataclasses.dataclass(frozen=True)
class Stops:
    """The command was told to stop while it did this run; `message` is what it waits for and, last, what is saved."""

    run: str
    message: str


@dataclasses.dataclass(frozen=True)
class Cached:
    """Of a part of a corpus, `shards_done` of `shards` are written and, where that is known, so many `tokens`."""

    part: str
    shards_done: int
    shards: int
    tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Of a part of a corpus, so many documents had no text and were left out."""

    part: str
    documents: int


Event = Claimed | Begun | Trained | Evaluating | Finished | Waits | Again | SetAside | Stops
Say = Callable[[str], None]  # tells a person a line
