"""Checkpoint × validation sets and downstream tasks → RunRecord."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fitting.testbed import Measurement, RunRecord
from ladder import data
from ladder.config import LadderConfig
from ladder.progress import Evaluating
from ladder.spec import RunSpec, Workdir
from ladder.train import final_params
from models.decoder import Decoder
from models.loss import token_losses
from tasks import questions, scoring

ROWS_PER_BATCH = 64


def evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Callable[[Evaluating], None]) -> RunRecord:
    """Measures a trained run on the workdir's validation sets and tasks and writes its record.json.

    A run that has a record keeps it. One with a loss that is not finite is quarantined.

    Raises:
      ValueError: if the run is not trained to its end.
    """
    if workdir.record(spec.run).exists():
        return RunRecord.load(workdir.record(spec.run))
    params = final_params(spec, workdir)
    report(Evaluating(spec.run))
    loss_sums = jax.jit(partial(span_loss_sums, Decoder(spec.decoder)))

    losses = {}
    for name in data.validation_sets(workdir):
        record_RxT = data.read(workdir.validation_records(name))
        start_R, end_R = np.ones(len(record_RxT), int), np.full(len(record_RxT), record_RxT.shape[1])
        sum_R = _in_batches(partial(loss_sums, params), record_RxT, start_R, end_R)
        if not np.isfinite(sum_R).all():
            return quarantine(config, spec, workdir, f"its loss on {name} is not finite")
        losses[name] = scoring.mean_loss(sum_R, end_R - start_R)

    errors, chance_errors = {}, {}
    for task in config.evaluation.tasks:
        q = questions.load(workdir.questions(task))
        sum_N = _in_batches(partial(loss_sums, params), q.tokens_NxL, q.start_N, q.end_N)
        errors[task] = questions.evaluate(q, sum_N / (q.end_N - q.start_N))
        chance_errors[task] = q.chance_error
    return _write(config, spec, workdir, losses, errors, chance_errors, "")


def quarantine(config: LadderConfig, spec: RunSpec, workdir: Workdir, why: str) -> RunRecord:
    """Writes the record of a run that has no measurements and must not be fitted, and why."""
    return _write(config, spec, workdir, {}, {}, {}, why)


def span_loss_sums(decoder: Decoder, params, token_BxT: jax.Array, start_B: jax.Array, end_B: jax.Array) -> jax.Array:
    """Summed cross-entropy in nats of tokens [start, end) of each row, each given all tokens before it."""
    logits_BxLxV = decoder.apply({"params": params}, token_BxT[:, :-1])
    loss_BxL, _ = token_losses(logits_BxLxV, token_BxT[:, 1:])
    position_L = jnp.arange(1, token_BxT.shape[1])
    in_span_BxL = (start_B[:, None] <= position_L) & (position_L < end_B[:, None])
    return jnp.where(in_span_BxL, loss_BxL, 0).sum(-1)


def _in_batches(loss_sums, token_RxT: np.ndarray, start_R: np.ndarray, end_R: np.ndarray) -> np.ndarray:
    rows = len(token_RxT)
    # The last batch is filled up with copies of its last row, so that one shape is compiled, and cut off again.
    index_BxR = np.minimum(np.arange(-(-rows // ROWS_PER_BATCH) * ROWS_PER_BATCH), rows - 1).reshape(-1, ROWS_PER_BATCH)
    sums = [loss_sums(token_RxT[i].astype(np.int32), start_R[i], end_R[i]) for i in index_BxR]
    return np.concatenate(jax.device_get(sums)).astype(np.float64)[:rows]


def _write(
    config: LadderConfig,
    spec: RunSpec,
    workdir: Workdir,
    losses: Mapping[str, scoring.Estimate],
    errors: Mapping[str, scoring.Estimate],
    chance_errors: Mapping[str, float],
    quarantine: str,
) -> RunRecord:
    record = RunRecord(
        run=spec.run,
        role=spec.role,
        corpus=config.corpus.kind,
        model=spec.size,
        params=spec.params,
        params_non_embedding=spec.params_non_embedding,
        tokens=spec.tokens,
        token_multiplier=spec.token_multiplier,
        flops=spec.flops,
        losses={name: Measurement(e.value, e.stderr) for name, e in losses.items()},
        errors={name: Measurement(e.value, e.stderr) for name, e in errors.items()},
        chance_errors=chance_errors,
        quarantine=quarantine,
    )
    record.save(workdir.record(spec.run))
    return record
