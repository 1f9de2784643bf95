"""Workdirs made by hand, file by file, as those that carry out a ladder leave them at any moment."""

import datetime
import json
import os

from etils import epath

from fitting.testbeds.testbed import Measurement, RunRecord
from ladder import config_file
from ladder import plan as plans
from ladder import spec as specs_
from ladder.spec import Workdir


def iso(seconds):
    """A time as the files have it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")


class Made:
    """A planned ladder's workdir, in which nothing was run yet; `now` is when it is looked at."""

    def __init__(self, root, config, specs, now):
        self.workdir, self.config, self.specs, self.now = Workdir(epath.Path(root)), config, specs, now
        for spec in specs:
            self._write(self.workdir.spec(spec.run), specs_.dump(spec).decode())
        self._write(self.workdir.config, config_file.dump(config))
        self._write(self.workdir.plan, json.dumps(plans.as_table(specs)))

    def rows(self, spec, step, *, ago, every=50, step_seconds=0.5, goodput=0.8):
        """It has told of its steps up to this one, the last time so many seconds ago."""
        steps = [*range(every, step, every), step]
        tokens = spec.hyperparameters.batch_size * spec.sequence_length
        started = self.now - ago - step * step_seconds / goodput
        rows = [
            {
                "step": s,
                "tokens": s * tokens,
                "loss_nats": 2 + 3 / s,
                "grad_norm": 1.0,
                "tokens_per_second": tokens / step_seconds,
                "step_seconds": step_seconds,
                "goodput": goodput,
                "started": started,
            }
            for s in steps
        ]
        self._write(self.workdir.metrics(spec.run), "".join(json.dumps(row) + "\n" for row in rows), ago)

    def lease(self, spec, *, since_ago, heard_ago=5.0, host="tpu-a", engine="work"):
        """Somebody holds it."""
        since, heartbeat = iso(self.now - since_ago), iso(self.now - heard_ago)
        who = {"holder": f"{host}:7:0123abcd", "host": host, "pid": 7, "engine": engine}
        lease = {"schema_version": 1, **who, "since": since, "heartbeat": heartbeat}
        self._write(self.workdir.lease(spec.run), json.dumps(lease))

    def attempts(self, spec, *ended, host="tpu-a"):
        """Attempts have ended: of each since how long ago, until how long ago, and why; more as keywords of a dict."""
        lines = [
            {
                "host": host,
                "engine": "work",
                "start": iso(self.now - since_ago),
                "end": iso(self.now - until_ago),
                "why": why,
                "message": "",
                "first_step": 1,
                "last_step": 10,
                "steps_redone": 0,
                **(more[0] if more else {}),
            }
            for since_ago, until_ago, why, *more in ended
        ]
        self._write(self.workdir.attempts(spec.run), "".join(json.dumps(line) + "\n" for line in lines))

    def record(self, spec, loss=2.0, *, ago, quarantine="", partial=False):
        """It is measured, or in part."""
        record = RunRecord(
            run=spec.run,
            role=spec.role,
            corpus="text",
            model=spec.size,
            params=spec.params,
            params_non_embedding=spec.params_non_embedding,
            tokens=spec.tokens,
            token_multiplier=spec.token_multiplier,
            flops=spec.flops,
            losses={} if quarantine else {"held_out": Measurement(loss, 0.001)},
            errors={} if quarantine else {"recall": Measurement(0.5, 0.01)},
            chance_errors={"recall": 0.9},
            quarantine=quarantine,
        )
        path = self.workdir.partial_record(spec.run) if partial else self.workdir.record(spec.run)
        record.save(path)
        os.utime(path, (self.now - ago, self.now - ago))

    def _write(self, path, text, ago=0.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (self.now - ago, self.now - ago))
