"""The notebooks run, and give what they are kept with."""

import copy
import html.parser
import pathlib
import re

import nbclient
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"
_NUMBER = re.compile(r"[-−+]?\d[\d,]*(?:\.\d+)?")
_A_MACHINES_FOLDER = re.compile(r"(?:file://|(?<![\w.:/]))/[a-z]\w*/")
_MOST_BYTES = 300_000


class _Text(html.parser.HTMLParser):
    """What a person reads of an output: no style, no drawing."""

    def __init__(self, source):
        super().__init__()
        self.words, self._hidden = [], 0
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self._hidden += tag in ("style", "svg")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "svg")

    def handle_data(self, data):
        if not self._hidden:
            self.words += data.split()


def _said(cell) -> list[str]:
    return [" ".join(_Text(output["data"]["text/html"]).words) for output in cell.outputs]


def _executed(kept, folder: pathlib.Path):
    """The notebook run again, its published testbed read from `folder`."""
    again = copy.deepcopy(kept)
    for cell in again.cells:
        cell.source = cell.source.replace('"../../scaling/exp_data"', repr(str(folder)))
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    return nbclient.NotebookClient(again, timeout=None, kernel_name="python3", resources=resources).execute()


def _assert_gives_what_it_is_kept_with(kept, again, but: str = "") -> None:
    """Every output says the same, in numbers as close as another order of the same runs leaves them."""
    compared = 0
    for old, new in zip(kept.cells, again.cells, strict=True):
        if old.cell_type == "code" and but not in old.metadata.get("tags", []):
            for before, after in zip(_said(old), _said(new), strict=True):
                assert _NUMBER.sub("0", after) == _NUMBER.sub("0", before)
                for was, is_, margin in zip(
                    _NUMBER.findall(before), _NUMBER.findall(after), _margins(before), strict=True
                ):
                    assert _value(is_) == pytest.approx(_value(was), abs=margin), old.id
                compared += 1
    assert compared >= 3


def _margins(text: str) -> list[float]:
    """How far each number may be off: an end of an interval, which is drawn, by a tenth of it, another by 0.5 %."""
    margins, ends = {}, re.compile(rf"({_NUMBER.pattern})(?: %|[kMBT])? to ({_NUMBER.pattern})")
    for number in _NUMBER.finditer(text):
        digits = len(number[0].partition(".")[2])
        margins[number.start()] = max(0.005 * abs(_value(number[0])), 1.5 * 10**-digits)
    for interval in ends.finditer(text):
        low, high = _value(interval[1]), _value(interval[2])
        margins |= {interval.start(end): 0.1 * max(abs(low), abs(high), high - low) for end in (1, 2)}
    return list(margins.values())


def _value(number: str) -> float:
    return float(number.replace("−", "-").replace(",", ""))


def test_the_explorer_gives_what_it_is_kept_with_on_the_table_that_ships(tmp_path):
    kept = nbformat.read(NOTEBOOKS / "explorer.ipynb", as_version=4)
    _assert_gives_what_it_is_kept_with(kept, _executed(kept, tmp_path / "absent"), but="whole")


def test_the_explorer_gives_what_it_is_kept_with_on_all_104_models(shared):
    kept = nbformat.read(NOTEBOOKS / "explorer.ipynb", as_version=4)
    _assert_gives_what_it_is_kept_with(kept, _executed(kept, shared / "testbeds" / "gadre2024"))


def test_the_training_curves_give_what_they_are_kept_with():
    kept = nbformat.read(NOTEBOOKS / "training_curves.ipynb", as_version=4)
    _assert_gives_what_it_is_kept_with(kept, _executed(kept, pathlib.Path()))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_kept_small_whole_and_without_a_place_of_its_own(path):
    text = path.read_text()
    kept = nbformat.reads(text, as_version=4)
    assert len(text) < _MOST_BYTES and not _A_MACHINES_FOLDER.search(text.replace("\\n", "\n"))
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)) and all(c.outputs for c in kept.cells if c.cell_type == "code")
