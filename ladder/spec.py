"""RunSpec: one run, fully decided; and the workdir's layout, whose paths are made nowhere else."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
from etils import epath

from fitting.files import cut
from ladder import storage
from ladder.recipe import Hyperparameters
from models import accounting
from models.config import DecoderConfig

SCHEMA_VERSION = 1
# Of a file of the workdir that is damaged.
PLAN_REMEDY = "remove it, and `ladder run` writes it again"
RECORD_REMEDY = "remove it, and `ladder evaluate` measures the run again"
CORPUS_REMEDY = "remove the folder corpus, and `ladder run` reads the corpus again"


@dataclasses.dataclass(frozen=True)
class Trunk:
    """The run whose first `step` steps are a branch's own too; `steps` are all of its steps."""

    run: str
    step: int
    steps: int


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One run of the ladder (`rung`) or a run to predict (`target`).

    `params` (N) counts what exists, embeddings included; `tokens` (D) is steps × batch × sequence length exactly.
    A run with a `trunk` is a branch: it begins with the trunk's state, and ends in the very numbers that it would have
    come to alone. `branches` are the steps after which others branch off this run.
    """

    run: str
    role: Literal["rung", "target"]
    size: str
    decoder: DecoderConfig
    sequence_length: int
    steps: int
    hyperparameters: Hyperparameters
    seed: int
    trunk: Trunk | None = None
    branches: tuple[int, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def params(self) -> int:
        """N."""
        return accounting.params(self.decoder)

    @property
    def params_non_embedding(self) -> int:
        """N without both embedding tables."""
        return accounting.params_non_embedding(self.decoder)

    @property
    def records(self) -> int:
        """How many records it reads, one a sequence."""
        return self.steps * self.hyperparameters.batch_size

    @property
    def pool_steps(self) -> int:
        """For how many steps its pool must have records: a branch reads on where its trunk was."""
        return max(self.steps, self.trunk.steps if self.trunk else 0)

    @property
    def pool_records(self) -> int:
        """How many records those read."""
        return self.pool_steps * self.hyperparameters.batch_size

    @property
    def tokens(self) -> int:
        """D."""
        return self.records * self.sequence_length

    @property
    def token_multiplier(self) -> float:
        """M = D / N, as trained."""
        return self.tokens / self.params

    @property
    def flops(self) -> float:
        """C = 6 N D."""
        return accounting.training_flops(self.params, self.tokens)

    @property
    def alone(self) -> "RunSpec":
        """The same run without a trunk, and as none."""
        return dataclasses.replace(self, trunk=None, branches=())

    @property
    def first_step(self) -> int:
        """Steps that its trunk has done for it."""
        return self.trunk.step if self.trunk else 0

    @property
    def own_steps(self) -> int:
        """Steps that it trains itself."""
        return self.steps - self.first_step

    @property
    def own_flops(self) -> float:
        """What those cost, which its trunk's did not."""
        return self.flops * self.own_steps / self.steps

    @property
    def constant_steps(self) -> int:
        """Its first steps, whose rates do not depend on where it ends; 0 with a cosine."""
        cooldown = self.hyperparameters.cooldown
        return max(0, self.steps - cooldown.steps) if cooldown else 0


def identity(spec: RunSpec, pool: Sequence[Mapping[str, Any]]) -> str:
    """The sha256 of all that determines what a run learns, and of nothing else: runs of one identity are the same run.

    Args:
      spec: the run; its decoder (with its dtype), hyperparameters, steps, seed and sequence length count, its name, its
        size's name, its role and its trunk do not.
      pool: what it reads, part by part (`ladder.training.pool`).
    """
    hyperparameters = dataclasses.asdict(spec.hyperparameters)
    if spec.hyperparameters.cooldown is None:
        del hyperparameters["cooldown"]  # as runs of before there were any are known
    told = {
        "decoder": dataclasses.asdict(spec.decoder),
        "hyperparameters": hyperparameters,
        "sequence_length": spec.sequence_length,
        "steps": spec.steps,
        "seed": spec.seed,
        "pool": list(pool),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def run_name(
    size: str, token_multiplier: float, learning_rate_scale: float = 1.0, batch_scale: float = 1.0, seed: int = 0
) -> str:
    """The name of a run, such as `w24-m320`.

    Of a sweep it says the factors, as `w24-m320-lr0.5-b2` does of half the rate and twice the batch, and of one more
    seed which: `w24-m320-s1`.
    """
    rate = f"-lr{learning_rate_scale:g}" if learning_rate_scale != 1 else ""
    batch = f"-b{batch_scale:g}" if batch_scale != 1 else ""
    return f"{size}-m{token_multiplier:g}{rate}{batch}" + (f"-s{seed}" if seed else "")


def dump(spec: RunSpec) -> bytes:
    """spec.json."""
    return pydantic.TypeAdapter(RunSpec).dump_json(spec, indent=2) + b"\n"


def load(path: epath.Path) -> RunSpec:
    """Reads spec.json.

    Raises:
      ValueError: if it does not hold a run that this version knows.
    """
    try:
        spec = pydantic.TypeAdapter(RunSpec).validate_json(path.read_bytes())
    except pydantic.ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in e.errors()[:3])
        raise ValueError(f"{path} is no spec.json: {cut(problems, 200)}; {PLAN_REMEDY}") from e
    if spec.schema_version != SCHEMA_VERSION:
        raise ValueError(f"{path} has schema {spec.schema_version}; this version reads {SCHEMA_VERSION}")
    return spec


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A ladder's folder, local or gs://."""

    root: epath.Path

    @classmethod
    def at(cls, path: str) -> "Workdir":
        """The workdir at a local path or a gs:// one. Raises ValueError where it is neither."""
        return cls(storage.place(path))

    @property
    def config(self) -> epath.Path:
        """ladder.yaml: the config that made this workdir."""
        return self.root / "ladder.yaml"

    @property
    def plan(self) -> epath.Path:
        """plan.json: what `ladder plan --json` prints."""
        return self.root / "plan.json"

    def planned(self, *keys: str) -> list[dict[str, Any]]:
        """The rows of plan.json, one a run, in the order of the plan; each has `run` and these keys.

        Raises:
          ValueError: this is no workdir, or the file is damaged.
        """
        if not self.plan.exists():
            raise ValueError(
                f"{self.root} is no workdir: it has no plan.json; make one with `ladder run CONFIG --workdir DIR`"
            )
        rows = storage.read_json(self.plan, PLAN_REMEDY, "runs")["runs"]
        if not isinstance(rows, list):
            raise ValueError(f"{self.plan} is damaged: its runs are no list; {PLAN_REMEDY}")
        for row in rows:
            if not isinstance(row, dict) or not {"run", *keys} <= row.keys():
                raise ValueError(f"{self.plan} is damaged: {cut(row)} is no planned run; {PLAN_REMEDY}")
        return rows

    @property
    def corpus(self) -> epath.Path:
        """corpus.json: how much text there is; written last, when all of the corpus is on disk."""
        return self.root / "corpus" / "corpus.json"

    @property
    def own_lease(self) -> epath.Path:
        """lease.json: who prepares the workdir or fits its law, while somebody does."""
        return self.root / "lease.json"

    @property
    def train_records(self) -> epath.Path:
        """Folder of the token records to train on, or of mixture.json that says where they are."""
        return self.root / "corpus" / "train"

    def validation_records(self, name: str) -> epath.Path:
        """Token records of one of the corpus's validation sets."""
        return self.root / "corpus" / "validation" / f"{name}.npy"

    def validation_set(self, name: str) -> epath.Path:
        """Tokens of one of the config's own validation sets."""
        return self.root / "corpus" / "validation" / f"{name}.npz"

    def questions(self, task: str) -> epath.Path:
        """The questions of one downstream task."""
        return self.root / "corpus" / "tasks" / f"{task}.npz"

    @property
    def testbed(self) -> epath.Path:
        """testbed.csv: one row a run."""
        return self.root / "testbed.csv"

    @property
    def schedule(self) -> epath.Path:
        """schedule.json: the slice and the time that each run is given, where the config names machines."""
        return self.root / "schedule.json"

    @property
    def status_page(self) -> epath.Path:
        """status.html: what `ladder status --html` keeps."""
        return self.root / "status.html"

    def spec(self, run: str) -> epath.Path:
        """spec.json of one run."""
        return self.root / "runs" / run / "spec.json"

    def checkpoints(self, run: str) -> epath.Path:
        """Folder of one run's checkpoints, one folder a step."""
        return self.root / "runs" / run / "checkpoints"

    def checkpoint_steps(self, run: str) -> list[int]:
        """After which steps one run's whole checkpoints are, in order."""
        folder = self.checkpoints(run)
        steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []
        return sorted(step for step in steps if storage.is_whole(folder / str(step)))

    def awaited_trunk(self, spec: RunSpec) -> str:
        """The trunk that has not come yet to where a branch leaves it; "" where the run may begin."""
        if (trunk := spec.trunk) is None or self.record(trunk.run).exists() or self.checkpoint_steps(spec.run):
            return ""
        has_come = any(step >= trunk.step for step in self.checkpoint_steps(trunk.run))
        return "" if has_come else trunk.run

    def refuse_early(self, spec: RunSpec) -> None:
        """Raises a ValueError if a branch cannot begin yet."""
        if spec.trunk and self.awaited_trunk(spec):
            raise ValueError(
                f"{spec.run} begins after step {spec.trunk.step:,} of {spec.trunk.run}, which has not come so far: "
                f"train that first (`ladder train --run {spec.trunk.run}`)"
            )

    def metrics(self, run: str) -> epath.Path:
        """metrics.jsonl of one run."""
        return self.root / "runs" / run / "metrics.jsonl"

    def tensorboard(self, run: str) -> epath.Path:
        """Folder of one run's event files and profiles."""
        return self.root / "runs" / run / "tensorboard"

    def record(self, run: str) -> epath.Path:
        """record.json of one run: what was measured."""
        return self.root / "runs" / run / "record.json"

    def lease(self, run: str) -> epath.Path:
        """lease.json of one run: who carries it out, while somebody does."""
        return self.root / "runs" / run / "lease.json"

    def attempts(self, run: str) -> epath.Path:
        """attempts.jsonl of one run: a line an attempt that has ended."""
        return self.root / "runs" / run / "attempts.jsonl"

    def partial_record(self, run: str) -> epath.Path:
        """What was measured of one run until its evaluation broke off."""
        return self.root / "runs" / run / "record.partial.json"

    def examples(self, run: str, task: str, kind: str) -> epath.Path:
        """One run's answers to one task, question by question, as `jsonl` or `parquet`."""
        return self.root / "runs" / run / "examples" / f"{task}.{kind}"

    def prediction(self, run: str) -> epath.Path:
        """What the rungs' law said of a target before it was trained, frozen."""
        return self.root / "predictions" / f"{run}.json"

    def fit(self, name: str = "default") -> epath.Path:
        """Folder of one fit: law.json and its report."""
        return self.root / "fits" / name
