"""Arguments that several verbs have."""

from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

ConfigPath = Annotated[Positional[str], arg(metavar="CONFIG", help="YAML file of a ladder, such as configs/demo.yaml")]
Run = Annotated[str, arg(metavar="NAME", help="one run, as `ladder plan` names it")]
WorkdirPath = Annotated[str, arg(metavar="DIR", help="folder of all results, local or gs://bucket/path")]
Json = Annotated[FlagCreatePairsOff[bool], arg(help="print JSON on stdout")]
Overrides = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(name="set", metavar="KEY=VALUE", help="override a value of the config, such as seed=1"),
]
