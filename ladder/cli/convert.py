"""The verbs of `ladder convert`: models of other programs into ours, and ours into theirs."""

from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from ladder.cli.arguments import to_person

Out = Annotated[str, arg(metavar="DIR", help="folder to write, local or gs://bucket/path")]
Vocabulary = Annotated[
    str | None, arg(metavar="NAME", help="bytes, ascii, a tokenizer.json, a SentencePiece model or a Hugging Face name")
]

app = tyro.extras.SubcommandApp()


@app.command(name="open-lm")
def open_lm(
    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT.pt", help="open_lm's epoch_<number>.pt")],
    *,
    out: Out,
    params: Annotated[str | None, arg(metavar="params.txt", help="open_lm's settings, or its model's JSON")] = None,
    vocabulary: Vocabulary = None,
) -> None:
    """Import an open_lm checkpoint."""
    from ladder.evaluation import convert

    _say_what(convert.from_open_lm(checkpoint, params, out, vocabulary, _say), out)


@app.command(name="hugging-face")
def hugging_face(
    *,
    checkpoint: Annotated[str, arg(metavar="DIR", help="a converted model, or <workdir>/runs/<run>")],
    out: Out,
    vocabulary: Vocabulary = None,
) -> None:
    """Export a model to transformers, vLLM and the evaluation harness."""
    from ladder.evaluation import convert

    name = convert.to_hugging_face(checkpoint, out, vocabulary, _say)
    _say(f"{out}: {name}; transformers opens it with AutoModelForCausalLM.from_pretrained")


@app.command(name="from-hugging-face")
def from_hugging_face(
    source: Annotated[Positional[str], arg(metavar="DIR", help="folder of config.json and safetensors")],
    *,
    out: Out,
    vocabulary: Vocabulary = None,
) -> None:
    """Import a model of transformers: Llama, Mistral, Qwen3, or OLMoE with one expert."""
    from ladder.evaluation import convert

    _say_what(convert.from_hugging_face(source, out, vocabulary, _say), out)


def _say_what(model, out: str) -> None:
    from models import accounting

    c = model.decoder
    _say(f"{out}: {accounting.params(c):,} parameters, {c.layers} layers of width {c.width}, {c.vocab_size:,} ids")


def _say(line: str) -> None:
    to_person.print(line)
