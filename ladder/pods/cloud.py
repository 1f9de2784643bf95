"""The commands that carry out a ladder on Cloud TPU VMs, queued resources: a shell script to read and run."""

import dataclasses
import hashlib
import math
import re
import shlex
from collections.abc import Iterator, Sequence

from ladder.spec import RunSpec
from ladder.training.preemption import EXIT_CODE

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x12", "8x8x16", "8x16x16")
NAME_LETTERS = 40  # at most
SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", *CUBES)


@dataclasses.dataclass(frozen=True)
class Generation:
    """How Cloud TPU sells one generation: what it calls a slice, what it counts of it, and its machines' image."""

    accelerator: str
    counted_per_chip: int
    image: str | None  # of a TPU VM; None: on GKE alone
    shapes: tuple[str, ...]
    devices_per_chip: int = 1  # as JAX counts


GENERATIONS = {
    "v4": Generation("v4", 2, "tpu-ubuntu2204-base", SMALL_CUBES),
    "v5e": Generation("v5litepod", 1, "v2-alpha-tpuv5-lite", FLAT),
    "v5p": Generation("v5p", 2, "v2-alpha-tpuv5", SMALL_CUBES),
    "v6e": Generation("v6e", 1, "v2-alpha-tpuv6e", FLAT),
    "tpu7x": Generation("tpu7x", 2, None, SMALL_CUBES, devices_per_chip=2),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a TPU pod, `v5p:4x4x8` say."""

    generation: str
    shape: str

    @classmethod
    def of(cls, topology: str) -> "Slice":
        """Reads a topology; a ValueError lists those that there are."""
        generation, _, shape = topology.partition(":")
        if generation not in GENERATIONS:
            raise ValueError(f"topology {topology!r}: no TPU {generation!r}; there are {', '.join(GENERATIONS)}")
        if shape not in GENERATIONS[generation].shapes:
            known = ", ".join(f"{generation}:{known}" for known in GENERATIONS[generation].shapes)
            raise ValueError(f"topology {topology!r} is not to be had; there are {known}")
        return cls(generation, shape)

    def __str__(self) -> str:
        return f"{self.generation}:{self.shape}"

    @property
    def chips(self) -> int:
        """Its number of chips."""
        return math.prod(map(int, self.shape.split("x")))

    @property
    def devices(self) -> int:
        """Its number of devices, as JAX counts them."""
        return self.chips * GENERATIONS[self.generation].devices_per_chip

    @property
    def accelerator_type(self) -> str:
        """What the cloud calls it, `v5p-256` say, which counts cores of some generations and chips of others."""
        g = GENERATIONS[self.generation]
        return f"{g.accelerator}-{self.chips * g.counted_per_chip}"


@dataclasses.dataclass(frozen=True)
class Order:
    """What to print commands for.

    Attributes:
      config: of the ladder, whole, as YAML.
      workdir: gs:// folder of all results.
      slice: of TPUs, for every run.
      slices: so many of them, joined by the data-centre network.
      spot: cheaper machines that may be taken away.
      project, zone: of Google Cloud; gcloud's own defaults where they are empty.
    """

    config: str
    workdir: str
    slice: Slice
    slices: int = 1
    spot: bool = False
    project: str = ""
    zone: str = ""


def script(order: Order, specs: Sequence[RunSpec]) -> str:
    """A POSIX shell script, each value in it quoted; run again, it goes on with what is not done.

    It ends with 0 when all is done, with 75 when machines were taken away and it is to be started again, and with
    another code when it would end so again; what it asked the cloud for is then deleted.

    Raises:
      ValueError: a workdir that is not in a bucket, no slice, or TPUs that are to be had on GKE alone.
    """
    if not order.workdir.startswith("gs://"):
        raise ValueError(f"--workdir {order.workdir}: many machines need one that all of them see: gs://bucket/path")
    if order.slices < 1:
        raise ValueError(f"--slices {order.slices} must be at least 1")
    return "".join(f"{line}\n" for line in _on_tpu_vms(order, specs))


def _on_tpu_vms(order: Order, specs: Sequence[RunSpec]) -> Iterator[str]:
    if (image := GENERATIONS[order.slice.generation].image) is None:
        raise ValueError(f"{order.slice.generation} is to be had on GKE alone: --engine jobset")
    where = [*_given("--project", order.project), *_given("--zone", order.zone)]
    queue = ["gcloud", "compute", "tpus", "queued-resources"]
    yield from _heading(order)
    yield from _leaving(queue, where)
    yield "# The program, for the machines to fetch."
    yield "rm -rf dist && python3 -m pip wheel --quiet --no-deps --wheel-dir dist ."
    yield f"gcloud storage cp dist/scaling_ladder-*.whl {shlex.quote(_at(order, 'launch/'))}"
    for spec in specs:
        name = _name(spec)
        nodes = ["--node-id", name] if order.slices == 1 else ["--node-count", str(order.slices), "--node-prefix", name]
        machine = ["--accelerator-type", order.slice.accelerator_type, "--runtime-version", image]
        one = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", name, "--worker", "all"]
        many = [*queue, "ssh", name, "--node", "all", "--worker", "all"]
        all_workers = one if order.slices == 1 else many
        create = shlex.join([*queue, "create", name, *nodes, *where, *machine, *(["--spot"] if order.spot else [])])
        describe = shlex.join([*queue, "describe", name, *where, "--format", "value(state.state)"])
        delete = shlex.join([*queue, "delete", name, *where, "--force", "--quiet"])
        yield from ("", *_about(spec))
        yield f"if ! {_is_done(order, spec)}; then"
        yield f"  resource={shlex.quote(name)}"
        yield f'  case "$({describe} 2>/dev/null)" in FAILED | SUSPEND*) {delete} ;; esac'
        yield f"  {describe} >/dev/null 2>&1 || {create}"
        yield f'  while state=$({describe}); [ "$state" != ACTIVE ]; do'
        yield '    case "$state" in FAILED) echo "$resource" "$state" >&2; exit 1 ;; SUSPEND*) exit 75 ;; esac'
        yield "    sleep 30"
        yield "  done"
        yield f"  {shlex.join([*all_workers, *where, '--command', _on_a_machine(order, spec)])} || broken_off $?"
        yield "  resource="
        yield f"  {delete}"
        yield "fi"
    yield from _fitted(order)


def _leaving(queue: Sequence[str], where: Sequence[str]) -> Iterator[str]:
    of_this = f'"$resource" {shlex.join(where)}'.rstrip()
    yield "# 75 says: taken away, start this again. All other ends delete what costs money."
    yield "resource="
    yield "leave() {"
    yield "  code=$?"
    yield "  trap - EXIT"
    yield f'  if [ "$code" -ne {EXIT_CODE} ] && [ -n "$resource" ]; then'
    yield f'    {shlex.join([*queue, "delete"])} {of_this} --force --quiet || echo "$resource" may still be there >&2'
    yield "  fi"
    yield '  exit "$code"'
    yield "}"
    yield "trap leave EXIT"
    yield "trap 'exit 129' HUP"
    yield "trap 'exit 130' INT"
    yield "trap 'exit 143' TERM"
    yield ""
    yield "# A machine that is taken away may take the connection along (255); the cloud says so within a minute."
    yield "broken_off() {"
    yield f'  [ "$1" -ne {EXIT_CODE} ] || exit {EXIT_CODE}'
    yield '  [ "$1" -ne 255 ] || sleep 60'
    yield f'  state=$({shlex.join([*queue, "describe"])} {of_this} --format "value(state.state)" 2>/dev/null) || state='
    yield f'  case "$state" in FAILED | SUSPEND*) exit {EXIT_CODE} ;; esac'
    yield '  exit "$1"'
    yield "}"
    yield ""


def _heading(order: Order) -> Iterator[str]:
    slices = f"{order.slices} slices" if order.slices > 1 else "one slice"
    of = f"{order.slice.generation}:{order.slice.shape} ({order.slice.accelerator_type}, {order.slice.chips} chips)"
    yield "#!/bin/sh"
    yield f"# Every run on {slices} of {of}. Start this in the folder of the program;"
    yield "# started again, it goes on with what is not done."
    yield "# shellcheck disable=SC2016  # what is in single quotes is for the machines to expand"
    yield "set -eu"
    yield ""
    yield "# The whole config; what it was based on may lie where no machine sees it."
    yield f"printf %s {shlex.quote(order.config)} | gcloud storage cp - {shlex.quote(_at(order, 'launch/config.yaml'))}"
    yield ""


def _about(spec: RunSpec) -> Iterator[str]:
    yield f"# {spec.run}: {spec.role}, {spec.params:,} parameters, {spec.tokens:,} tokens, {spec.steps:,} steps"


def _is_done(order: Order, spec: RunSpec) -> str:
    record = _at(order, f"runs/{spec.run}/record.json")
    return f"gcloud storage ls {shlex.quote(record)} >/dev/null 2>&1"


def _on_a_machine(order: Order, spec: RunSpec) -> str:
    """What every machine is told, which runs the same program on all of them."""
    # The machines' own Python is older than this program.
    return " && ".join(
        [
            'cd "$(mktemp -d)"',
            "python3 -m pip install --quiet --user uv",
            'PATH="$HOME/.local/bin:$HOME/ladder/bin:$PATH"',
            'uv venv --quiet --allow-existing --python 3.12 "$HOME/ladder"',
            f"gcloud storage cp {shlex.quote(_at(order, 'launch/'))}'scaling_ladder-*.whl' .",
            "wheel=$(ls scaling_ladder-*.whl)",
            'uv pip install --quiet --python "$HOME/ladder/bin/python" "./$wheel[train,tpu]"',
            *_train_and_evaluate(order, spec),
        ]
    )


def _train_and_evaluate(order: Order, spec: RunSpec) -> Iterator[str]:
    for verb in ("train", "evaluate"):
        options = ["--run", spec.run, "--workdir", order.workdir]
        yield shlex.join(["ladder", verb, _at(order, "launch/config.yaml"), *options])


def _fitted(order: Order) -> Iterator[str]:
    yield from ("", "# All runs are trained and measured: this collects, fits and reports.")
    yield shlex.join(["ladder", "run", _at(order, "launch/config.yaml"), "--workdir", order.workdir])


def _at(order: Order, path: str) -> str:
    return f"{order.workdir.rstrip('/')}/{path}"


def _given(flag: str, value: str) -> list[str]:
    return [flag, value] if value else []


def _name(spec: RunSpec) -> str:
    """The run's name as the cloud allows names: small letters, digits and hyphens, not too many."""
    name = f"ladder-{re.sub('[^a-z0-9]+', '-', spec.run.lower()).strip('-')}"
    if len(name) <= NAME_LETTERS:
        return name
    return f"{name[: NAME_LETTERS - 9]}-{hashlib.sha256(spec.run.encode()).hexdigest()[:8]}"
