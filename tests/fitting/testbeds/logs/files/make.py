"""Makes the logs beside it with the programs that write such; needs the extras `train` and `watch`.

- `simple/`: TensorBoard's own writer, which PyTorch's SummaryWriter and Hugging Face's Trainer use. A run of 100 steps
  that stopped after step 60 and went on from 50, in a second file; its evaluation is every 50 steps.
- `tensors/`: clu's writer, which is TensorFlow 2's, with a text and a histogram beside its scalars.
- `offline/run-0a1b2c3d.wandb`: W&B, offline, with a NaN, a nested metric and a histogram.

Two need W&B's service, and are by hand: `history.jsonl`, that run as `json.dumps` of each row of `scan_history()` of
`wandb.Api().run(…)`, and `chart.csv`, "Export as CSV" of a chart of two runs.
"""

import pathlib
import shutil
import sys

FILES = pathlib.Path(__file__).parent


def loss_nats(step: int) -> float:
    """What the made-up runs logged."""
    return 2 + 2 / step**0.5


def _simple() -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = _emptied("simple")
    for part, steps in enumerate((range(10, 61, 10), range(60, 101, 10))):
        writer = EventFileWriter(str(folder), filename_suffix=f".part{part}")
        for step in steps:
            values = {"train/loss": loss_nats(step) + 0.5 * (part == 0 and step > 50)}
            if step % 50 == 0:
                values["eval/c4"] = loss_nats(step) + 0.1
            for tag, value in values.items():
                summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
                writer.add_event(event_pb2.Event(step=step, summary=summary))
        writer.close()
    _renamed(folder)


def _tensors() -> None:
    import numpy as np
    from clu import metric_writers

    folder = _emptied("tensors")
    writer = metric_writers.SummaryWriter(str(folder))
    writer.write_texts(0, {"note": "hello"})
    for step in range(10, 51, 10):
        writer.write_scalars(step, {"tokens": step * 1024, "loss_nats": loss_nats(step)})
        writer.write_histograms(step, {"weights": np.arange(3.0)})
    writer.flush()
    _renamed(folder)


def _offline() -> None:
    import wandb

    folder = _emptied("offline")
    settings = wandb.Settings(
        x_disable_meta=True, x_disable_stats=True, disable_git=True, disable_code=True, console="off", silent=True
    )
    run = wandb.init(project="ladder", id="0a1b2c3d", name="w64", mode="offline", dir=str(folder), settings=settings)
    for step in range(10, 51, 10):
        row = {"train/loss": loss_nats(step) if step != 30 else float("nan"), "tokens": step * 1024}
        if step % 20 == 0:
            row["eval"] = {"c4": loss_nats(step) + 0.1}
        run.log(row | {"weights": wandb.Histogram([1.0, 2.0], num_bins=2)}, step=step)
    run.finish()
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    written.rename(folder / written.name)
    shutil.rmtree(folder / "wandb")


def _emptied(name: str) -> pathlib.Path:
    shutil.rmtree(FILES / name, ignore_errors=True)
    (FILES / name).mkdir()
    return FILES / name


def _renamed(folder: pathlib.Path) -> None:
    """Names as they are, but of no machine's: their second part is the time, their third the host."""
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"events.out.tfevents.170000000{i}.host.1.0")


if __name__ == "__main__":
    made = {"simple": _simple, "tensors": _tensors, "offline": _offline}
    for name in sys.argv[1:] or made:
        made[name]()
