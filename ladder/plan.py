"""LadderConfig → RunSpecs, with what they will cost."""

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fitting.files import cut
from ladder.config import Grid, LadderConfig
from ladder.recipe import RECIPES
from ladder.spec import RunSpec, run_name
from models import accounting
from models.config import DecoderConfig


def plan(config: LadderConfig, vocab_size: int) -> tuple[RunSpec, ...]:
    """Every run of the ladder: rungs, then targets.

    A rung that would end within its warm-up is left out, with a warning: the quality gates would keep it from the fit.

    Raises:
      ValueError: where sizes do not grow, a run is named twice, a run would have no step, or no rung would be left.
    """
    if not config.rungs:
        raise ValueError("there are no rungs yet: `ladder design CONFIG --out FILE` chooses them and writes a config")
    decoders = {name: decoder(config, name, vocab_size) for name in config.sizes}
    _refuse_shrinking(decoders)
    specs = (*_runs(config, "rung", config.rungs, decoders), *_runs(config, "target", config.targets, decoders))
    names = [spec.run for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"run {name} is planned twice; each size and multiplier may stand in one grid only")
    return _without_cut_warmups(specs)


def decoder(config: LadderConfig, size: str, vocab_size: int) -> DecoderConfig:
    """The decoder of one size."""
    s, m = config.sizes[size], config.model
    try:
        return DecoderConfig(
            width=s.width,
            layers=s.layers,
            heads=s.heads,
            vocab_size=-(-vocab_size // m.vocab_multiple) * m.vocab_multiple,
            ffn_multiple=m.ffn_multiple,
            qk_norm=m.qk_norm,
            rope_theta=m.rope_theta,
            dtype=m.dtype,
            norm=m.norm,
            qk_norm_per_head=m.qk_norm_per_head,
            key_heads=s.key_heads,
            tied_embeddings=m.tied_embeddings,
        )
    except ValueError as e:
        raise ValueError(f"sizes.{size}: {e}") from e


def params(config: LadderConfig, size: str, vocab_size: int) -> int:
    """N of one size."""
    return accounting.params(decoder(config, size, vocab_size))


def vocab_size(config: LadderConfig) -> int:
    """Ids of the vocabulary, or what the config says of them, so that a plan needs no tokenizer."""
    if config.model.vocab_size is not None:
        return config.model.vocab_size
    from tasks.text import vocab

    return vocab.size(config.corpus.vocabulary)


def find(specs: Sequence[RunSpec], run: str) -> RunSpec:
    """The run of that name; a ValueError lists the runs there are."""
    for spec in specs:
        if spec.run == run:
            return spec
    raise ValueError(f"no run is named {cut(repr(run))}; there are {', '.join(spec.run for spec in specs)}")


def pool_shares(config: LadderConfig, specs: Sequence[RunSpec]) -> dict[str, float]:
    """How often each run sees its pool, before the corpus is read: that it has as much is taken for granted.

    None is known where the pool is a whole corpus in a cache.
    """
    if config.corpus.cache:
        return {}
    own, epochs = config.corpus.pool_tokens, config.corpus.epochs
    return {spec.run: spec.tokens / max(own, spec.tokens / epochs) for spec in specs}


def as_table(
    specs: Sequence[RunSpec],
    chip_hours: Mapping[str, Mapping[str, float]] | None = None,
    pool_shares: Mapping[str, float] | None = None,
    schedule: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `ladder plan --json` prints: `runs`, one row each, and `totals`.

    `chip_hours` of a run by topology are those that `ladder precompile` has estimated, if it has; `pool_shares` of a
    run is how often it sees its pool, null where that is not known; `schedule` is what
    `ladder.engines.schedule.as_table` gives, if there is one: what each run is given goes to its row, the rest to the
    totals.
    """
    runs = [
        {
            "run": s.run,
            "role": s.role,
            "params": s.params,
            "params_non_embedding": s.params_non_embedding,
            "tokens": s.tokens,
            "token_multiplier": s.token_multiplier,
            "flops": s.flops,
            "steps": s.steps,
            "batch_size": s.hyperparameters.batch_size,
            "learning_rate": s.hyperparameters.learning_rate,
            "pool_share": (pool_shares or {}).get(s.run),
            "chip_hours": dict((chip_hours or {}).get(s.run, {})),
            "given": schedule["runs"].get(s.run) if schedule else None,
        }
        for s in specs
    ]
    ladder_flops = sum(s.flops for s in specs if s.role == "rung")
    target_flops = [s.flops for s in specs if s.role == "target"]
    totals = {
        "runs": len(specs),
        "ladder_tokens": sum(s.tokens for s in specs if s.role == "rung"),
        "ladder_flops": ladder_flops,
        "target_flops": sum(target_flops),
        "ladder_share_of_smallest_target": ladder_flops / min(target_flops) if target_flops else None,
    }
    return {"runs": runs, "totals": totals | {"schedule": schedule and schedule["totals"]}}


def _runs(
    config: LadderConfig, role: Literal["rung", "target"], grids: Sequence[Grid], decoders: dict[str, DecoderConfig]
) -> Iterator[RunSpec]:
    length = config.model.sequence_length
    for grid in grids:
        for multiplier in grid.token_multipliers:
            for size in grid.sizes:
                params = accounting.params(decoders[size])
                hyperparameters = RECIPES[config.recipe.name](params, multiplier * params, length)
                hyperparameters = hyperparameters.scaled(config.recipe.learning_rate_scale)
                steps = round(multiplier * params / (hyperparameters.batch_size * length))
                run = run_name(size, multiplier)
                if steps < 1:
                    raise ValueError(
                        f"{run}: {multiplier * params:.0f} tokens are less than one batch of "
                        f"{hyperparameters.batch_size} x {length}; raise the token multiplier or shorten the sequence"
                    )
                for seed in range(grid.seeds):
                    run = run_name(size, multiplier, seed)
                    yield RunSpec(run, role, size, decoders[size], length, steps, hyperparameters, config.seed + seed)


def _without_cut_warmups(specs: Sequence[RunSpec]) -> tuple[RunSpec, ...]:
    short = [spec for spec in specs if spec.hyperparameters.warmup_steps > spec.steps]
    rungs = [spec for spec in short if spec.role == "rung"]
    kept = tuple(spec for spec in specs if spec not in rungs)
    remedy = "raise the token multiplier"
    if not any(spec.role == "rung" for spec in kept):
        raise ValueError(f"every rung would end within its warm-up: {_warmups(rungs)}; {remedy}")
    if rungs:
        warnings.warn(f"not planned, since they would end within their warm-up: {_warmups(rungs)}", stacklevel=3)
    if targets := [spec for spec in short if spec.role == "target"]:
        warnings.warn(f"a target would end within its warm-up: {_warmups(targets)}; {remedy}", stacklevel=3)
    return kept


def _warmups(specs: Sequence[RunSpec]) -> str:
    return ", ".join(f"{s.run} ({s.steps:,} steps, warm-up {s.hyperparameters.warmup_steps:,})" for s in specs)


def _refuse_shrinking(decoders: dict[str, DecoderConfig]) -> None:
    for smaller, larger in itertools.pairwise(decoders):
        if accounting.params(decoders[larger]) <= accounting.params(decoders[smaller]):
            raise ValueError(f"sizes do not grow: {larger} has no more parameters than {smaller}; list smallest first")
