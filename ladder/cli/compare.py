"""The verb that compares the laws of two ladders."""

from typing import Annotated

from tyro.conf import Positional, arg

from ladder import storage
from ladder.cli import tables
from ladder.cli.arguments import Json, law_file, named_numbers, print_json, to_person, warn_of_strays
from ladder.cli.quick import quick


@quick
def compare(
    law_a: Annotated[Positional[str], arg(metavar="LAW_A", help="law.json of one ladder, or its folder")],
    law_b: Annotated[Positional[str], arg(metavar="LAW_B", help="that of the other, fitted to the same loss")],
    *,
    params: Annotated[float | None, arg(metavar="N", help="parameters as the laws count them, such as 7e9")] = None,
    tokens: Annotated[float | None, arg(metavar="D", help="training tokens, such as 140e9")] = None,
    budget_flops: Annotated[
        float | None, arg(metavar="C", help="instead: training compute, 6ND, spent as each law holds to be best")
    ] = None,
    given: Annotated[
        tuple[str, ...], arg(metavar="NAME=VALUE", help="what else the laws are of, such as unique_tokens=100e9")
    ] = (),
    out: Annotated[
        str | None, arg(metavar="DIR", help="folder of the report: comparison.html, .md, .json and figures")
    ] = None,
    json: Json = False,
) -> None:
    """Tell which of two ladders' recipes is better at a size, how surely, and by how much compute."""
    from fitting.artifacts import fitted
    from fitting.comparison import compare
    from fitting.prediction import ladder_of
    from fitting.reports import compared as reporting

    a, b = (fitted.load(law_file(place)) for place in (law_a, law_b))
    columns = named_numbers(given, ("params", "tokens"))
    compared = compare(a, b, params=params, tokens=tokens, budget_flops=budget_flops, columns=columns)
    asked = {"params": params, "tokens": tokens, "flops": budget_flops, **columns}
    of_a, of_b = ladder_of(a), ladder_of(b)
    both = {name: [*of_a.get(name, ()), *of_b.get(name, ())] for name in {**of_a, **of_b}}
    warn_of_strays({name: value for name, value in asked.items() if value is not None}, both)
    if out:
        report = reporting.write(compared, a, b, storage.place(out), names=(law_a, law_b))
        to_person.print(f"report: {report}")
    if json:
        print_json({name: value for name, value in reporting.as_data(compared).items() if name != "along"})
    else:
        tables.print_comparison(compared, to_person)
