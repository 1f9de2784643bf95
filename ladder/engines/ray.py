"""Runs side by side on the TPU slices of a Ray cluster, each by a JaxTrainer of its own.

Ray starts the processes, joins those of a slice, and ends all of them where one dies. What a run has come to is in the
workdir alone, and whether it goes on is decided by `ladder.engines.launch`, as everywhere.
"""

import contextlib
import dataclasses
import logging
import os
import threading
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util import tpu
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ladder import quiet, storage
from ladder.config import LadderConfig
from ladder.engines import attempts
from ladder.engines.attempts import Ended, Job, Report
from ladder.engines.here import Here
from ladder.events import Claimed, Event, Waits
from ladder.pods import splits
from ladder.pods.cloud import GENERATIONS, Slice
from ladder.spec import RunSpec, Workdir
from ladder.training import hosts, preemption
from ladder.training.preemption import Preempted

TOPOLOGY, POD_TYPE = "ray.io/tpu-topology", "ray.io/tpu-pod-type"  # labels of a node
SCRATCH = "ray"  # folder of the workdir that Ray marks as its own meanwhile
LISTEN_SECONDS = 0.2
LACKING_SECONDS = 60.0


@dataclasses.dataclass
class _Trial:
    """An attempt under way."""

    number: int
    where: Slice
    claimed: bool = False
    ended: Ended | None = None  # as its first process told
    error: BaseException | None = None  # as Ray tells
    done: threading.Event = dataclasses.field(default_factory=threading.Event)


class Ray:
    """An engine of a Ray cluster; a context manager. This process must be on one of its hosts; it starts no device.

    Args:
      job: such as one of `ladder.engines.jobs`.
      config, specs, workdir: the ladder's.
      address: of the cluster; the one that this machine is part of where it is None.
      asked: the slice that each run is given; where none is, the smallest kind over which its batch and model split.

    Raises:
      ValueError: there is no such cluster, it has not the slices, or a run does not split over any.
    """

    name = "ray"

    def __init__(
        self,
        job: Job,
        config: LadderConfig,
        specs: Sequence[RunSpec],
        workdir: Workdir,
        address: str | None,
        asked: Mapping[str, Slice] = types.MappingProxyType({}),
    ):
        self._job, self._config, self._workdir = job, config, workdir
        os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
        try:
            ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as e:
            where = f"at {address}" if address else "on this machine: name one with --address, or start it (ray start)"
            raise ValueError(f"there is no Ray cluster {where} ({storage.told(e)})") from None
        try:
            self._slices = assigned(config, specs, kinds(ray.nodes()), asked)
        except ValueError:
            ray.shutdown()
            raise
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: Any = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._trials = dict[str, _Trial]()
        self._begun = 0
        self._ready = dict[Slice, int]()
        self._lacking = dict[str, float]()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Ray":
        self._open.callback(self._clean)
        # Ray prints what becomes of its hosts and processes, which is in its logs and, as far as it matters, in ours.
        nowhere = self._open.enter_context(open(os.devnull, "w"))
        self._open.enter_context(contextlib.redirect_stdout(nowhere))
        self._open.callback(ray.shutdown)  # and with it all that this process has started
        self._open.enter_context(preemption.raised())
        return self

    def __exit__(self, *exception):
        self._open.close()

    def _clean(self) -> None:
        with contextlib.suppress(OSError):
            (self._workdir.root / SCRATCH).rmtree()

    def has_room(self, spec: RunSpec) -> bool:
        """Whether a whole slice of its kind is idle, and not about to be taken."""
        where = self._slices[spec.run]
        if where not in self._ready:
            self._ready[where] = tpu.get_num_ready_tpu_slices(where.shape, accelerator(where.generation))
        pending = sum(trial.where == where and not trial.claimed for trial in self._trials.values())
        if self._ready[where] > pending:
            self._lacking.pop(spec.run, None)
            return True
        self._lacking.setdefault(spec.run, time.monotonic())
        return False

    def submit(self, spec: RunSpec) -> None:
        """Has Ray start it on a slice."""
        self._begun += 1
        where = self._slices[spec.run]
        told = {
            "number": self._begun,
            "mailbox": self._mailbox,
            "job": self._job,
            "config": dataclasses.replace(self._config, training=self._config.training.on(where.devices)),
            "spec": spec,
            "workdir": str(self._workdir.root),
        }
        trial = self._trials[spec.run] = _Trial(self._begun, where)
        threading.Thread(target=_drive, args=(told, trial), daemon=True).start()

    def poll(self, report: Report, seconds: float) -> list[Ended]:
        """Hears what the slices tell."""
        self._ready.clear()
        until = time.monotonic() + seconds
        while True:
            done = [run for run, trial in self._trials.items() if trial.done.is_set()]
            self._listen(report)  # what was told before it was done
            ended = [self._how_it_ended(run) for run in done]
            if ended or time.monotonic() >= until:
                break
            time.sleep(LISTEN_SECONDS)
        self._tell_of_lacks(report)
        return ended

    def stop(self, report: Report) -> list[Ended]:
        """Does nothing: Ray ends the runs under way where they are, untold, when this is left; they do not save."""
        return []

    def _listen(self, report: Report) -> None:
        for run, number, told in ray.get(self._mailbox.take.remote()):
            trial = self._trials.get(run)
            if trial is None or trial.number != number:
                continue  # of an attempt that is over
            if isinstance(told, Ended):
                trial.ended = told
                continue
            trial.claimed |= isinstance(told, Claimed)
            report(told)

    def _how_it_ended(self, run: str) -> Ended:
        trial = self._trials.pop(run)
        if trial.ended:
            return trial.ended
        return how_it_died(run, trial.error or RuntimeError("its processes left without a word"))

    def _tell_of_lacks(self, report: Report) -> None:
        if self._trials:
            return  # which keep slices busy
        for run, since in self._lacking.items():
            if time.monotonic() > since + LACKING_SECONDS:
                where = self._slices[run]
                there = tpu.get_num_tpu_slices(where.shape, accelerator(where.generation))
                report(Waits(run, f"a whole slice {where}; the cluster has {there}, and others may have them"))
                self._lacking[run] = time.monotonic()


class _Mailbox:
    """What the slices tell the driver."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, int, Event | Ended]] = []

    def put(self, run: str, number: int, told: Event | Ended) -> None:
        self._letters.append((run, number, told))

    def take(self) -> list[tuple[str, int, Event | Ended]]:
        letters, self._letters = self._letters, []
        return letters


def kinds(nodes: Sequence[Mapping[str, Any]]) -> list[Slice]:
    """The kinds of slices that a cluster has, as `ray.nodes()` tells, the smallest first."""
    found = set()
    for node in nodes:
        labels = node.get("Labels") or {}
        if node.get("Alive") and TOPOLOGY in labels:
            sold_as = labels.get(POD_TYPE, "").rpartition("-")[0]
            found |= {Slice(g, labels[TOPOLOGY]) for g in GENERATIONS if accelerator(g) == f"TPU-{sold_as.upper()}"}
    return sorted(found, key=lambda where: (where.chips, str(where)))


def assigned(
    config: LadderConfig, specs: Sequence[RunSpec], there: Sequence[Slice], asked: Mapping[str, Slice]
) -> dict[str, Slice]:
    """By run, the slice that is asked for or, where none is, the smallest over which it splits.

    Raises:
      ValueError: the cluster has no slices, or not those that are asked for, or a run does not split over any.
    """
    if not there:
        raise ValueError("the Ray cluster has no TPU slices: none of its hosts has a label ray.io/tpu-topology")
    if lacking := {run: where for run, where in asked.items() if where not in there}:
        raise ValueError(
            f"the Ray cluster has no slice {', '.join(sorted({str(where) for where in lacking.values()}))}, it has "
            f"{', '.join(map(str, there))}; asked for by {', '.join(lacking)}"
        )
    slices, unsplit = dict[str, Slice](), dict[str, str]()
    for spec in specs:
        for where in [asked[spec.run]] if spec.run in asked else there:
            if why := splits.why_not(config.training.on(where.devices), spec, where):
                unsplit.setdefault(spec.run, why)
            else:
                slices[spec.run] = where
                break
    if missing := [spec.run for spec in specs if spec.run not in slices]:
        raise ValueError(
            f"{len(missing)} of {len(specs)} runs do not split over any slice of the Ray cluster, which has "
            f"{', '.join(map(str, there))}: {unsplit[missing[0]]}; they are {', '.join(missing)}"
        )
    return slices


def accelerator(generation: str) -> str:
    """What Ray calls a generation of TPUs."""
    sold_as = GENERATIONS[generation].accelerator
    return "TPU-V7X" if sold_as == "tpu7x" else f"TPU-{sold_as.upper()}"


def how_it_died(run: str, error: BaseException) -> Ended:
    """How an attempt ended whose processes did not say it themselves, from the error that Ray gives."""
    failures = list(getattr(error, "worker_failures", {}).values()) or [getattr(error, "controller_failure", error)]
    theirs = [getattr(failure, "_base_exc", None) for failure in failures]
    for own in theirs:
        if isinstance(own, Exception) and not storage.is_outage(own) and not isinstance(own, GangEnded):
            return attempts.ended_by(run, own)
    words = " ".join(str(failure) for failure in failures)
    first = attempts.last_words(str(failures[0]).strip()) or type(failures[0]).__name__
    if any(gone in words for gone in ("node", "StartupTimeout", "preempt")):
        return Ended(run, "taken away", first)
    return Ended(run, "lost", first)


class GangEnded(RuntimeError):
    """Ends all processes of a slice; how the attempt ended has been told."""


def _drive(told: dict[str, Any], trial: _Trial) -> None:
    """Has a JaxTrainer carry out one attempt, to its end."""
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxTrainer

    shape, kind = trial.where.shape, accelerator(trial.where.generation)
    try:
        workers, _ = tpu.get_tpu_worker_resources(shape, kind)
        JaxTrainer(
            _on_each_host,
            train_loop_config=told,
            scaling_config=ScalingConfig(use_tpu=True, topology=shape, accelerator_type=kind, num_workers=workers),
            run_config=RunConfig(
                name=f"{told['spec'].run}-{told['number']}",
                storage_path=str(Workdir.at(told["workdir"]).root.absolute() / SCRATCH),
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
            ),
        ).fit()
    except Exception as e:  # whatever it is, it is this run's alone
        trial.error = e
    finally:
        trial.done.set()


def _on_each_host(told: dict[str, Any]) -> None:
    """An attempt at a run, on a host of the slice."""
    quiet.libraries()
    storage.use_one_client()
    spec, mailbox, number = told["spec"], told["mailbox"], told["number"]

    def tell(event: Event | Ended) -> Any:
        return mailbox.put.remote(spec.run, number, event)

    with (
        contextlib.suppress(Preempted),
        Here(told["job"], told["config"], Workdir.at(told["workdir"]), "ray") as engine,
    ):
        if not hosts.is_first():
            return engine.follow([spec])
        try:
            ended = engine.attempt(spec, tell)
        except Preempted as e:
            ray.get(tell(Ended(spec.run, "taken away", str(e))))
            raise
        ray.get(tell(ended))
        if ended.why not in ("finished", "diverged", "held"):
            raise GangEnded(ended.why)  # the others may be anywhere in the run
