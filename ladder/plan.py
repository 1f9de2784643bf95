"""LadderConfig → RunSpecs, with what they will cost."""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fitting.files import cut
from ladder.config import Grid, LadderConfig, Recipe
from ladder.recipe import RECIPES, TUNED, WITHOUT_EMBEDDINGS, Hyperparameters, splittable, warmup_stable_decay
from ladder.spec import RunSpec, Trunk, run_name
from models import accounting
from models.config import DecoderConfig


def plan(config: LadderConfig, vocab_size: int) -> tuple[RunSpec, ...]:
    """Every run of the ladder: rungs, then targets; those of one size share a trunk where their schedule lets them.

    A rung that would end within its warm-up, or begin to cool down there, is left out, with a warning: the quality
    gates would keep it from the fit.

    Raises:
      ValueError: where sizes do not grow, a run is named twice, a run would have no step, or no rung would be left.
    """
    if not config.rungs:
        raise ValueError("there are no rungs yet: `ladder design CONFIG --out FILE` chooses them and writes a config")
    decoders = {name: decoder(config, name, vocab_size) for name in config.sizes}
    _refuse_shrinking(decoders)
    specs = (*_runs(config, "rung", config.rungs, decoders), *_runs(config, "target", config.targets, decoders))
    _warn_of_extrapolation(config.recipe, specs)
    names = [spec.run for spec in specs]
    _refuse_twins(specs)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"run {name} is planned twice; each size and multiplier may stand in one grid only")
    return with_trunks(_without_cut_warmups(specs))


def with_trunks(specs: Sequence[RunSpec]) -> tuple[RunSpec, ...]:
    """The same runs, each as a branch of the longest that differs from it in nothing but where it ends.

    Rungs and targets have trunks of their own: no step of a target is trained before it is foretold. Where rates
    depend on a run's end from the first step on, as a cosine's do, every run is alone.
    """
    alone = [spec.alone for spec in specs]
    trunks = {_stem(spec): spec for spec in sorted(alone, key=lambda spec: spec.steps)}
    grown = []
    for spec in alone:
        trunk = trunks[_stem(spec)]
        step = min(spec.constant_steps, trunk.constant_steps)
        is_branch = step and spec is not trunk
        grown.append(dataclasses.replace(spec, trunk=Trunk(trunk.run, step, trunk.steps)) if is_branch else spec)
    return tuple(
        dataclasses.replace(
            spec, branches=tuple(sorted({b.first_step for b in grown if b.trunk and b.trunk.run == spec.run}))
        )
        for spec in grown
    )


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
    return {spec.run: spec.tokens / max(own, spec.pool_records * spec.sequence_length / epochs) for spec in specs}


def as_table(
    specs: Sequence[RunSpec],
    chip_hours: Mapping[str, Mapping[str, float]] | None = None,
    pool_shares: Mapping[str, float] | None = None,
    schedule: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """What `ladder plan --json` prints: `runs`, one row each, and `totals`.

    `chip_hours` of a run by topology are those that `ladder precompile` has estimated, if it has; `pool_shares` of a
    run is how often it sees its pool, null where that is not known; `schedule` is what
    `ladder.engines.schedule.as_table` gives, if there is one: what each run is given goes to its row, the rest to the
    totals. Of a `recipe` that was tuned a row has the learning rate's 95 % interval, and in `extrapolated` how far the
    run lies outside those that it was tuned on.
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
            "own_flops": s.own_flops,
            "steps": s.steps,
            "trunk": s.trunk and s.trunk.run,
            "first_step": s.first_step,
            "batch_size": s.hyperparameters.batch_size,
            "learning_rate": s.hyperparameters.learning_rate,
            "learning_rate_interval": _rate_interval(recipe, s) if recipe else None,
            "extrapolated": untuned(recipe, s) if recipe else "",
            "pool_share": (pool_shares or {}).get(s.run),
            "chip_hours": dict((chip_hours or {}).get(s.run, {})),
            "given": schedule["runs"].get(s.run) if schedule else None,
        }
        for s in specs
    ]
    ladder_flops = sum(s.own_flops for s in specs if s.role == "rung")
    target_flops = [s.flops for s in specs if s.role == "target"]
    totals = {
        "runs": len(specs),
        "ladder_tokens": sum(s.tokens for s in specs if s.role == "rung"),
        "ladder_flops": ladder_flops,
        "ladder_flops_alone": sum(s.flops for s in specs if s.role == "rung"),
        "target_flops": sum(s.own_flops for s in specs if s.role == "target"),
        "ladder_share_of_smallest_target": ladder_flops / min(target_flops) if target_flops else None,
    }
    return {"runs": runs, "totals": totals | {"schedule": schedule and schedule["totals"]}}


def _runs(
    config: LadderConfig, role: Literal["rung", "target"], grids: Sequence[Grid], decoders: dict[str, DecoderConfig]
) -> Iterator[RunSpec]:
    length = config.model.sequence_length
    for grid in grids:
        axes = (grid.token_multipliers, grid.sizes, grid.batch_scales, grid.learning_rate_scales)
        for multiplier, size, batch_scale, rate_scale in itertools.product(*axes):
            params = accounting.params(decoders[size])
            run = run_name(size, multiplier, rate_scale, batch_scale)
            hyperparameters = recommended(config.recipe, decoders[size], multiplier * params, length)
            if batch_scale != 1:
                hyperparameters = hyperparameters.with_batch(max(1, round(hyperparameters.batch_size * batch_scale)))
            hyperparameters = hyperparameters.scaled(rate_scale)
            steps = round(multiplier * params / (hyperparameters.batch_size * length))
            if steps < 1:
                raise ValueError(
                    f"{run}: {multiplier * params:.0f} tokens are less than one batch of "
                    f"{hyperparameters.batch_size} x {length}; raise the token multiplier or shorten the sequence"
                )
            for seed in range(grid.seeds):
                run = run_name(size, multiplier, rate_scale, batch_scale, seed)
                yield RunSpec(run, role, size, decoders[size], length, steps, hyperparameters, config.seed + seed)


def recommended(recipe: Recipe, decoder: DecoderConfig, tokens: float, sequence_length: int) -> Hyperparameters:
    """What a recipe says for a decoder on so many tokens."""
    params = accounting.params(decoder)
    counted = accounting.params_non_embedding(decoder) if recipe.name in WITHOUT_EMBEDDINGS else params

    def told(params: int, tokens: float, sequence_length: int) -> Hyperparameters:
        h = RECIPES[recipe.name](counted, tokens, sequence_length)
        if recipe.batch_tokens:
            h = h.with_batch(splittable(recipe.batch_tokens.at(params, tokens) / sequence_length))
        if recipe.learning_rate:
            h = h.scaled(recipe.learning_rate.at(params, tokens) / h.learning_rate)
        return h.scaled(recipe.learning_rate_scale)

    if recipe.schedule == "wsd":
        return warmup_stable_decay(told, params, tokens, sequence_length, recipe.cooldown, recipe.cooldown_shape)
    return told(params, tokens, sequence_length)


def _rate_interval(recipe: Recipe, spec: RunSpec) -> tuple[float, float] | None:
    if not recipe.learning_rate or not recipe.learning_rate.covariance:
        return None
    low, high = recipe.learning_rate.interval(spec.params, spec.tokens)
    own = spec.hyperparameters.learning_rate / recipe.learning_rate.at(spec.params, spec.tokens)
    return low * own, high * own


def scales(tuned: LadderConfig, base: LadderConfig, size: str, token_multiplier: float) -> tuple[float, float]:
    """What the learning rate and the batch of one config's recipe are times the other's, for a run."""
    built = decoder(base, size, vocab_size(base))
    tokens = token_multiplier * accounting.params(built)
    new, old = (recommended(c.recipe, built, tokens, base.model.sequence_length) for c in (tuned, base))
    return new.learning_rate / old.learning_rate, new.batch_size / old.batch_size


def _warn_of_extrapolation(recipe: Recipe, specs: Sequence[RunSpec]) -> None:
    if far := [f"{spec.run} ({beyond})" for spec in specs if (beyond := untuned(recipe, spec))]:
        words = cut("; ".join(far), 400)
        warnings.warn(
            f"the learning rate is extrapolated, beyond what recipe {recipe.name} was tuned on: {words}", stacklevel=3
        )


def untuned(recipe: Recipe, spec: RunSpec) -> str:
    """How far a run lies outside those that its learning rate was tuned on, in words; nothing where that is unknown."""
    if recipe.learning_rate:
        return recipe.learning_rate.beyond(spec.params, spec.tokens)
    params = spec.params_non_embedding if recipe.name in WITHOUT_EMBEDDINGS else spec.params
    return TUNED[recipe.name].beyond(params, spec.tokens) if recipe.name in TUNED else ""


def _refuse_twins(specs: Sequence[RunSpec]) -> None:
    """A sweep's factors may round to one batch, and runs that differ in nothing tell nothing."""
    known: dict[Any, str] = {}
    for spec in specs:
        if (twin := known.setdefault((spec.size, spec.steps, spec.seed, spec.hyperparameters), spec.run)) != spec.run:
            raise ValueError(f"{spec.run} is the same run as {twin}: leave one of its factors out")


def _stem(spec: RunSpec) -> Any:
    """All that runs with one trunk have in common."""
    h = dataclasses.replace(spec.hyperparameters, cooldown=None)
    return spec.role, spec.decoder, spec.sequence_length, spec.seed, h, spec.hyperparameters.cooldown is None


def _without_cut_warmups(specs: Sequence[RunSpec]) -> tuple[RunSpec, ...]:
    short = [spec for spec in specs if spec.hyperparameters.ramp_steps > spec.steps]
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
    return ", ".join(f"{s.run} ({s.steps:,} steps, {_ramps(s.hyperparameters)})" for s in specs)


def _ramps(h: Hyperparameters) -> str:
    return f"warm-up {h.warmup_steps:,}" + (f" and cooldown {h.cooldown.steps:,}" if h.cooldown else "")


def _refuse_shrinking(decoders: dict[str, DecoderConfig]) -> None:
    for smaller, larger in itertools.pairwise(decoders):
        if accounting.params(decoders[larger]) <= accounting.params(decoders[smaller]):
            raise ValueError(f"sizes do not grow: {larger} has no more parameters than {smaller}; list smallest first")
