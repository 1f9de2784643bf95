"""A ladder as JobSets, YAML to read and apply: `ladder work` on slices of TPUs in Kubernetes, queued by Kueue.

A JobSet has the slices of one shape, each a Job whose pods are the slice's hosts. Its workers take what runs there are,
so no run has a manifest of its own. What a worker leaves with decides what follows: taken away (75, or an eviction), it
is started again without count; refused (1), the JobSet fails, as it would again; killed, it is started again so often.
Written for JobSet 0.12 and Kueue 0.19 (github.com/kubernetes-sigs); GKE's names of TPUs are those of
cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
"""

import dataclasses
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import yaml

from ladder.config import Training
from ladder.engines.schedule import Schedule
from ladder.pods.cloud import Slice
from ladder.pods.machines import Machines
from ladder.training.preemption import EXIT_CODE

CHIPS_PER_HOST = 4
REFUSED = 1
MOST_RESTARTS = 20  # of a worker that was killed, all workers of a shape together
GRACE_SECONDS = 300  # for a run to be saved; spot machines grant less
LETTERS = 24  # of a ladder's name, as the names of pods have 63 in all
# By generation.
ACCELERATORS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}
# GKE takes the Jobs of a JobSet for the slices of one program, unless it is told otherwise.
ALONE = "unset MEGASCALE_COORDINATOR_ADDRESS MEGASCALE_NUM_SLICES MEGASCALE_PORT MEGASCALE_SLICE_ID"


@dataclasses.dataclass(frozen=True)
class Order:
    """What to write manifests for.

    Attributes:
      name: of the ladder.
      config: of the ladder, whole, as YAML.
      training: how its runs are carried out.
      workdir: gs:// folder of all results.
      machines: as a config names them: what a queue lets in.
      slices: how many of each kind are to be had at once, each with a worker.
      image: of containers that have `ladder`.
      queue: a LocalQueue that there is; where none is named, one for these slices is written too.
      spot: cheaper machines that may be taken away.
    """

    name: str
    config: str
    training: Training
    workdir: str
    machines: Mapping[str, int]
    slices: Mapping[str, int]
    image: str
    queue: str = ""
    spot: bool = False


def slices_of(schedule: Schedule) -> dict[str, int]:
    """How many slices of each kind a schedule keeps busy at once, those that begin first at first."""
    named = [name for name in schedule.machines if ":" in name]
    there = Machines.of({name: schedule.machines[name] for name in named}).places if named else {}
    busy: dict[str, int] = {}
    for given in schedule.runs:
        at_once = sum(
            other.slice == given.slice and other.start_hours <= given.start_hours < other.end_hours
            for other in schedule.runs
        )
        busy[given.slice] = max(busy.get(given.slice, 0), at_once)
    return {name: len(there.get(name, ())) or count for name, count in busy.items()}


def manifests(order: Order) -> list[dict[str, Any]]:
    """Everything to apply, in order.

    Raises:
      ValueError: a workdir that is not in a bucket, or no image.
    """
    if not order.workdir.startswith("gs://"):
        raise ValueError(f"--workdir {order.workdir}: many machines need one that all of them see: gs://bucket/path")
    if not order.image:
        raise ValueError("--engine jobset needs --image, a container image that has `ladder` (docs/cloud.md makes one)")
    kinds = {Slice.of(name): count for name, count in order.slices.items()}
    name = _name(order.name)
    queues = [] if order.queue else list(_queues(name, order))
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"config.yaml": order.config},
    }
    return [*queues, config, *(_jobset(name, where, count, order) for where, count in kinds.items())]


def text(order: Order) -> str:
    """The manifests as one YAML file."""
    many = order.training.mesh.slices
    of = ", ".join(f"{count} of {where}" for where, count in order.slices.items())
    heading = (
        f"# {order.name}: `ladder work` on {of}{f', each run on {many} of them' if many > 1 else ''}.\n"
        "# kubectl apply -f THIS; applied again after `kubectl delete -f THIS`, it goes on with what is not done.\n"
        f"# When all of it is complete: ladder run CONFIG --workdir {shlex.quote(order.workdir)} fits and reports.\n"
    )
    return heading + yaml.dump_all(manifests(order), Dumper=_Readable, sort_keys=False, width=110)


def _jobset(name: str, where: Slice, count: int, order: Order) -> dict[str, Any]:
    hosts = _hosts(where)
    metadata: dict[str, Any] = {
        "name": f"{name}-{_kind(where)}",
        "labels": {"kueue.x-k8s.io/queue-name": order.queue or name},
    }
    if hosts > 1:  # whose hosts are a node pool of their own
        metadata["annotations"] = {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool",
        }
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                *({"action": "FailJob", "onExitCodes": _exits(code)} for code in (EXIT_CODE, REFUSED)),
            ]
        },
        "template": {"spec": _pod(name, where, order)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {"maxRestarts": MOST_RESTARTS, "rules": _rules(order)},
            "replicatedJobs": [{"name": "slice", "replicas": count, "template": {"spec": job}}],
        },
    }


def _exits(code: int) -> dict[str, Any]:
    return {"containerName": "worker", "operator": "In", "values": [code]}


def _rules(order: Order) -> list[dict[str, Any]]:
    """What follows when a Job fails; Kubernetes tells by which rule of the pods it did in its message alone."""
    of_one = "JobSet" if order.training.mesh.slices > 1 else "Job"  # slices of one program start again together
    by_rule = {"onJobFailureReasons": ["PodFailurePolicy"]}
    taken_away = [f"exit code {EXIT_CODE} ", "condition DisruptionTarget "]
    return [
        {
            "name": "takenAway",
            "action": f"Restart{of_one}AndIgnoreMaxRestarts",
            **by_rule,
            "onJobFailureMessagePatterns": taken_away,
        },
        {
            "name": "refused",
            "action": "FailJobSet",
            **by_rule,
            "onJobFailureMessagePatterns": [f"exit code {REFUSED} "],
        },
        {"name": "killed", "action": f"Restart{of_one}"},
    ]


def _pod(name: str, where: Slice, order: Order) -> dict[str, Any]:
    selector = {
        "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[where.generation],
        "cloud.google.com/gke-tpu-topology": where.shape,
    }
    spot: dict[str, Any] = {}
    if order.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        toleration = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        spot = {"tolerations": [toleration]}
    container = {
        "name": "worker",
        "image": order.image,
        "command": ["sh", "-c", _command(where, order)],
        "resources": {"limits": {"google.com/tpu": min(where.chips, CHIPS_PER_HOST)}},
        "volumeMounts": [{"name": "config", "mountPath": "/ladder"}],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "nodeSelector": selector,
        **spot,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }


def _command(where: Slice, order: Order) -> str:
    mesh = order.training.mesh
    fsdp = order.training.on(where.devices * mesh.slices).mesh.fsdp
    narrower = ["--set", f"training.mesh.fsdp={fsdp}"] if fsdp != mesh.fsdp else []
    work = shlex.join(["ladder", "work", "/ladder/config.yaml", "--workdir", order.workdir, *narrower])
    return f"exec {work}\n" if mesh.slices > 1 else f"{ALONE}\nexec {work}\n"


def _queues(name: str, order: Order) -> Iterator[dict[str, Any]]:
    """A queue that lets in as many chips as there are, whatever slices they are cut into."""
    version = "kueue.x-k8s.io/v1beta2"
    flavors = []
    for generation, chips in _chips(order.machines).items():
        flavor = f"{name}-{generation}"
        spec: dict[str, Any] = {"nodeLabels": {"cloud.google.com/gke-tpu-accelerator": ACCELERATORS[generation]}}
        yield {"apiVersion": version, "kind": "ResourceFlavor", "metadata": {"name": flavor}, "spec": spec}
        flavors.append({"name": flavor, "resources": [{"name": "google.com/tpu", "nominalQuota": chips}]})
    spec = {
        "namespaceSelector": {},
        "queueingStrategy": "BestEffortFIFO",
        "resourceGroups": [{"coveredResources": ["google.com/tpu"], "flavors": flavors}],
    }
    yield {"apiVersion": version, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec}
    spec = {"clusterQueue": name}
    yield {"apiVersion": version, "kind": "LocalQueue", "metadata": {"name": name}, "spec": spec}


def _chips(machines: Mapping[str, int]) -> dict[str, int]:
    """Of each generation, of what a config names as machines."""
    chips: dict[str, int] = {}
    for name, count in machines.items():
        generation, _, shape = name.partition(":")
        chips[generation] = chips.get(generation, 0) + count * (Slice.of(name).chips if shape else 1)
    return chips


def _hosts(where: Slice) -> int:
    return max(1, where.chips // CHIPS_PER_HOST)


def _kind(where: Slice) -> str:
    return f"{where.generation}-{where.shape}"


def _name(ladder: str) -> str:
    """A ladder's name as Kubernetes allows names."""
    named = re.sub("[^a-z0-9]+", "-", f"ladder-{ladder.lower()}").strip("-")
    return named[:LETTERS].rstrip("-")


def _as_block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


class _Readable(yaml.SafeDumper):
    """Text of many lines as it is, and nothing by reference."""

    yaml_representers: ClassVar[dict[Any, Any]] = {**yaml.SafeDumper.yaml_representers, str: _as_block}

    def ignore_aliases(self, data: Any) -> bool:
        return True
