"""What was asked for and cannot be, told apart from faults of the program."""

from ladder import storage

# The extra that a module comes with, and what needs it.
EXTRAS = {"libtpu": ("tpu", "compiling for TPUs needs"), "ray": ("ray", "the engine ray needs")}


def told(error: BaseException) -> str | None:
    """The one line of an exception that refuses what was asked; None for a fault of the program."""
    if isinstance(error, ValueError | OSError):
        return storage.told(error)
    if isinstance(error, ModuleNotFoundError):
        extra, need = EXTRAS.get(error.name or "", ("train", "training and evaluating need"))
        return f"{error.name} is not installed; {need} pip install 'scaling-ladder[{extra}]'"
    return storage.refusal(error)
