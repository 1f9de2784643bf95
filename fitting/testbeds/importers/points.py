"""Testbeds that are one file of points: parameters, tokens and a loss."""

import typing
from typing import Any

from fitting.testbeds.importers.sources import read_csv
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd


def chinchilla(path: Any) -> Testbed:
    """245 runs read off Hoffmann et al. 2022, Fig. 4, by Besiroglu et al. 2024 (arXiv:2404.10102).

    A CSV with columns N, D and loss; `used`, where there is one, is 0 for the five runs of highest loss, which the
    replication left out: they are in quarantine. N counts all parameters.
    """
    points = read_csv(path, "N", "D", "loss")
    table = _points(points, "massivetext").assign(run=[f"chinchilla-{i:03d}" for i in range(len(points))])
    if "used" in points:
        table["quarantine"] = ["" if used else _CHINCHILLA_UNUSED for used in points["used"]]
    return Testbed(table)


_CHINCHILLA_UNUSED = "one of the five highest losses, which Besiroglu et al. 2024 leave out"


def datablations(path: Any) -> Testbed:
    """182 runs with repeated data of Muennighoff et al. 2023 (arXiv:2305.16264): a CSV with name, N, D, U and loss.

    `unique_tokens` is U, the tokens of the corpus: epochs are D/U.
    """
    points = read_csv(path, "name", "N", "D", "U", "loss")
    return Testbed(_points(points, "c4").assign(run=points["name"], unique_tokens=points["U"]))


def _points(points: "pd.DataFrame", corpus: str) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {"corpus": corpus, "params": points["N"], "tokens": points["D"], f"loss/{corpus}": points["loss"]}
    )
