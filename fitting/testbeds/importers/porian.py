"""The experiments of Porian et al. 2024."""

import importlib
import io
import lzma
import pickle
import typing
from typing import Any

from fitting.files import cut
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd

_FILES = ("summary_df.pickle.xz", "summary_df_owt2.pickle.xz")
_CORPORA = {"rw": "refinedweb", "owt2": "openwebtext2"}
_MOST_BYTES = 2**30
# All that a pickled table is made of; whatever else a pickle names is not looked up, and so not run.
_MADE_OF = {
    "builtins": ("slice",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "pandas": ("DataFrame", "Index", "RangeIndex", "Series"),
    "pandas._libs.internals": ("_unpickle_block",),
    "pandas.core.frame": ("DataFrame",),
    "pandas.core.indexes.base": ("Index", "_new_Index"),
    "pandas.core.indexes.range": ("RangeIndex",),
    "pandas.core.internals.managers": ("BlockManager", "SingleBlockManager"),
    "pandas.core.series": ("Series",),
}


def porian(path: Any) -> Testbed:
    """The isoFLOP experiments (arXiv:2406.19146): a clone of github.com/formll/resolving-scaling-law-discrepancies.

    Or its folder `data`, or one of its summaries. A run is a model at a budget of compute, its validation loss read off
    its curve. Settings are told apart by the columns `hparams` (base, tuned), `warmup` and `decay` (const, chinchilla,
    kaplan): select one, such as "hparams == 'tuned'". N counts the output table and no input table, as the paper does.
    """
    import pandas as pd

    folder = path / "data" if (path / "data").is_dir() else path
    paths = [folder / name for name in _FILES if (folder / name).exists()] if folder.is_dir() else [path]
    if not paths:
        raise ValueError(f"{path}: no data/{_FILES[0]}; give a clone of formll/resolving-scaling-law-discrepancies")
    return Testbed(pd.DataFrame([row for path in paths for row in _runs(path)]))


def _runs(path: Any) -> list[dict[str, Any]]:
    rows = []
    summary = read_frame(path)
    try:
        # Compute that leaves the output table out, and training losses, are of the reproduction of Kaplan et al. alone.
        settings = summary[(summary["param_count"] == "standard") & (summary["val"] == "val")]
        for _, setting in settings.iterrows():
            corpus = _CORPORA.get(setting["dataset"], setting["dataset"])
            named = {name: setting[name] for name in ("hparams", "warmup", "decay")}
            for _, budget in setting["data"].iterrows():
                for params, tokens, loss in zip(*(budget[f"orig_{x}"] for x in ("n", "t", "loss")), strict=True):
                    rows.append(
                        {
                            "run": "-".join(
                                [setting["dataset"], *named.values(), f"{params / 1e6:.4g}M", f"{budget['flops']:g}"]
                            ),
                            "corpus": corpus,
                            "model": f"{params / 1e6:.0f}M",
                            "params": params,
                            "tokens": tokens,
                            "flops": budget["flops"],
                            f"loss/{corpus}": loss,
                            **named,
                        }
                    )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a summary of the paper's experiments: no {cut(error)}") from None
    return rows


def read_frame(path: Any) -> "pd.DataFrame":
    """A pickled, compressed DataFrame of others, which may be made of tables and numbers and of nothing else.

    Raises:
      ValueError: not such a file, or one that would run or hold anything else.
    """
    import pandas as pd

    try:
        with lzma.open(io.BytesIO(path.read_bytes())) as compressed:
            text = compressed.read(_MOST_BYTES)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path}: not compressed by xz: {error}") from None
    try:
        frame = _Tables(io.BytesIO(text)).load()
    except Exception as error:  # a damaged pickle fails in as many ways as it has instructions
        raise ValueError(f"{path}: not a pickled table: {cut(error)}") from None
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"{path}: not a table, but {type(frame).__name__}")
    return frame


class _Tables(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Of `_MADE_OF` alone, by NumPy's names of before its version 2 or after."""
        if name not in _MADE_OF.get(module.replace("numpy._core", "numpy.core"), ()):
            raise pickle.UnpicklingError(f"it holds {cut(module)}.{cut(name)}, which is no part of a table")
        try:
            return getattr(importlib.import_module(module.replace("numpy.core", "numpy._core")), name)
        except ModuleNotFoundError:  # NumPy 1
            return getattr(importlib.import_module(module.replace("numpy._core", "numpy.core")), name)
