"""What messages quote of what was read."""

from typing import Any

MOST = 80


def cut(value: Any, most: int = MOST) -> str:
    """One line of at most `most` characters: no message holds a document."""
    text = str(value)
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 1]}…"


def excerpt(text: str | bytes) -> str:
    """A text's start in quotes, what cannot be printed escaped."""
    start = text[: 4 * MOST].decode(errors="replace") if isinstance(text, bytes) else text
    return cut(repr(start[: MOST + 1]))
