"""JSON Lines, strictly: what is no JSON, no UTF-8 or no text is refused, in words that do not repeat the line."""

import json
from typing import Any


def read(line: bytes) -> Any:
    """Gives what one line holds.

    Raises:
      ValueError: not UTF-8, not JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(line.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:  # of UTF-8, JSON or the length of a number; as text, none of them repeats the line
        raise ValueError(str(error)) from None


def text(value: Any) -> bytes:
    r"""Gives text in UTF-8.

    Raises:
      ValueError: something else, or half of a character, such as the lone `\ud83d` of an emoji cut in two.
    """
    if not isinstance(value, str):
        raise ValueError(f"holds {type(value).__name__}, not text")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        half = ascii(value[error.start])[1:-1]
        raise ValueError(f"holds {half} alone at character {error.start}, half of a character, not text") from None
