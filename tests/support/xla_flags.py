"""Flags of XLA with which a program is compiled in a fraction of the time, and runs slower.

LLVM optimises nothing, and loops are written down as they are, past the pipeline of MLIR that fuses them.
"""

import importlib.util
import mmap
import pathlib


def _known(flag: str) -> bool:
    # XLA ends a process for a flag that it does not have, and versions differ.
    library = pathlib.Path(importlib.util.find_spec("jaxlib").origin).with_name("libjax_common.so")
    if not library.exists():
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(flag.encode()) >= 0


TO_COMPILE_SOON = ["--xla_backend_optimization_level=0"]
if _known("xla_cpu_use_fusion_emitters"):
    TO_COMPILE_SOON.append("--xla_cpu_use_fusion_emitters=false")
