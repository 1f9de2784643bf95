"""Libraries that talk more than a person wants to read, kept to what is worth it."""

import importlib
import logging
import os
import tempfile


def libraries() -> None:
    """Has orbax keep to itself how it stores arrays, and of each that it cannot read what we say once."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def import_tensorflow() -> None:
    """Imports TensorFlow, which is to leave GPUs to JAX, without its long tale of those that it did not find."""
    # It tells in part before it reads any setting of its own. 1 is what JAX sets where nothing was.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            importlib.import_module("tensorflow").config.set_visible_devices([], "GPU")
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
