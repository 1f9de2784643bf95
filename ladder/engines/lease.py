"""The claim on a run, lease.json: who carries it out, told anew every few seconds, taken over from the dead alone.

Whoever holds a run's lease, and nobody else, writes into its folder. Clocks of hosts must agree within a minute.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import socket
import threading
import time

from etils import epath

from ladder import storage
from ladder.engines import owned
from ladder.events import Say
from ladder.spec import Workdir

SCHEMA_VERSION = 1
FRESH_SECONDS = 120.0  # a lease whose holder was not heard of for so long is anybody's
HEARTBEAT_SECONDS = 20.0
LOOK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lease: lease.json. `holder` is host:pid:mark; the mark tells processes of one number apart."""

    holder: str
    host: str
    pid: int
    engine: str
    since: str
    heartbeat: str
    schema_version: int = SCHEMA_VERSION

    def is_live(self) -> bool:
        """Whether it was heard of lately and, where it is of this machine, is there."""
        heard = datetime.datetime.fromisoformat(self.heartbeat).timestamp()
        return time.time() - heard < FRESH_SECONDS and not self._is_gone()

    def _is_gone(self) -> bool:
        mark = self.holder.rpartition(":")[2]
        here = self.host == socket.gethostname() and mark[:4] == _mark(os.getpid())[:4]
        return here and _mark(self.pid) != mark


class Busy(ValueError):
    """Another holds the lease."""

    def __init__(self, path: epath.Path, holder: Holder):
        super().__init__(f"{path.parent} is held by {told(holder)}; wait for it, or stop that process")
        self.holder = holder


class Lost(RuntimeError):
    """This process was not heard of for so long that its lease is another's."""


class Lease:
    """A lease of this process's own; a context manager that renews it in a thread, and releases it.

    Attributes:
      holder: this process.
      after: the dead one from which it was taken.
    """

    def __init__(self, path: epath.Path, file: owned.Owned, holder: Holder, after: Holder | None):
        self.holder, self.after = holder, after
        self._path, self._file, self._renewed = path, file, time.time()
        self._released, self._taken = threading.Event(), False
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # where the storage is down, it ends by itself
            self._file.remove()

    def is_held(self) -> bool:
        """Whether it is still this process's own."""
        return not self._taken and time.time() - self._renewed < FRESH_SECONDS

    def check(self) -> None:
        """Raises Lost where it is no longer this process's own; to be called before anything is written."""
        if not self.is_held():
            raise Lost(f"{self._path} was not renewed for {FRESH_SECONDS:.0f} s, and is another's")

    def _renew(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            self.renew()

    def renew(self) -> None:
        """Tells that this process lives."""
        now = time.time()
        if now - self._renewed >= FRESH_SECONDS:
            self._taken = True  # or may be taken at any moment
        if not self._taken:
            try:
                self._taken = not self._file.write(_dump(dataclasses.replace(self.holder, heartbeat=iso(now))))
                self._renewed = now
            except Exception as e:
                if not storage.is_outage(e):
                    raise  # else it is tried again, as long as it is fresh


def claim(path: epath.Path, engine: str) -> Lease:
    """The lease at a path, where nobody alive holds it; of many that ask at once, one gets it.

    Raises:
      Busy: another holds it, or another thread of this process.
    """
    while True:
        holder = _this_process(engine)
        if file := owned.create(path, _dump(holder)):
            return Lease(path, file, holder, None)
        if not (seen := owned.read(path)):
            continue  # released in between
        theirs = _parsed(seen.content, path)
        if theirs.is_live():
            raise Busy(path, theirs)
        if file := seen.take(_dump(holder)):
            return Lease(path, file, holder, theirs)


def read(path: epath.Path) -> Holder | None:
    """Who holds the lease at a path, alive or dead; None where nobody does, or it does not say yet who."""
    try:
        return _told(path.read_bytes())
    except FileNotFoundError:
        return None


def live_holder(path: epath.Path) -> Holder | None:
    """Who holds the lease at a path; None where nobody does who is alive."""
    try:
        holder = _parsed(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    return holder if holder.is_live() else None


def live_holders(workdir: Workdir) -> dict[str, Holder]:
    """Who holds the runs of a workdir, by run."""
    folder = workdir.root / "runs"
    runs = [path.name for path in folder.iterdir()] if folder.exists() else []
    held = {run: live_holder(workdir.lease(run)) for run in sorted(runs)}
    return {run: holder for run, holder in held.items() if holder}


def wait(path: epath.Path, engine: str, say: Say) -> Lease:
    """The lease at a path, as soon as it is free; tells `say` once for whom it waits."""
    told_of = ""
    while True:
        try:
            return claim(path, engine)
        except Busy as e:
            if e.holder.holder != told_of:
                told_of = e.holder.holder
                say(f"waiting for {told(e.holder)}")
            time.sleep(LOOK_SECONDS)


def refuse_living(path: epath.Path, say: Say) -> None:
    """Waits until the holder of a lease, if there is one, proves alive or dead; which is told.

    Raises:
      Busy: it lives.
    """
    if not (holder := live_holder(path)):
        return
    say(f"{path.parent.name} is held by {told(holder)}: is that process alive?")
    while now := live_holder(path):
        if (now.holder, now.heartbeat) != (holder.holder, holder.heartbeat):
            raise Busy(path, now)
        time.sleep(LOOK_SECONDS)


def bury(path: epath.Path, holder: str, engine: str) -> Lease | None:
    """The lease of a holder that is known to be dead; None where it holds nothing."""
    seen = owned.read(path)
    if not seen or (theirs := _parsed(seen.content, path)).holder != holder:
        return None
    mine = _this_process(engine)
    file = seen.take(_dump(mine))
    return Lease(path, file, mine, theirs) if file else None


def told(holder: Holder) -> str:
    """What a person is told of a holder."""
    return f"{holder.host}, process {holder.pid}, since {holder.since} (heard of at {holder.heartbeat})"


def iso(seconds: float) -> str:
    """A time as files have it: of one length always, and no two of one process alike."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="microseconds")


def _this_process(engine: str) -> Holder:
    host, pid, now = socket.gethostname(), os.getpid(), iso(time.time())
    return Holder(f"{host}:{pid}:{_mark(pid)}", host, pid, engine, now, now)


def _dump(holder: Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder)).encode() + b"\n"


def _parsed(content: bytes, path: epath.Path) -> Holder:
    if holder := _told(content):
        return holder
    try:
        made = iso(path.stat().mtime)
    except FileNotFoundError:
        made = iso(0)
    return Holder("unknown", "an unknown host", 0, "", made, made)


def _told(content: bytes) -> Holder | None:
    """Who holds a lease of this content; None where its maker is about to write it, or died over it."""
    try:
        holder = Holder(**json.loads(content))
        datetime.datetime.fromisoformat(holder.since), datetime.datetime.fromisoformat(holder.heartbeat)
    except (ValueError, TypeError):
        return None
    return holder


def _mark(pid: int) -> str:
    """Eight digits: four of the machine since it was started, as its processes see it, four of when this one was.

    "" where there is no such process, or the system does not tell.
    """
    proc = pathlib.Path("/proc")
    try:
        machine = (proc / "sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
        state, *fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else _digits(machine) + _digits(fields[18])


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:4]
