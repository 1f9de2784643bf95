"""What a message may hold of a document, or of another library's words: their start, on one line."""

CHARACTERS = 80


def short(words: str, characters: int = CHARACTERS) -> str:
    """Gives words on one line, cut where they are longer than that."""
    line = " ".join(words[: 4 * characters].split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def excerpt(text: str | bytes) -> str:
    """Gives a text's start in quotes, what cannot be printed escaped."""
    start = text[: 4 * CHARACTERS].decode(errors="replace") if isinstance(text, bytes) else text
    return short(repr(start[: CHARACTERS + 1]))
