"""Templates filled in: HTML, Markdown and LaTeX."""

import re
from collections.abc import Callable
from typing import Any

from fitting.laws import latex
from fitting.reports import words


def render(template: str, **context: Any) -> str:
    """A template of this package, filled in; numbers in it are set as `fitting.reports.words` says."""
    import jinja2

    marks: dict[str, Any] = {"block_start_string": "<%", "block_end_string": "%>", "variable_start_string": "<<"}
    marks |= {"variable_end_string": ">>", "comment_start_string": "<#", "comment_end_string": "#>"}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fitting.reports"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        **(marks if template.endswith(".tex.j2") else {}),  # braces are LaTeX's own
    )
    filters: dict[str, Callable[..., str]] = {
        name: getattr(words, name)
        for name in (
            "number",
            "short",
            "flops",
            "fixed",
            "percent",
            "span",
            "dollars",
            "plus_minus",
            "plain",
            "escape_tex",
        )
    }
    environment.filters |= filters | {"cell": _cell, "tex": latex.number}
    return environment.get_template(template).render(**context)


def _cell(value: Any) -> str:
    """One line of Markdown that shows `value` as it is: nothing in it is read as markup or HTML."""
    line = re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", " ".join(str(value).split()))
    return line.replace("&", "&amp;").replace("<", "&lt;")
