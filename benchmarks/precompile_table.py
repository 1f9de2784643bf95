"""The table of docs/pods.md: every size on every pod, compiled for it without a TPU, in steps of 2M tokens.

    python benchmarks/precompile_table.py [WORD ...]

compiles what no earlier call has (minutes each, and a call that is stopped goes on where it was), only rows that have
all the WORDs in their names where any are given, writes the table and prints one JSON line: what fits, and the
compiler's seconds of a step over MaxText's, compiled the same way (same sizes, batch, topology and precision). `known`
as a WORD compiles nothing. Needs pip install 'scaling-ladder[train,tpu]'.
"""

import dataclasses
import json
import pathlib
import sys

from ladder import config as configs
from ladder import plan as plans
from ladder import precompile, precompiled
from ladder.config import Mesh
from ladder.topology import GIB, Topology

ROOT = pathlib.Path(__file__).parents[1]
BEGIN, END = "<!-- begin: benchmarks/precompile_table.py -->\n", "<!-- end -->\n"
TARGETS = {"411M": "d=1024_l=24_h=8-m20", "1.4B": "open_lm_1b-m640", "6.9B": "open_lm_7b-m20"}
PODS = ("v4:4x4x4", "v5e:16x16", "v5p:4x4x8", "v6e:16x16")
# Seconds of a step, XLA's part alone, and GiB a chip of MaxText's decoder of the same sizes, measured as here with the
# compiler of 2026: Qwen3-type, full rematerialisation, its windowed einsum off where that is faster.
MAXTEXT = {
    ("6.9B", "v5p:4x4x8", 1, 1024): (2.647, 14.4),
    ("1.4B", "v5e:16x16", 1, 1024): (0.639, 2.77),
    ("411M", "v5e:4x4", 1, 128): (0.447, 3.66),
}
ROWS = (
    ("6.9B", "v5p:4x4x8", 1, 1024),
    ("411M", "v5e:4x4", 1, 128),
    ("1.4B", "v5e:16x16", 1, 1024),
    ("6.9B", "v5e:16x16", 2, 1024),
    *(("6.9B", pod, 1, 1024) for pod in PODS if pod != "v5p:4x4x8"),
    *(("1.4B", pod, 1, 1024) for pod in PODS if pod != "v5e:16x16"),
    *(("411M", pod, 1, 1024) for pod in PODS),
)


def main(words: list[str]) -> None:
    """Compiles what is missing, writes the table, prints the ratios."""
    config = configs.load(str(ROOT / "configs" / "gadre2024.yaml"))
    specs = plans.plan(config, plans.vocab_size(config))
    reports, ratios = {}, {}
    for row in ROWS:
        size, pod, slices, batch = row
        spec = plans.find(specs, TARGETS[size])
        steps = round(spec.tokens / (batch * spec.sequence_length))
        h = dataclasses.replace(spec.hyperparameters, batch_size=batch)
        spec = dataclasses.replace(spec, steps=steps, hyperparameters=h)
        # 16 is a whole side of every pod. With 256 of v5e's small memories the parameters take next to nothing.
        mesh = Mesh(fsdp=256 if (size, pod) == ("1.4B", "v5e:16x16") else 16, slices=slices)
        training = dataclasses.replace(config.training, mesh=mesh)
        topology = Topology.of(pod, slices)
        name = f"{size} {topology} {batch}"
        if "known" not in words and all(word in name for word in words):
            precompile.precompile(training, spec, topology)
        path = precompiled.file(training, spec, topology)
        if path.exists():
            reports[row] = precompiled.read(path, spec)
            if row in MAXTEXT and reports[row]["fits"]:
                seconds, gib = MAXTEXT[row]
                ratios[name] = {
                    "xla_seconds_over_maxtext": round(reports[row]["estimated_xla_seconds"] / seconds, 3),
                    "hbm_over_maxtext": round(reports[row]["hbm_bytes_per_chip"] / GIB / gib, 3),
                }
            _write(reports)
    fitting = sum(report["fits"] for report in reports.values())
    print(json.dumps({"rows": len(ROWS), "compiled": len(reports), "fit": fitting, "ratios": ratios}))


def _write(reports: dict) -> None:
    page = ROOT / "docs" / "pods.md"
    text = page.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    head = ("size", "topology", "cloud's name", "batch", "GiB a chip", "step, s", "XLA alone, s", "6N MFU", "XLA alone")
    rows = [head, ("---",) * len(head)]
    for size, pod, slices, batch in ROWS:
        r = reports.get((size, pod, slices, batch))
        where = pod + (f" x {slices}" if slices > 1 else "")
        if r is None:
            rows.append((size, where, "", str(batch), "not compiled yet", "", "", "", ""))
            continue
        named = r["accelerator"] + (f" x {slices}" if slices > 1 else "")
        memory = f"{r['hbm_bytes_per_chip'] / GIB:.1f} of {r['hbm_limit_bytes'] / GIB:.0f}"
        if not r["fits"]:
            rows.append((size, where, named, str(batch), memory + ": does not fit", "", "", "", ""))
            continue
        times = (f"{r['estimated_step_seconds']:.3f}", f"{r['estimated_xla_seconds']:.3f}")
        mfu = (f"{r['estimated_mfu']:.2f}", f"{r['estimated_xla_mfu']:.2f}")
        rows.append((size, where, named, str(batch), memory, *times, *mfu))
    page.write_text(before + "".join(f"| {' | '.join(row)} |\n" for row in rows) + after)


if __name__ == "__main__":
    main(sys.argv[1:])
