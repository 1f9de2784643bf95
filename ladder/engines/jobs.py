"""What can be done for a run: trained, measured, or both."""

from ladder.config import LadderConfig
from ladder.engines.attempts import Report
from ladder.events import Finished
from ladder.spec import RECORD_REMEDY, RunSpec, Workdir


def train_and_evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> None:
    """Trains a run and measures it, unless it diverges."""
    quarantine = _train(config, spec, workdir, report)
    if not quarantine:
        quarantine = _evaluate(config, spec, workdir, report)
    report(Finished(spec.run, quarantine))


def train(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> None:
    """Trains a run that has no record yet; if it diverges, its quarantined record says so."""
    report(Finished(spec.run, _train(config, spec, workdir, report)))


def evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> None:
    """Measures a trained run."""
    report(Finished(spec.run, _evaluate(config, spec, workdir, report)))


# What these two import waits until they are called, because a worker must own its cores before JAX starts its threads.


def _train(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> str:
    from fitting.testbeds.testbed import RunRecord
    from ladder.evaluation.record import quarantine
    from ladder.training.train import Diverged, train

    if workdir.record(spec.run).exists():
        return RunRecord.load(workdir.record(spec.run), RECORD_REMEDY).quarantine
    try:
        train(config, spec, workdir, report)
    except Diverged as e:
        return quarantine(config, spec, workdir, str(e)).quarantine
    return ""


def _evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> str:
    from ladder.evaluation.evaluate import evaluate

    return evaluate(config, spec, workdir, report).quarantine
