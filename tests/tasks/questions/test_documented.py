"""docs/evaluation.md names the files that are read, no more and no fewer, and the fields of their rows."""

import re

from tasks.questions.gauntlet import FIELDS, GAUNTLET


def test_the_files_and_fields_that_are_read_are_documented(request):
    text = (request.config.rootpath / "docs" / "evaluation.md").read_text()
    folders = {folder: names.split(", ") for folder, names in re.findall(r"^\| `(\w+)/` \| ([\w, ]+) \|$", text, re.M)}
    documented = {f"{folder}/{name}.jsonl" for folder, names in folders.items() for name in names}
    assert documented == {task.file for task in GAUNTLET.values()}
    for type_, fields in FIELDS.items():
        (row,) = re.findall(rf"^\| `{type_}` \| (.*) \|$", text, re.M)
        assert set(re.findall(r"`(\w+)`", row)) == set(fields)
    renamed = {task.name for task in GAUNTLET.values() if not task.file.endswith(f"/{task.name}.jsonl")}
    assert all(f"`{name}`" in text for name in renamed)
