"""Where files lie: the cache, and gs:// buckets, with one client for all and one clear line where one says no.

gcsfs (files) and tensorstore (checkpoints) repeat what fails with 408, 429 or 5xx, is late or breaks off, each time
after a longer pause. An object appears when all of it has arrived, or not at all.
"""

import os
import re

from etils import epath

# For this process and those it starts. TensorFlow's client, which epath would take where TensorFlow is installed, knows
# no emulator; and a host must not remember that a file was not there which another has written since.
ONE_CLIENT = {"EPATH_USE_TF": "false", "FSSPEC_GCS": '{"use_listings_cache": false}'}

SAYS_NO = re.compile("Forbidden: |PERMISSION_DENIED|UNAUTHENTICATED|does not have storage[.]|DefaultCredentialsError")
REMEDY = (
    "grant its account roles/storage.objectAdmin and roles/storage.legacyBucketReader there, or log in with "
    "`gcloud auth application-default login`"
)


def cache() -> epath.Path:
    """The user's folder of what is worked out once for all workdirs; LADDER_CACHE names another."""
    return epath.Path(os.environ.get("LADDER_CACHE") or "~/.cache/scaling-ladder").expanduser()


def use_one_client() -> None:
    """Has gs:// go through gcsfs, uncached; to be called before the first file is looked for."""
    for name, value in ONE_CLIENT.items():
        os.environ.setdefault(name, value)


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


def is_remote(path: epath.Path) -> bool:
    """Whether a path is in a bucket, where a file is there whole or not at all."""
    return "://" in str(path)


def bucket(path: epath.Path) -> str:
    """The bucket of a gs:// path."""
    return str(path).split("://", 1)[1].split("/", 1)[0]
