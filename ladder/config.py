"""LadderConfig: the typed tree that a YAML file fills; what a value may be is said where it stands."""

import dataclasses
import math
from typing import Annotated, Any, Literal, dataclass_transform

import pydantic

from ladder.recipe import CooldownShape, PowerLaw
from tasks.text.published import PAPER

AtLeastOne = Annotated[int, pydantic.Field(ge=1)]
AtLeastZero = Annotated[int, pydantic.Field(ge=0)]
STRICT = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Positive = Annotated[float, pydantic.Field(gt=0)]
Factor = Annotated[float, pydantic.Field(gt=0, le=1e9)]
Seed = Annotated[int, pydantic.Field(ge=0, le=2**32 - 1)]
Attention = Literal["auto", "plain", "splash", "cudnn"]
Remat = Literal["none", "full", "attended", "mixed", "mixed+attended"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def strict(kind: Any) -> Any:
    """Makes a dataclass that refuses unknown keys, which pydantic otherwise reads as if they were not there."""
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)(kind)


@strict
class Size:
    """One size of the ladder: residual width, number of blocks, attention heads, and heads of keys where fewer."""

    width: int
    layers: int
    heads: int
    key_heads: int | None = None


@strict
class Model:
    """What every size shares. `sequence_length` in tokens; see `models.config.DecoderConfig` for the rest.

    The tables' rows are the vocabulary's ids rounded up to a multiple of `vocab_multiple`, which makes matrix products
    faster and shards even; 256 makes the paper's 50,432 of GPT-NeoX's 50,277. `vocab_size` says how many ids there are
    where a plan should not have to read the tokenizer.
    """

    sequence_length: AtLeastOne = 2048
    ffn_multiple: int = 256
    qk_norm: bool = True
    rope_theta: Annotated[float, pydantic.Field(ge=1)] = 10_000.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    vocab_size: AtLeastOne | None = None
    vocab_multiple: AtLeastOne = 1
    norm: Literal["layer", "rms"] = "layer"
    qk_norm_per_head: bool = False
    tied_embeddings: bool = False


@strict
class Grid:
    """Every named size, trained at every token multiplier M = D / N, by so many seeds, from the ladder's own on.

    A sweep trains each with every one of `batch_scales` times the recipe's batch and `learning_rate_scales` times its
    rate, too.
    """

    sizes: tuple[str, ...]
    token_multipliers: tuple[Factor, ...]
    seeds: AtLeastOne = 1
    learning_rate_scales: tuple[Factor, ...] = (1.0,)
    batch_scales: tuple[Factor, ...] = (1.0,)

    @property
    def runs(self) -> int:
        """How many they are."""
        axes = (self.sizes, self.token_multipliers, self.learning_rate_scales, self.batch_scales)
        return self.seeds * math.prod(map(len, axes))


@strict
class Recipe:
    """A named rule of `ladder.recipe`, and what was tuned of it.

    Attributes:
      name: of the rule.
      learning_rate_scale: a factor on its learning rates; 1 leaves them as they are.
      learning_rate, batch_tokens: laws of the peak and of the batch, in place of the rule's own, as `ladder tune`
        writes them; the final rate and the warm-up keep their shares.
      schedule: `cosine`, or `wsd`: a warm-up, a constant rate and a cooldown, so that runs of one size share a trunk.
      cooldown: the share of a run's steps that its cooldown takes.
      cooldown_shape: `1-sqrt` or `linear`.
    """

    name: str
    learning_rate_scale: Factor = 1.0
    learning_rate: PowerLaw | None = None
    batch_tokens: PowerLaw | None = None
    schedule: Literal["cosine", "wsd"] = "cosine"
    cooldown: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.2
    cooldown_shape: CooldownShape = "1-sqrt"


@strict
class Corpus:
    """What is trained on.

    Attributes:
      kind: `python_sources` (the Python files of this machine), `text`, `jsonl`, `parquet`, `tfds`, or `mixture`.
      options: of that kind, such as `path`, a local or gs:// file, folder or glob, or the `parts` of a mixture; see
        `tasks.text.corpora`.
      vocabulary: `bytes`, `ascii`, a tokenizer.json, a Hugging Face name or a SentencePiece model; see
        `tasks.text.vocab`.
      epochs: how often the corpus, or each part of it, may be repeated; repetition bends the laws, so it must be asked
        for.
      cache: folder of the whole corpus's token records, which ladders share (`ladder cache`); without one, each workdir
        has a pool of its own, the same in all of them.
      pool_tokens: of that pool, a fair sample of the corpus or, where it has no more, all of it. A run that reads more
        has a larger pool, which begins with this one.
      seed: of the pool.
    """

    kind: str = "python_sources"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    vocabulary: str = "bytes"
    epochs: AtLeastOne = 1
    cache: str | None = None
    pool_tokens: AtLeastOne = 2**28
    seed: Seed = 0


@strict
class Suite:
    """Downstream tasks from files.

    Attributes:
      source: folder of llm-foundry's local_data, local or gs://, or `tfds`, or several to look in one after another.
      tasks: `gauntlet` (the paper's 46), `subset17`, names of them, or a YAML file of your own or llm-foundry's.
    """

    source: str | tuple[str, ...]
    tasks: str | tuple[str, ...] = "gauntlet"

    @property
    def sources(self) -> tuple[str, ...]:
        """Where to look, one after another."""
        return (self.source,) if isinstance(self.source, str) else self.source


@strict
class ValidationSet:
    """Text whose loss is measured: `kind` is `jsonl`, `parquet`, `text` or `tfds`; `options` are those that
    `tasks.text.corpora` lists.

    `sequences` is how many of them at most; all of the set where it is not given.
    """

    kind: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    sequences: AtLeastOne | None = None


@strict
class PaperValidation:
    """The paper's eight validation sets (`tasks.text.published.PAPER`).

    Attributes:
      source: folder that the sets lie in, local or gs://; C4's is TensorFlow Datasets', prepared in its own folder.
      sets: names of some; all eight where there are none.
      sequences: at most so many of each; all of it where it is not given.
    """

    source: str
    sets: tuple[str, ...] = ()
    sequences: AtLeastOne | None = None


@strict
class Evaluation:
    """What each run is measured on.

    Attributes:
      sequences: at most so many of each of the corpus's validation sets.
      tasks: made of the corpus's held-out text: `continuation`, `recall`, `order`.
      questions: how many each of those asks.
      suite: further tasks, which are those of a published suite; may be added when runs are done.
      validation: further validation sets by name; may be added when runs are done.
      paper_validation: some or all of the paper's eight validation sets; may be added when runs are done.
      examples: whether each run's answers are kept too, question by question, as `jsonl` or `parquet`.
    """

    sequences: AtLeastOne = 512
    tasks: tuple[str, ...] = ()
    questions: AtLeastOne = 400
    suite: Suite | None = None
    validation: dict[str, ValidationSet] = dataclasses.field(default_factory=dict)
    paper_validation: PaperValidation | None = None
    examples: Literal["jsonl", "parquet"] | None = None

    @property
    def validation_sets(self) -> dict[str, ValidationSet]:
        """All further validation sets by name, the paper's among them."""
        if not (paper := self.paper_validation):
            return self.validation
        of_paper = ValidationSet(kind="paper", options={"source": paper.source}, sequences=paper.sequences)
        return self.validation | dict.fromkeys(paper.sets or PAPER, of_paper)


@strict
class Mesh:
    """How devices share a run: `data` replicas (all that are left, where not given) of `fsdp` × `tensor` devices.

    The parameters, their moments and the batch are split over `fsdp`, each product of matrices over `tensor`. `slices`
    of TPUs, which the data-centre network joins, share the data axis: gradients alone cross it.
    """

    data: AtLeastOne | None = None
    fsdp: AtLeastOne = 1
    tensor: AtLeastOne = 1
    slices: AtLeastOne = 1


@strict
class Training:
    """How the runs are carried out; nothing here changes what they learn, beyond rounding.

    Attributes:
      checkpoint_every_steps, log_every_steps: the former a multiple of the latter.
      cores_per_run: trains runs side by side, each in a process of its own on so many cores of this machine;
        0 trains them one after another in this process, on all its devices.
      mesh: of the devices.
      scan_layers: compiles one block and scans over them, which compiles large models in minutes.
      remat: what a block keeps for its gradient: `none` keeps everything, `full` nothing but its input; see
        `models.execution.REMAT`.
      attention: `auto` takes what is fastest where the run is trained: `splash`, a kernel for TPUs, `cudnn`, NVIDIA's
        for its GPUs, or `plain`, which writes the softmax out.
      loss_chunk_tokens: positions of each sequence whose logits are held at a time; 0 holds all.
      accumulation_steps: parts of a batch, one after another.
      sequences_at_once: splits a batch further, into the fewest equal parts of which no device holds more sequences
        than this; 0 does not. On a CPU the activations of few stay in its cache.
      tensorboard, wandb: show elsewhere what metrics.jsonl says; the latter is a project's name.
      profile_steps: keeps a trace from one step to another, such as [100, 105].
    """

    checkpoint_every_steps: AtLeastOne = 1000
    log_every_steps: AtLeastOne = 50
    cores_per_run: AtLeastZero = 0
    mesh: Mesh = Mesh()
    scan_layers: bool = False
    remat: Remat = "none"
    attention: Attention = "auto"
    loss_chunk_tokens: AtLeastZero = 0
    accumulation_steps: AtLeastOne = 1
    sequences_at_once: AtLeastZero = 0
    tensorboard: bool = False
    wandb: str | None = None
    profile_steps: tuple[int, int] | None = None

    def on(self, devices: int) -> "Training":
        """The same on so many devices, over which parameters are split where `mesh.fsdp` are more than there are."""
        if self.mesh.data:
            return self
        fsdp = min(self.mesh.fsdp, max(1, devices // self.mesh.tensor))
        return dataclasses.replace(self, mesh=dataclasses.replace(self.mesh, fsdp=fsdp))

    def for_batch(self, sequences: int) -> "Training":
        """The same with the `accumulation_steps` that a device's share of a batch asks for."""
        if not self.sequences_at_once:
            return self
        ways = range(self.accumulation_steps, sequences + 1)
        enough = (n for n in ways if sequences % n == 0 and sequences <= n * self.sequences_at_once)
        parts = next(enough, self.accumulation_steps)
        return dataclasses.replace(self, accumulation_steps=parts, sequences_at_once=0)


@strict
class Fit:
    """Columns of the testbed that the default laws are fitted to, and the nominal coverage of their intervals."""

    loss: str
    error: str | None = None
    level: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.95


@strict
class Budget:
    """What all rungs together may take: FLOPs, a share of the cheapest target's, or what they cost on `machines`."""

    flops: Positive | None = None
    target_share: Positive | None = None
    chip_hours: Positive | None = None
    dollars: Positive | None = None


@strict
class Design:
    """What `ladder design` chooses rungs for, and from.

    Attributes:
      target: name of the run to predict, such as `w64-m20`; all targets where it is not given.
      budget: one of its kinds.
      token_multipliers: to choose from; doublings of 20 up to 640, and the targets' own, where there are none.
      most_runs: at most so many, seeds of one size counted.
      seeds: of one size, at most.
    """

    target: str | None = None
    budget: Budget = Budget()
    token_multipliers: tuple[Factor, ...] = ()
    most_runs: AtLeastOne = 12
    seeds: AtLeastOne = 3


@strict
class LadderConfig:
    """A whole ladder: sizes, rungs, targets, recipe, corpus, evaluation.

    `rungs` may be left to `ladder design`, which chooses them as `design` says.

    `machines` are the TPUs that its runs may have: of a pod to share so many chips, such as `{v5p: 64}`, or so many
    slices of each kind, such as `{v5p:2x2x1: 8, v5p:2x2x4: 4}`; see `ladder.engines.schedule`.
    """

    name: str
    seed: Seed = 0
    sizes: dict[str, Size]
    model: Model = Model()
    rungs: tuple[Grid, ...] = ()
    targets: tuple[Grid, ...] = ()
    recipe: Recipe
    corpus: Corpus = Corpus()
    evaluation: Evaluation = Evaluation()
    training: Training = Training()
    machines: dict[str, int] = dataclasses.field(default_factory=dict)
    design: Design | None = None
    fit: Fit


def part_of(corpus: Corpus, part: str) -> tuple[str, dict[str, Any]]:
    """The kind and the options of one part of a corpus, which is a mixture or one part alone."""
    if corpus.kind != "mixture":
        return corpus.kind, corpus.options
    own = corpus.options["parts"][part]
    return own["kind"], own.get("options", {})
