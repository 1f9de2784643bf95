"""What in a table of runs looks as if it were in another unit than its column says."""

from typing import Any

from fitting.testbeds.testbed import Testbed


def suspicions(testbed: Testbed, column: str) -> list[str]:
    """What in the table looks as if it were in another unit, a sentence each; `column` is the loss to be fitted."""
    table, found = testbed.table, []
    for name in ("params", "tokens"):
        if (largest := table[name].max()) < 1000:
            found.append(f"{name} is at most {largest:g}: it is a plain count, not in millions or billions")
    if "params_non_embedding" in table and (more := table["params_non_embedding"] > table["params"]).any():
        found.append(f"run {table['run'][more.idxmax()]!r} has more parameters without its embeddings than with them")
    kind, _, name = column.partition("/")
    ratio = (table[column] / _usual_nats(table["params"], table["tokens"]))[table["params"] >= 1e7].dropna()
    if kind == "loss" and len(ratio) and ratio.between(1.33, 1.56).all():
        found.append(f"{column} is {ratio.median():.2f} times what is usual for text: are these bits, and not nats?")
    if kind == "loss" and len(ratio) and (ratio < 0.6).all():
        found.append(f"{column} is low for nats a token: bits a byte are columns named bpb/{name}")
    return found


def _usual_nats(params: Any, tokens: Any) -> Any:
    """The law of Hoffmann et al. 2022 as Besiroglu et al. 2024 refitted it: web text in a vocabulary of 32,000."""
    return 1.817 + 482.0 * params**-0.3478 + 2085.4 * tokens**-0.3658
