"""The table of docs/pods.md: every size on every pod, compiled for it without a TPU, in steps of 2M tokens.

    python benchmarks/precompile_table.py [WORD ...]

compiles what no earlier call has (minutes each, and a call that is stopped goes on where it was), only rows that have
all the WORDs in their names where any are given, writes those rows into the table and prints one JSON line: what fits,
and the compiler's seconds of a step over MaxText's, compiled the same way (same sizes, batch, topology and precision).
`known` as a WORD compiles nothing. Needs pip install 'scaling-ladder[train,tpu]'.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ladder import config_file
from ladder import plan as plans
from ladder.config import Mesh
from ladder.pods import precompile, precompiled
from ladder.pods.topology import GIB, Topology

ROOT = pathlib.Path(__file__).parents[1]
ASKED = ("size", "topology", "batch", "fsdp", "remat")
FOUND = ("GiB a chip", "step, s", "XLA alone, s", "6N MFU", "XLA alone")
HEAD = (*ASKED, *FOUND, "jax, libtpu")
VERSIONS = f"{importlib.metadata.version('jax')}, {importlib.metadata.version('libtpu')}"
BEGIN, END = "<!-- begin: benchmarks/precompile_table.py -->\n", "<!-- end -->\n"
TARGETS = {"411M": "d=1024_l=24_h=8-m20", "1.4B": "open_lm_1b-m640", "6.9B": "open_lm_7b-m20"}
PODS = ("v4:4x4x4", "v5e:16x16", "v5p:4x4x8", "v6e:16x16")


class Row(NamedTuple):
    """One program: a batch of sequences on slices of a pod, parameters split over `fsdp` chips."""

    size: str
    pod: str
    slices: int = 1
    batch: int = 1024
    fsdp: int = 16  # a whole side of every pod
    remat: str = "full"

    def __str__(self) -> str:
        return f"{self.size} {Topology.of(self.pod, self.slices)} {self.batch}"


# Those of MaxText come first. To split the parameters over all chips makes room for an activation more of each block.
AGAINST_MAXTEXT = (
    Row("6.9B", "v5p:4x4x8", fsdp=128, remat="attended"),
    Row("1.4B", "v5e:16x16", fsdp=256),
    Row("411M", "v5e:4x4", batch=128),
)
# Seconds of a step, XLA's part alone, and GiB a chip of MaxText's decoder of the same sizes, measured as here with the
# compiler of 2026: Qwen3-type, full rematerialisation, its windowed einsum off where that is faster.
MAXTEXT = dict(zip(AGAINST_MAXTEXT, ((2.647, 14.4), (0.639, 2.77), (0.447, 3.66)), strict=True))
ROWS = (
    *AGAINST_MAXTEXT,
    *(Row("6.9B", pod) for pod in PODS),
    Row("6.9B", "v5e:16x16", slices=2),
    *(Row("1.4B", pod) for pod in PODS),
    *(Row("411M", pod) for pod in PODS),
)


def main(words: list[str]) -> None:
    """Compiles what is missing, writes the table, prints the ratios."""
    config = config_file.load(str(ROOT / "configs" / "gadre2024.yaml"))
    specs = plans.plan(config, plans.vocab_size(config))
    reports, ratios = {}, {}
    for row in ROWS:
        spec = plans.find(specs, TARGETS[row.size])
        steps = round(spec.tokens / (row.batch * spec.sequence_length))
        h = dataclasses.replace(spec.hyperparameters, batch_size=row.batch)
        spec = dataclasses.replace(spec, steps=steps, hyperparameters=h)
        mesh = Mesh(fsdp=row.fsdp, slices=row.slices)
        training = dataclasses.replace(config.training, mesh=mesh, remat=row.remat)
        topology = Topology.of(row.pod, row.slices)
        if "known" not in words and all(word in str(row) for word in words):
            precompile.precompile(training, spec, topology)
        path = precompiled.file(training, spec, topology)
        if path.exists():
            reports[row] = precompiled.read(path, spec)
            if row in MAXTEXT and reports[row]["fits"]:
                seconds, gib = MAXTEXT[row]
                ratios[str(row)] = {
                    "xla_seconds_over_maxtext": round(reports[row]["estimated_xla_seconds"] / seconds, 3),
                    "hbm_over_maxtext": round(reports[row]["hbm_bytes_per_chip"] / GIB / gib, 3),
                }
            _write(reports)
    fitting = sum(report["fits"] for report in reports.values())
    print(json.dumps({"rows": len(ROWS), "compiled": len(reports), "fit": fitting, "ratios": ratios}))


def _write(reports: Mapping[Row, dict]) -> None:
    """Writes the rows that were compiled; what an earlier call found of the others stays."""
    page = ROOT / "docs" / "pods.md"
    before, rest = page.read_text().split(BEGIN)
    there, after = rest.split(END)
    known = {tuple(cells[: len(ASKED)]): cells for cells in map(_cells, there.splitlines())}
    rows = [HEAD, ("---",) * len(HEAD)]
    for row in ROWS:
        asked = (row.size, str(Topology.of(row.pod, row.slices)), str(row.batch), str(row.fsdp), row.remat)
        if row in reports:
            rows.append((*asked, *_found(reports[row]), VERSIONS))
        else:
            rows.append(known.get(asked, (*asked, "not compiled yet", *[""] * (len(FOUND)))))
    page.write_text(before + BEGIN + "".join(f"| {' | '.join(cells)} |\n" for cells in rows) + END + after)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def _found(r: Mapping[str, Any]) -> tuple[str, ...]:
    memory = f"{r['hbm_bytes_per_chip'] / GIB:.1f} of {r['hbm_limit_bytes'] / GIB:.0f}"
    if not r["fits"]:
        return (memory + ": does not fit", "", "", "", "")
    seconds = (f"{r['estimated_step_seconds']:.3f}", f"{r['estimated_xla_seconds']:.3f}")
    return (memory, *seconds, f"{r['estimated_mfu']:.2f}", f"{r['estimated_xla_mfu']:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
