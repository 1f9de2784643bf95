"""Where files lie: the cache, and gs:// buckets, with one client for all and one clear line where one says no.

gcsfs (files) and tensorstore (checkpoints) repeat what fails with 408, 429 or 5xx, is late or breaks off, each time
after a longer pause. An object appears when all of it has arrived, or not at all.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from typing import Any

from etils import epath

from fitting.files import cut, read_text

# For this process and those it starts. TensorFlow's client, which epath would take where TensorFlow is installed, knows
# no emulator; and a host must not remember that a file was not there which another has written since.
ONE_CLIENT = {"EPATH_USE_TF": "false", "FSSPEC_GCS": '{"use_listings_cache": false}'}

PLACEHOLDER = "gs://BUCKET"  # in the configs that ship

COMMITTED = "commit_success.txt"  # orbax's mark of a checkpoint in a bucket that is whole

# What ends by itself, or when somebody makes room: a full disk, a storage or a host that is away for a while.
OUTAGES = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EHOSTUNREACH, errno.ENETUNREACH)
OUTAGE_CODES = (408, 429, 500, 502, 503, 504)
SAYS_AWAY = re.compile(
    "No space left on device|Disk quota exceeded|ENOSPC|EDQUOT|UNAVAILABLE|DEADLINE_EXCEEDED|"
    "Connection (?:closed|reset|refused)|Broken pipe|Socket closed"
)
SAYS_NO = re.compile("Forbidden: |PERMISSION_DENIED|UNAUTHENTICATED|does not have storage[.]|DefaultCredentialsError")
REMEDY = (
    "grant its account roles/storage.objectAdmin and roles/storage.legacyBucketReader there, or log in with "
    "`gcloud auth application-default login`"
)


def cache() -> epath.Path:
    """The user's folder of what is worked out once for all workdirs; LADDER_CACHE names another."""
    return epath.Path(os.environ.get("LADDER_CACHE") or "~/.cache/scaling-ladder").expanduser()


# A scheme has two letters or more, as no drive of Windows has.
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def place(text: str) -> epath.Path:
    """Where a person says that something is or shall be: a local path, or gs://bucket/path.

    Raises:
      ValueError: another place, such as s3://bucket, or a slip, such as gs:/bucket.
    """
    if why := misplaced(text):
        raise ValueError(why)
    return epath.Path(text).expanduser()


def misplaced(text: str) -> str | None:
    """In one line, why nothing can be read or written there; None where it is a local path or gs://bucket/path."""
    named = cut(text)
    if re.match("gs:", text, re.IGNORECASE) and not re.match("gs://[^/]", text):
        return f"{named}: a bucket's path is written gs://bucket/path"
    if (scheme := SCHEME.match(text)) and scheme[1] != "gs":
        return f"{named}: {scheme[1]}:// cannot be read or written here; name a local path or gs://bucket/path"
    return None


def read_json(path: epath.Path, remedy: str, *keys: str) -> dict[str, Any]:
    """A JSON object of ours, which has these keys.

    Raises:
      ValueError: no such file, or a damaged one; with the remedy.
    """
    try:
        tree = json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise ValueError(f"{path}: not valid JSON ({e}); {remedy}") from None
    if not isinstance(tree, dict) or (missing := [key for key in keys if key not in tree]):
        lacks = f"it lacks {', '.join(missing)}" if isinstance(tree, dict) else "it is no JSON object"
        raise ValueError(f"{path} is damaged: {lacks}; {remedy}")
    return tree


_METRICS = ("step", "tokens", "loss_nats")


def read_rows(path: epath.Path, *keys: str) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines that have these keys, or those of a metrics.jsonl.

    A last line that was cut, as by a kill on the way of a copy, is left out.

    Raises:
      ValueError: another line that is no row; naming it.
    """
    rows, lines = [], read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as e:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not valid JSON; remove that line ({e})") from None
        if not isinstance(row, dict) or not set(keys or _METRICS) <= row.keys():
            raise ValueError(f"{path}, line {number}: no row of a run, {cut(line)}; remove that line")
        rows.append(row)
    return rows


def copy(source: epath.Path, target: epath.Path, last: str = "") -> None:
    """Copies a folder with all that is below it, in each folder the file `last` after the others."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == last):
        if path.is_dir():
            copy(path, target / path.name, last)
        else:
            with path.open("rb") as there, (target / path.name).open("wb") as here:
                shutil.copyfileobj(there, here, 2**24)


def use_one_client() -> None:
    """Has gs:// go through gcsfs, uncached; to be called before the first file is looked for."""
    for name, value in ONE_CLIENT.items():
        os.environ.setdefault(name, value)


def refuse_placeholders(tree: Any, where: str = "") -> None:
    """Raises a ValueError if a text of a tree of mappings and lists still has the bucket's name of an example."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            refuse_placeholders(value, f"{where}.{key}" if where else str(key))
    elif isinstance(tree, list | tuple):
        for value in tree:
            refuse_placeholders(value, where)
    elif isinstance(tree, str) and tree.startswith(PLACEHOLDER):
        raise ValueError(f"{where}: {tree} holds the place of a bucket of yours; write its name for BUCKET")


def refuse_closed(folder: epath.Path) -> None:
    """Raises a ValueError if nothing can be written into a gs:// folder; says which bucket, why, and what to do."""
    if not is_remote(folder):
        return
    try:
        probe = folder / ".can-write"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except FileNotFoundError:
        raise ValueError(f"there is no bucket gs://{bucket(folder)}; make it, or name another") from None
    except Exception as e:
        if why := refusal(e):
            raise ValueError(why) from None
        raise


def refusal(error: BaseException) -> str | None:
    """In one line, what a bucket said no to; None where an error is of another kind."""
    told = " ".join(str(error).split())
    if not SAYS_NO.search(f"{type(error).__name__} {told}"):
        return None
    named = re.search(r"gs://([^/:\s]+)|\bb/([^/?:\s]+)/o", told)
    where = f" on gs://{named[1] or named[2]}" if named else ""
    why = re.search(r"[^\s:]\S* does not have [\w. ]+", told)
    return f"no permission{where}: {why[0] if why else told[:200]}; {REMEDY}"


def is_outage(error: BaseException | None) -> bool:
    """Whether an error comes of a storage or a host that is full or away: the same may go well a while later."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError):
            return True
        if getattr(error, "errno", None) in OUTAGES or getattr(error, "code", None) in OUTAGE_CODES:
            return True
        if SAYS_AWAY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def told(error: BaseException) -> str:
    """What a person is told of a refusal: no more of it than can be read, whatever it quotes."""
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        return f"{cut(error.filename, 500)}: there is a file where a folder should be; name another place"
    return refusal(error) or cut(error, 2000)


def is_remote(path: epath.Path) -> bool:
    """Whether a path is in a bucket, where a file is there whole or not at all."""
    return "://" in str(path)


def is_whole(checkpoint: epath.Path) -> bool:
    """Whether a checkpoint is there, and all of it."""
    return (checkpoint / COMMITTED if is_remote(checkpoint) else checkpoint).exists()


def bucket(path: epath.Path) -> str:
    """The bucket of a gs:// path."""
    return str(path).split("://", 1)[1].split("/", 1)[0]
