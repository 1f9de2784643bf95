"""What a compiled program's text (XLA's optimised HLO) says of its time and its communication."""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*\) -> .*)?\{$")
_INSTRUCTION = re.compile(
    r"^ +(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+(?:e\dm\d\w*)?)\[([\d,]*)\]")
_BITS = re.compile(r"\d+")
_CYCLES = re.compile(r'"estimated_cycles":"?(-?\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONSTANT = re.compile(r"s32\[\][^=]* constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of HLO: its name, the text of its shape and operands, and how often a step executes it."""

    name: str
    opcode: str
    shape: str
    rest: str
    times: int

    @property
    def cycles(self) -> int:
        """The compiler's estimate of one execution, 0 where it has none (kernels, communication)."""
        found = _CYCLES.search(self.rest)
        return max(0, int(found[1])) if found else 0

    @property
    def result_bytes(self) -> int:
        """Of the largest array in its result: an asynchronous start repeats its operand there."""
        return max((_bytes(*array) for array in _ARRAY.findall(self.shape)), default=0)


def instructions(text: str) -> Iterator[Instruction]:
    """Every instruction that is executed, fusions as one, with loops multiplied out."""
    computations, entry = _parse(text)
    yield from _walk(computations, entry, 1)


def cycles(text: str) -> int:
    """Sum of the compiler's estimates, times how often each instruction is executed."""
    return sum(i.cycles * i.times for i in instructions(text))


def collectives(text: str) -> dict[str, dict[str, int]]:
    """By kind: `count` of executions a step, and `bytes` of what a device holds at the end of them."""
    found: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for i in instructions(text):
        kind = i.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            found[kind]["count"] += i.times
            found[kind]["bytes"] += i.times * i.result_bytes
    return dict(found)


def _parse(text: str) -> tuple[dict[str, list[re.Match]], str]:
    computations, entry, name = {}, "", None
    for line in text.splitlines():
        if started := _COMPUTATION.match(line):
            name = started["name"]
            computations[name] = []
            entry = name if started["entry"] else entry
        elif name and (instruction := _INSTRUCTION.match(line)):
            computations[name].append(instruction)
    return computations, entry


def _walk(computations: Mapping[str, list[re.Match]], name: str, times: int) -> Iterator[Instruction]:
    for match in computations.get(name, ()):
        i = Instruction(match["name"], match["opcode"], match["shape"], match["rest"], times)
        yield i
        if i.opcode == "while":
            trips = _trips(computations, i.rest)
            for called in _CALLED.findall(i.rest):
                yield from _walk(computations, called, times * trips)
        elif i.opcode in ("call", "async-start"):
            for called in _CALLED.findall(i.rest):
                yield from _walk(computations, called, times)
        elif i.opcode == "conditional":
            for branches in _BRANCHES.findall(i.rest):
                for called in branches.replace("%", "").split(", "):
                    yield from _walk(computations, called, times)


def _trips(computations: Mapping[str, list[re.Match]], rest: str) -> int:
    if known := _TRIPS.search(rest):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.-]+)", rest)[1]
    bounds = [int(bound[1]) for m in computations[condition] if (bound := _CONSTANT.search(m.group(0)))]
    return max(bounds, default=1)


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(_BITS.search(dtype)[0])
    count = 1
    for dim in filter(None, dims.split(",")):
        count *= int(dim)
    return count * bits // 8
