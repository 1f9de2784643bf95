"""Text from a trained model, as it comes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

import jax

from ladder import quiet
from ladder.evaluation import trained
from ladder.training import execution
from ladder.training import mesh as meshes
from models import sample
from models.sample import Sampling
from tasks.text import vocab


def generate(
    checkpoint: str, prompts: Sequence[str], sampling: Sampling, *, max_tokens: int, seed: int
) -> Iterator[tuple[str, ...]]:
    """Goes on from prompts until the text ends, `max_tokens` are there or the model's context is full.

    An empty prompt begins a new text.

    Args:
      checkpoint: a folder that `ladder convert` wrote, or `<workdir>/runs/<run>`, local or gs://.
      prompts: all are continued at once.
      sampling: how the next token is chosen.
      max_tokens: most new tokens of each text.
      seed: the same one gives the same texts.

    Yields:
      What follows each prompt so far.

    Raises:
      ValueError: if the folder holds no model or one of unknown vocabulary, or a prompt cannot be continued.
    """
    model, params = trained.load(checkpoint)
    mesh = meshes.make(devices=list(jax.tree.leaves(params)[0].devices()))
    if not model.vocabulary:
        raise ValueError(f"{checkpoint} does not name its vocabulary; convert it again with --vocabulary")
    quiet.import_tensorflow()
    vocabulary = vocab.load(model.vocabulary)
    token_lists = [list(vocabulary.encode(prompt)) for prompt in prompts]
    # Decoded together with the prompt: some vocabularies write a token otherwise where a text begins.
    heads = [vocabulary.decode(tokens) for tokens in token_lists]
    new = sample.generate(
        params,
        model.decoder,
        [tokens or [vocabulary.eos_id] for tokens in token_lists],
        sampling,
        context=model.sequence_length,
        max_tokens=max_tokens,
        end_id=vocabulary.eos_id,
        seed=seed,
        execution=execution.on(mesh, execution.attention("auto", model.decoder, mesh), split_rows=False),
    )
    texts = tuple("" for _ in prompts)
    for chunks in new:
        for tokens, chunk in zip(token_lists, chunks, strict=True):
            tokens += [token for token in chunk if token != vocabulary.eos_id]
        texts = tuple(vocabulary.decode(tokens)[len(head) :] for tokens, head in zip(token_lists, heads, strict=True))
        # The mark of half a character waits for its other half.
        yield tuple(text.rstrip("\ufffd") for text in texts)
    yield texts


def write(prompts: Sequence[str], growing_texts: Iterable[tuple[str, ...]], file: TextIO) -> None:
    """Writes each prompt with what follows it: the first one while it grows, the others below it at the end."""
    written = 0
    for texts in growing_texts:
        whole = prompts[0] + texts[0]
        file.write(whole[written:])
        file.flush()
        written = len(whole)
    file.write("\n")
    for prompt, text in zip(prompts[1:], texts[1:], strict=True):
        file.write(f"\n{prompt}{text}\n")
