"""What `import fitting` gives: the few names that a notebook needs, whose results show themselves there."""

from typing import Any

from fitting import selection
from fitting.advice import Advice
from fitting.advice import advise as advise
from fitting.artifacts.fitted import FittedLaw, Prediction
from fitting.artifacts.fitted import load as load
from fitting.artifacts.fitted import save as save
from fitting.comparison import Comparison
from fitting.comparison import compare as compare
from fitting.methods import fit as fit
from fitting.prediction import pooled_error as pooled_error
from fitting.prediction import predict as predict
from fitting.reports import cells
from fitting.reports.cells import draw as draw
from fitting.reports.report import write
from fitting.settings import Settings
from fitting.settings import best_settings as best_settings
from fitting.testbeds import importers
from fitting.testbeds.curves import annealed as annealed
from fitting.testbeds.testbed import Testbed


def read(table: Any, folder: Any = None) -> Testbed:
    """Reads a table of runs: a CSV, a published one that is shipped, or a published one from its authors' folder.

    >>> import fitting
    >>> testbed = fitting.read("gadre2024")
    >>> len(testbed.table)
    24

    Args:
      table: the path of a CSV; or the name of a table that is shipped, such as `gadre2024`; or, with a folder, the name
        of a kind in `fitting.testbeds.importers.KINDS`.
      folder: what the authors published, such as `exp_data` of github.com/mlfoundations/scaling.

    Raises:
      ValueError: no such table, or one that is not as it should be.
    """
    if folder is not None:
        return importers.read(table, folder)
    return Testbed.read(importers.shipped(str(table)) or table)


def report(law: FittedLaw, folder: Any, *, checks: bool = True) -> Any:
    """Writes law.json and its report into a folder: HTML, Markdown, LaTeX, CSV, JSON and figures.

    >>> import fitting, tempfile
    >>> law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select="corpus == 'rpj' and role == 'rung'")
    >>> fitting.report(law, tempfile.mkdtemp(), checks=False).name
    'report.html'

    Args:
      law: what to report.
      folder: where to, local or on `gs://`.
      checks: whether to fit again without each run, and otherwise, which takes seconds.

    Returns:
      The path of report.html.
    """
    from etils import epath

    folder = epath.Path(folder)
    save(law, folder / "law.json")
    return write(law, folder, checks=selection.checks(law) if checks else None)


# What these hold knows nothing of pages; here both are known, and a notebook asks by this name.
for _kind, _cell in (
    (Testbed, cells.testbed),
    (FittedLaw, cells.law),
    (Prediction, cells.prediction),
    (Advice, cells.advice),
    (Settings, cells.settings),
    (Comparison, cells.comparison),
):
    setattr(_kind, cells.ASKED_BY_NOTEBOOKS, _cell)
