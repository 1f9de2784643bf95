"""Caching: the same bytes whoever writes them and however often they are killed; parts of a mixture apart."""

import dataclasses
import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import processes
from ladder import config_file
from ladder.config import Corpus
from ladder.corpus import caching
from ladder.engines.progress import Caching
from ladder.events import Cached, LeftOut
from ladder.training import data
from ladder.training.pool import Part, write_mixture
from tasks.store import Records
from tasks.text import documents

LENGTH = 16
DOCUMENTS, FILES = 40, 5
SHARD_BYTES = 4000


def _lines(name: str) -> bytes:
    text = lambda number: f"{name} {number}: " + " ".join(str(number * k) for k in range(30))  # noqa: E731
    return "".join(json.dumps({"text": text(number)}) + "\n" for number in range(DOCUMENTS)).encode()


@pytest.fixture
def config(tree, write_config, tmp_path, monkeypatch):
    """A mixture of packed web pages in many files, three shards of them, and of code in one."""
    (tmp_path / "web").mkdir()
    for number in range(FILES):
        (tmp_path / "web" / f"{number}.jsonl.gz").write_bytes(gzip.compress(_lines(f"page {number}"), mtime=0))
    (tmp_path / "code.jsonl").write_bytes(_lines("code"))
    part = lambda rate, path: {"rate": rate, "kind": "jsonl", "options": {"path": str(tmp_path / path)}}  # noqa: E731
    parts = {"web": part(3, "web"), "code": part(1, "code.jsonl")}
    tree["corpus"] = {"kind": "mixture", "options": {"parts": parts}, "cache": str(tmp_path / "cache")}
    monkeypatch.setattr(documents, "SHARD_BYTES", SHARD_BYTES)
    return config_file.load(write_config(tree))


def _at(config, folder):
    return dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, cache=str(folder)))


def _files(folder) -> dict[str, bytes]:
    root = pathlib.Path(folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _silent(event):
    del event


@pytest.fixture
def whole(config, tmp_path):
    """The cache's files, written by one process that nobody stopped."""
    caching.cache(_at(config, tmp_path / "whole"), _silent)
    return _files(tmp_path / "whole")


def test_a_part_is_a_folder_whose_shards_are_packed_each_by_itself(config, whole, tmp_path):
    shards = [name for name in whole if name.endswith(".npy")]
    assert len(shards) >= 4 and {name.partition("/")[0] for name in shards} == {"web", "code"}
    from tasks.text import vocab

    decode = vocab.load("bytes").decode
    for part, first in (("web", "page 0 "), ("code", "code ")):
        records = Records(tmp_path / "whole" / part)
        assert records.width == LENGTH + 1 and decode(records[np.arange(3)].ravel().tolist()).startswith(first)
        total = sum(len(np.load(tmp_path / "whole" / name)) for name in shards if name.startswith(part))
        assert len(records) == total > 100


def test_caching_again_reads_nothing(config, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.text.records.cache_shard", lambda *_, **__: pytest.fail("it is there"))
    caching.cache(_at(config, tmp_path / "whole"), _silent)
    assert _files(tmp_path / "whole") == whole


KILLED = """
import os, signal, sys
from ladder.corpus import caching
from ladder import config_file
from tasks.text import documents, records

documents.SHARD_BYTES = int(sys.argv[3])
blocks, left = records._blocks, int(sys.argv[2])

def blocks_and_death(*args):
    global left
    for block in blocks(*args):
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        yield block

records._blocks = blocks_and_death
caching.cache(config_file.load(sys.argv[1]), lambda event: None)
"""


def test_kills_in_the_middle_cost_a_shard_and_change_no_byte(config, whole, write_config, tmp_path):
    path = write_config(config_file.as_tree(config), "killed.yaml")
    seen = []
    for blocks in (3, 170):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), path, str(blocks), str(SHARD_BYTES)]
        killed = subprocess.run(command, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        seen.append({name for name in _files(tmp_path / "cache") if name.endswith((".npy", "records.json"))})
    web = [name for name in whole if name.startswith("web/0")]
    assert not seen[0] and web[0] in seen[1] and web[-1] not in seen[1]
    caching.cache(config, _silent)
    assert _files(tmp_path / "cache") == whole


def test_several_processes_write_the_same_bytes(config, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "ProcessPoolExecutor", _Here)
    events = []
    caching.cache(config, events.append, processes=2)
    assert _files(tmp_path / "cache") == whole
    assert events[-1].shards_done == events[-1].shards == len([name for name in whole if name.endswith(".npy")])


class _Here:
    """A pool of this very process: a new one would take seconds for TensorFlow, and would not know the shard size."""

    def __init__(self, *_, **__):
        import concurrent.futures

        self._pool = concurrent.futures.ThreadPoolExecutor(2)

    def __enter__(self):
        return self._pool.__enter__()

    def __exit__(self, *exception):
        return self._pool.__exit__(*exception)


def test_apache_beam_writes_the_same_bytes(config, whole, tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed: pip install '.[beam]'")
    caching.cache(config, _silent, beam=["--runner=DirectRunner", "--direct_num_workers=1"])
    assert _files(tmp_path / "cache") == whole


def test_a_refusal_is_all_that_is_said(tree, write_config, tmp_path):
    """In a process of its own, to which JAX and TensorFlow are new."""
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": "\\ud83d"}\n')
    tree["corpus"] = {"kind": "jsonl", "options": {"path": str(tmp_path / "bad.jsonl")}, "cache": str(tmp_path / "c")}
    command = [*processes.LADDER, "cache", write_config(tree)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"ladder: {tmp_path}/bad.jsonl, line 2: field 'text' holds ")
    assert refused.stderr.count("\n") == 1


def test_other_records_are_refused_and_other_rates_are_not(config, whole, tmp_path):
    parts = json.loads(json.dumps(config.corpus.options["parts"]))

    def cached():
        corpus = dataclasses.replace(config.corpus, options={"parts": parts}, cache=str(tmp_path / "whole"))
        caching.cache(dataclasses.replace(config, corpus=corpus), _silent)

    parts["web"]["rate"] = 7
    cached()
    parts["web"]["options"]["held_out"] = 0.2
    with pytest.raises(ValueError, match=r"whole/web holds other records: options is .*0\.2.*; name another folder"):
        cached()


def test_a_cache_whose_files_have_changed_is_refused_with_what_differs(config, whole, tmp_path):
    at = _at(config, tmp_path / "whole")
    page = (tmp_path / "web" / "0.jsonl.gz").read_bytes()
    (tmp_path / "web" / "more.jsonl.gz").write_bytes(page)
    with pytest.raises(ValueError, match=r"whole/web holds other records: more\.jsonl\.gz: new; name another folder"):
        caching.cache(at, _silent)
    (tmp_path / "web" / "more.jsonl.gz").unlink()
    (tmp_path / "code.jsonl").write_bytes(_lines("CODE"))
    with pytest.raises(ValueError, match=r"whole/code holds other records: code\.jsonl: changed; name"):
        caching.cache(at, _silent)


def test_a_cache_from_before_its_content_was_told_is_read_as_it_is(config, whole, tmp_path):
    path = tmp_path / "whole" / "web" / "origin.json"
    origin = json.loads(path.read_text())
    before = {key: origin[key] for key in ("kind", "options", "vocabulary", "record_length", "shards")}
    path.write_text(json.dumps(before | {"max_records": None}))
    caching.cache(_at(config, tmp_path / "whole"), _silent)
    path.write_text(json.dumps(before | {"max_records": None, "record_length": 3}))
    with pytest.raises(ValueError, match="record_length is 3 there and 16 here"):
        caching.cache(_at(config, tmp_path / "whole"), _silent)


@pytest.mark.parametrize("processes", [1, 2])
def test_documents_without_text_are_left_out_of_a_cache_and_counted(config, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(caching, "ProcessPoolExecutor", _Here)
    with (tmp_path / "code.jsonl").open("a") as file:
        file.write('{"text": ""}\n{"text": " \\n"}\n' * 50)
    events = []
    records = caching.cache(config, events.append, processes=processes)["code"]
    assert [event for event in events if isinstance(event, LeftOut)] == [LeftOut("code", 100)]
    token_R = records[np.arange(len(records))].ravel()
    assert not ((token_R[1:] == 1) & (token_R[:-1] == 1)).any()


def test_a_config_without_a_cache_and_beam_that_is_not_there_are_refused(config, monkeypatch):
    with pytest.raises(ValueError, match=r"no corpus\.cache; name a folder, such as --set corpus\.cache="):
        caching.cache(dataclasses.replace(config, corpus=Corpus()), _silent)
    with pytest.raises(ValueError, match="--processes 0 must be at least 1"):
        caching.cache(config, _silent, processes=0)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'scaling-ladder\[beam\]'"):
        caching.cache(config, _silent, beam=[])


def test_batches_of_a_cached_mixture_hold_its_parts_at_their_rates(config, whole, tmp_path):
    from etils import epath

    folder = epath.Path(tmp_path / "mixture")
    shares = {"web": 0.75, "code": 0.25}
    write_mixture(folder, [Part(rate, str(tmp_path / "whole" / part)) for part, rate in shares.items()])
    batches = data.Batches(folder, 500, seed=3)
    parts = [Records(tmp_path / "whole" / part) for part in ("web", "code")]
    known = [{row.tobytes() for row in part[np.arange(len(part))].astype(np.int32)} for part in parts]
    read = [row.tobytes() for step in range(20) for row in batches(step)]
    counts = [sum(row in part for row in read) for part in known]
    assert sum(counts) >= 10_000 and abs(counts[0] - 7500) <= len(known[0] & known[1]) * 20
    # Each part is read whole before any of it comes again.
    assert set(read[:4000]) >= known[1] and set(read) == known[0] | known[1]
    np.testing.assert_array_equal(batches(7, slice(100, 140)), batches(7)[100:140])


def test_how_far_it_is_is_told_every_few_seconds():
    lines = []
    tell = Caching(lines.append, every_s=0)
    tell(Cached("web", 2, 5, 1_000_000))
    tell(Cached("web", 3, 5))
    assert lines[0].startswith("web: 2 of 5 shards, 1,000,000 tokens, ") and lines[1] == "web: 3 of 5 shards"
    Caching(lines.append)(Cached("web", 4, 5))
    assert len(lines) == 2 and os.sep not in lines[0]
