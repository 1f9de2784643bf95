"""Prepared TensorFlow Datasets as a source of documents, and what is said where there is none."""

import dataclasses
import os
from collections.abc import Iterator, Mapping

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from tasks.messages import cut
from tasks.text import files


def builder(name: str, field: str, data_dir: str | None, split: str) -> tfds.core.DatasetBuilder:
    """Gives what TensorFlow Datasets has prepared under a name.

    Raises:
      ValueError: no such name, version, split or field, or nothing prepared; says what there is.
    """
    try:
        found = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:  # the last, of a version
        reason = cut(str(error).strip().splitlines()[0].rpartition('": ')[2], 200)
        where = data_dir or "TFDS"
        raise ValueError(f"corpus tfds {name!r}: not found in {where}: {reason}{_prepared(name, data_dir)}") from None
    if not found.info.splits:
        raise ValueError(
            f"corpus tfds {name!r}: nothing prepared in {found.data_dir}{_prepared(name, data_dir)}; prepare it with "
            f"`tfds build {name}` or name the folder that holds it in data_dir"
        )
    for kind, wanted, there in (("split", split, found.info.splits), ("feature", field, found.info.features)):
        if wanted not in there:
            raise ValueError(f"corpus tfds {name!r}: no {kind} {wanted!r}; it has {', '.join(there)}")
    return found


def _prepared(name: str, data_dir: str | None) -> str:
    """The versions of a name that are prepared, for a refusal of another."""
    named = name.partition(":")[0]
    folder = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / named
    versions = sorted(path.parent.name for path in folder.glob("*/dataset_info.json"))
    return f"; prepared there: {', '.join(f'{named}:{version}' for version in versions)}" if versions else ""


class TfdsSource(seqio.TfdsDataSource):
    """The text of a TensorFlow Datasets source, its shards in the order of a hash, where that has a seed.

    Its text was shuffled when it was prepared, so that a shard is a fair sample by itself.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        field: str,
        data_dir: str | None,
        splits: Mapping[str, str],
        seed: int | None = None,
    ):
        versioned = builder.get_reference().tfds_name(include_version=True)
        super().__init__(versioned, tfds_data_dir=data_dir, splits=splits, read_only=True)
        self._field, self._seed = field, seed

    def list_shards(self, split: str) -> list[str]:
        """Names of the split's shards, in the order in which they are numbered."""
        names = super().list_shards(split)
        return [names[index] for index in self._order(split)]

    def get_dataset(self, split: str, *args, shard_info: seqio.ShardInfo | None = None, **options) -> tf.data.Dataset:
        """The split's documents, or those of one shard, as `targets`."""
        if shard_info:
            shard_info = dataclasses.replace(shard_info, index=self._order(split)[shard_info.index])
        dataset = super().get_dataset(split, *args, shard_info=shard_info, **options)
        return dataset.map(lambda example: {"targets": example[self._field]})

    def documents(self, split: str, shard_info: seqio.ShardInfo | None = None) -> Iterator[bytes]:
        """Gives a split's documents, or those of one shard; nothing of Python's runs in TensorFlow's graph of them.

        Raises:
          ValueError: TensorFlow cannot read them.
        """
        try:
            for example in self.get_dataset(split, shuffle=False, shard_info=shard_info).as_numpy_iterator():
                yield example["targets"]
        except tf.errors.OpError as error:
            raise ValueError(f"{self.tfds_dataset.name}, split {split!r}: {cut(error, 200)}") from None

    def content(self) -> dict[str, str]:
        """The name with its version, and how many examples each shard holds."""
        instructions = self.tfds_dataset.files("train")
        held = {os.path.basename(one.filename): f"{one.examples_in_shard} examples" for one in instructions}
        return {self.tfds_dataset.name: f"{len(held)} shards", **held}

    def _order(self, split: str) -> list[int]:
        names, seed = [os.path.basename(name) for name in super().list_shards(split)], self._seed
        if seed is None:
            return list(range(len(names)))
        return sorted(range(len(names)), key=lambda index: files.hashed(seed, names[index], 0))
