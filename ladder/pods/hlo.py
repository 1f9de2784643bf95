"""What a compiled program's text (XLA's optimised HLO) says of its time and its communication."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*\) -> .*)?\{$")
_INSTRUCTION = re.compile(
    r"^ +(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+(?:e\dm\d\w*)?)\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"?(-?\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_BOUND = re.compile(r"constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of HLO.

    Attributes:
      name, opcode: as written.
      shape: of its result, as text.
      rest: its operands and attributes, as text.
      times: how often one run of the program executes it.
      within: the computation that it stands in.
      fused: whether it is a part of a fusion, whose time includes its own.
    """

    name: str
    opcode: str
    shape: str
    rest: str
    times: int
    within: str
    fused: bool

    @property
    def cycles(self) -> int:
        """The compiler's estimate of one execution; 0 where it has none (kernels, communication)."""
        found = _CYCLES.search(self.rest)
        return max(0, int(found[1])) if found and not self.fused else 0

    @property
    def result_bytes(self) -> int:
        """Of all arrays in its result, but for those that the start of an asynchronous one repeats of its operands."""
        sizes = [_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(self.shape) if dims]
        repeats = self.opcode in ("all-gather-start", "collective-permute-start")
        return sum(sizes[len(sizes) // 2 :] if repeats else sizes)


def instructions(text: str) -> Iterator[Instruction]:
    """Every instruction that is executed, loops multiplied out; a fusion is followed by its parts."""
    computations, entry = _parse(text)
    yield from _walk(computations, entry, 1, False)


def cycles(text: str) -> int:
    """Sum of the compiler's estimates, times how often each instruction is executed."""
    return sum(i.cycles * i.times for i in instructions(text))


def kernel_calls(text: str, name: str) -> int:
    """How often the kernels (custom calls) whose names begin with `name` are executed."""
    return sum(i.times for i in instructions(text) if i.opcode == "custom-call" and i.name.startswith(name))


def collectives(text: str) -> dict[str, dict[str, int]]:
    """By kind: `count` of executions and `bytes`, of what one device holds when they are done.

    One that the compiler cut into parts, hidden behind several fusions, counts once: its parts share a channel. An
    all-reduce of which each device keeps its own part counts as the reduce-scatter that it is.
    """
    found: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    seen = set()
    for i in instructions(text):
        kind = i.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        channel = _CHANNEL.search(i.rest)
        if channel and channel[1] in seen:
            continue
        if channel:
            seen.add(channel[1])
        if i.within.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        found[kind]["count"] += i.times
        found[kind]["bytes"] += i.times * i.result_bytes
    return dict(found)


def _parse(text: str) -> tuple[dict[str, list[re.Match]], str]:
    computations: dict[str, list[re.Match]] = {}
    entry = name = ""
    for line in text.splitlines():
        if started := _COMPUTATION.match(line):
            name = started["name"]
            computations[name] = []
            entry = name if started["entry"] else entry
        elif name and (instruction := _INSTRUCTION.match(line)):
            computations[name].append(instruction)
    return computations, entry


def _walk(computations: Mapping[str, list[re.Match]], name: str, times: int, fused: bool) -> Iterator[Instruction]:
    for match in computations.get(name, ()):
        i = Instruction(match["name"], match["opcode"], match["shape"], match["rest"], times, name, fused)
        yield i
        if i.opcode in ("while", "call", "async-start", "fusion"):
            called = _CALLED.findall(i.rest)
        elif i.opcode == "conditional":
            called = [branch for found in _BRANCHES.findall(i.rest) for branch in found.replace("%", "").split(", ")]
        else:
            continue
        trips = _trips(computations, i.rest) if i.opcode == "while" else 1
        for computation in called:
            yield from _walk(computations, computation, times * trips, fused or i.opcode == "fusion")


def _trips(computations: Mapping[str, list[re.Match]], rest: str) -> int:
    if known := _TRIPS.search(rest):
        return int(known[1])
    condition = re.findall(r"condition=%?([\w.-]+)", rest)[0]
    bounds = [
        int(bound[1])
        for match in computations.get(condition, ())
        if match["opcode"] == "constant" and (bound := _BOUND.search(match.group(0)))
    ]
    return max(bounds, default=1)


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
    return math.prod(map(int, dims.split(","))) * bits // 8
