"""The house stays easy to see: small rooms, and pages whose links lead somewhere."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


def test_no_folder_holds_more_than_twenty_modules():
    modules = [path for room in ("ladder", "models", "tasks", "fitting") for path in (ROOT / room).rglob("*.py")]
    crowded = {str(folder) for folder in {path.parent for path in modules} if len(list(folder.glob("*.py"))) > 20}
    assert modules and not crowded


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_links_and_the_files_it_names_are_there(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    rooms = r"`((?:ladder|models|tasks|fitting|tests|benchmarks|configs|docs)/[\w./-]*\w/?)`"
    missing += [name for name in re.findall(rooms, text) if not (ROOT / name).exists()]
    assert not missing
