"""What a run's log holds: which run it is of, and which of its columns is what."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from fitting import files
from fitting.testbeds.testbed import LOSS_KINDS, SETTING_COLUMNS

_Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


class Log(pydantic.BaseModel):
    """What a run is, and what the columns of its log are.

    Attributes:
      columns: by our name, the log's: `{"loss/train": "train/loss"}`. Ours are `step`, `tokens` (D so far),
        `loss/<set>` (nats a token), `bpb/<task>`, `error/<task>`, and the settings of a testbed, such as
        `learning_rate`. An error may be given as `1-<accuracy>`. Usual names of `step` and `tokens` are known.
      params: N, embeddings counted.
      params_non_embedding: parameters without the embeddings.
      tokens_per_step: of a batch; tokens are then steps times it, whatever else the log counts.
      smooth: by our name, over how many tokens a column is averaged: the mean of what was logged in the last so many.
      role: `rung` or `target`.
      corpus, model: as in a testbed.
      settings: further numbers of a testbed that do not change, such as `unique_tokens`.
      files: the run's own logs, later parts last.

    Raises:
      pydantic.ValidationError: a ValueError; what is missing, unknown or not positive.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    columns: Mapping[str, str]
    params: _Positive
    params_non_embedding: _Positive | None = None
    tokens_per_step: _Positive | None = None
    smooth: Mapping[str, _Positive] = {}
    role: Literal["rung", "target"] = "rung"
    corpus: str = ""
    model: str = ""
    settings: Mapping[str, _Positive] = {}
    files: Annotated[tuple[str, ...], pydantic.BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = ()

    @pydantic.model_validator(mode="after")
    def _check(self) -> "Log":
        known = ("step", "tokens", *SETTING_COLUMNS)
        for name in self.columns:
            if name not in known and not is_measured(name):
                raise ValueError(
                    f"column {name!r} is unknown; it is step, tokens, loss/<set>, bpb/<task>, error/<task>, "
                    f"{', '.join(SETTING_COLUMNS)}"
                )
        if not any(map(is_measured, self.columns)):
            raise ValueError("no column is a loss or an error; say which is, such as loss/train=train/loss")
        if "tokens" in self.columns and self.tokens_per_step:
            raise ValueError("tokens are either a column of the log or tokens_per_step times its steps, not both")
        for name in self.smooth:
            if name not in self.columns:
                raise ValueError(f"smooth: {name!r} is not among the columns {', '.join(self.columns)}")
        for name in self.settings:
            if name not in SETTING_COLUMNS or name in self.columns:
                others = [setting for setting in SETTING_COLUMNS if setting not in self.columns]
                raise ValueError(f"settings: {name!r} is none that can be given; there are {', '.join(others)}")
        return self


def load(path: Any) -> dict[str, Log]:
    """Reads many runs' logs from YAML: `runs`, by name, and beside it what is common to all.

    Raises:
      ValueError: no such file, not YAML, or a run of which something is missing or unknown; the message says where.
    """
    import yaml
    from etils import epath

    path = epath.Path(path)
    try:
        tree = yaml.load(files.read_text(path), _loader())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("runs"), dict) or not tree["runs"]:
        raise ValueError(f"{path}: it must have a mapping `runs`, by the runs' names")
    common = {key: value for key, value in tree.items() if key != "runs"}
    logs = {}
    for run, own in tree["runs"].items():
        own = {} if own is None else own
        if not isinstance(own, dict):
            raise ValueError(f"{path}: run {run}: it must be a mapping, such as {{files: a.csv, params: 411e6}}")
        log = make(f"{path}: run {run}: ", **_over(common, own))
        logs[str(run)] = log.model_copy(update={"files": tuple(str(path.parent / file) for file in log.files)})
    return logs


def _loader() -> type:
    """Of YAML in which nothing is named twice, where PyYAML would take the last."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
                raise yaml.YAMLError(f"{twice[0]!r} is there twice, at line {node.start_mark.line + 1} and below")
            return super().construct_mapping(node, deep)

    return Loader


def _over(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What is common and what is a run's own, which counts where both say it; mappings are put together."""
    both = {key: (common[key], own[key]) for key in common.keys() & own.keys()}
    mapped = {key: a | b for key, (a, b) in both.items() if isinstance(a, dict) and isinstance(b, dict)}
    return {**common, **own, **mapped}


def make(where: str = "", **settings: Any) -> Log:
    """A `Log`, or a ValueError of one line that begins with `where`."""
    try:
        return Log(**settings)
    except pydantic.ValidationError as error:
        raise ValueError(where + "; ".join(map(_problem, error.errors()))) from None


def is_measured(name: str) -> bool:
    """Whether a column of ours is a loss or an error."""
    kind, _, of = name.partition("/")
    return bool(of) and kind in (*LOSS_KINDS, "error")


def _problem(error: Mapping[str, Any]) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {where}; keys are {', '.join(Log.model_fields)}"
    return f"{where} is missing" if error["type"] == "missing" else f"{where}: {error['msg']}"
