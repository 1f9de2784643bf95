"""What messages quote of what was read."""

from typing import Any


def cut(value: Any, most: int = 80) -> str:
    """One line of at most `most` characters: no message holds a document."""
    text = str(value)
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 1]}…"
