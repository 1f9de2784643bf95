"""The paper's validation sets: where each is to be had, and how it is read."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a published validation set is: what `corpora.validation` reads, and where to get it.

    Attributes:
      kind: `jsonl` or `tfds`.
      options: of that kind; `path` is relative to the folder of the published sets.
      where: to get it.
    """

    kind: str
    options: Mapping[str, str]
    where: str


_PALOMA = "https://huggingface.co/datasets/allenai/paloma"


def _paloma(folder: str) -> Source:
    return Source("jsonl", {"path": f"{folder}/val/*.jsonl*"}, f"{_PALOMA}, folder {folder}/val")


# The eight losses of Gadre et al. 2024, by our short names for them.
PAPER: Mapping[str, Source] = {
    "c4_val": Source("tfds", {"name": "c4/en:3.1.0", "split": "validation"}, "`tfds build c4/en`"),
    "openlm_val": Source("jsonl", {"path": "open_lm_val/*.jsonl*"}, "https://github.com/mlfoundations/open_lm"),
    "paloma_c4_en": _paloma("c4_en"),
    "paloma_falcon-refinedweb": _paloma("falcon-refinedweb"),
    "paloma_redpajama": _paloma("redpajama"),
    "paloma_ptb": _paloma("ptb"),
    "paloma_dolma_100_programing_languages": _paloma("dolma_100_programing_languages"),
    "de-en": Source("jsonl", {"path": "de-en/*.jsonl*"}, "https://github.com/mlfoundations/scaling, val_de-en_100"),
}
