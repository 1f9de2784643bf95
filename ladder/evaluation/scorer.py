"""Questions → losses of their answers, on the mesh: batched by length, contexts read once for all their choices.

Shapes: B questions, C choices, P tokens of what a question's choices share, S of what they do not, V vocabulary.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ladder.config import Attention
from ladder.training import execution
from ladder.training import mesh as meshes
from models.cache import Cache
from models.config import DecoderConfig
from models.decoder import Decoder
from models.loss import token_losses
from tasks.questions import scoring
from tasks.questions.questions import Question, rows_of

TOKENS_PER_DEVICE = 8192
LOGITS_PER_DEVICE = 2**27  # half a gigabyte
WINDOW_QUESTIONS = 1024  # sorted by length before they are cut into batches
SHORTEST_SHARED_TOKENS = 32  # fewer are read again with each choice
SHORTEST_OWN_TOKENS = 16
BATCHES_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Scored:
    """Questions' rows, one a choice, and what the model says of each row's answer.

    Attributes:
      rows: what was asked.
      loss_sum_N: of the answer's tokens, nats.
      square_sum_N: of their losses' squares, nats squared.
      likeliest_N: of each row, the likeliest token at the place of each of the answer's.
      greedy_N: whether those are the answer's own.
    """

    rows: scoring.Rows
    loss_sum_N: np.ndarray
    square_sum_N: np.ndarray
    likeliest_N: tuple[np.ndarray, ...]
    greedy_N: np.ndarray


class Scorer:
    """Scores questions with one model, any number of tasks in turn; each shape of batch is compiled once.

    Args:
      config: of the decoder.
      params: its parameters, on the mesh.
      mesh: over whose devices the questions of a batch are split.
      attention: `plain` writes the softmax out where `auto` would take the machine's kernel.
      tokens_per_device: in a batch; changes the time and the memory it takes, and no score beyond rounding.
    """

    def __init__(
        self,
        config: DecoderConfig,
        params: Any,
        mesh: Mesh,
        attention: Attention = "auto",
        tokens_per_device: int = TOKENS_PER_DEVICE,
    ):
        self._config, self._params, self._tokens_per_device = config, params, tokens_per_device
        self._shares = mesh.shape["data"] * mesh.shape["fsdp"]
        self._sharding = meshes.batch_sharding(mesh)
        everywhere = NamedSharding(mesh, PartitionSpec())  # so that each host of a slice can read it
        decoder = Decoder(config, execution.on(mesh, execution.attention(attention, config, mesh)))
        self._token_losses = jax.jit(partial(answer_losses, decoder), out_shardings=everywhere)

    def __call__(self, questions: Iterable[Question], progress: Callable[[int], None] = lambda done: None) -> Scored:
        """Scores one task's questions.

        Args:
          questions: read, and so tokenised, in a thread of their own while the devices work.
          progress: called now and then with the number of questions scored.
        """
        asked, scored, done, pending = [], {}, 0, collections.deque[tuple[Batch, tuple[jax.Array, jax.Array]]]()

        def finish() -> int:
            batch, losses = pending.popleft()
            loss_BxCxS, likeliest_BxCxS = jax.device_get(losses)
            for row, packed in enumerate(batch.packed):
                scored[packed.index] = packed.answers(loss_BxCxS[row], likeliest_BxCxS[row])
            return len(batch.packed)

        def remembered() -> Iterator[Question]:
            for question in questions:
                asked.append(dataclasses.replace(question, contexts=()))
                yield question

        for batch in _ahead(self._batches(remembered())):
            arrays = jax.device_put((batch.shared_BxP, batch.start_B, batch.own_BxCxT), self._sharding)
            pending.append((batch, self._token_losses(self._params, *arrays)))
            if len(pending) > 1:
                done += finish()
                progress(done)
        while pending:
            done += finish()
        progress(done)
        rows = [row for index in range(done) for row in scored[index]]
        loss_sum_N, square_sum_N = np.array([row[:2] for row in rows], np.float64).reshape(-1, 2).T
        likeliest_N = tuple(likeliest for _, _, likeliest in rows)
        answers = (answer for question in asked for answer in question.answers)
        greedy_N = [np.array_equal(*pair) for pair in zip(likeliest_N, answers, strict=True)]
        return Scored(rows_of(asked), loss_sum_N, square_sum_N, likeliest_N, np.array(greedy_N, bool))

    def _batches(self, questions: Iterable[Question]) -> Iterator["Batch"]:
        packed = (Packed.of(index, question) for index, question in enumerate(questions))
        while window := list(itertools.islice(packed, WINDOW_QUESTIONS)):
            window.sort(key=lambda p: p.shape, reverse=True)
            while window:
                batch = self._first(window)
                yield batch
                window = window[len(batch.packed) :]

    def _first(self, window: Sequence["Packed"]) -> "Batch":
        """The batch that the longest question is in."""
        count, shape = 1, window[0].shape
        while count < len(window):
            wider = tuple(map(max, shape, window[count].shape))
            if count + 1 > self._rows(wider):
                break
            count, shape = count + 1, wider
        return Batch.of(window[:count], self._rows(shape), shape)

    def _rows(self, shape: tuple[int, ...]) -> int:
        shared, own, choices = shape
        per_device = min(
            self._tokens_per_device // (shared + choices * own), LOGITS_PER_DEVICE // (own * self._config.vocab_size)
        )
        return max(1, per_device) * self._shares


@dataclasses.dataclass(frozen=True)
class Packed:
    """A question, parted into what its choices share and what they do not.

    Attributes:
      index: of the question.
      shared: the tokens that all choices begin with.
      own: of each different choice, the rest of its context, one token or more, and its answer.
      place: of each choice, which of `own` it is: equal choices must have equal losses, to the last bit.
      answer_tokens: of each choice.
    """

    index: int
    shared: np.ndarray
    own: tuple[np.ndarray, ...]
    place: tuple[int, ...]
    answer_tokens: tuple[int, ...]

    @classmethod
    def of(cls, index: int, question: Question) -> "Packed":
        """The question, parted."""
        first, *others = question.contexts
        shared = min(map(len, question.contexts)) - 1
        for other in others:
            differing = np.flatnonzero(first[:shared] != other[:shared])
            shared = int(differing[0]) if len(differing) else shared
        if shared < SHORTEST_SHARED_TOKENS:
            shared = 0
        rests = [
            np.concatenate([context[shared:], answer])
            for context, answer in zip(question.contexts, question.answers, strict=True)
        ]
        unlike = {rest.tobytes(): rest for rest in rests}
        places = {key: place for place, key in enumerate(unlike)}
        return cls(
            index,
            first[:shared],
            tuple(unlike.values()),
            tuple(places[rest.tobytes()] for rest in rests),
            tuple(map(len, question.answers)),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """P, S and C of the smallest batch that holds it."""
        own = _bucket(max(map(len, self.own)) - 1, SHORTEST_OWN_TOKENS)
        shared = len(self.shared) and _bucket(len(self.shared), SHORTEST_SHARED_TOKENS, halves=True)
        return shared, own, len(self.own)

    def answers(self, loss_CxS: np.ndarray, likeliest_CxS: np.ndarray) -> list[tuple[float, float, np.ndarray]]:
        """Each choice's sum of losses, sum of squared losses, and the likeliest tokens in its answer's place."""
        told = []
        for place, tokens in zip(self.place, self.answer_tokens, strict=True):
            end = len(self.own[place]) - 1
            loss_S = loss_CxS[place, end - tokens : end].astype(np.float64)
            told.append((loss_S.sum(), np.square(loss_S).sum(), likeliest_CxS[place, end - tokens : end].copy()))
        return told


@dataclasses.dataclass(frozen=True)
class Batch:
    """Questions of similar length as arrays of a few shapes, the last question repeated where there are too few.

    `shared_BxP` is padded on the left, up to `start_B`; `own_BxCxT` on the right, T = S + 1.
    """

    packed: Sequence[Packed]
    shared_BxP: np.ndarray
    start_B: np.ndarray
    own_BxCxT: np.ndarray

    @classmethod
    def of(cls, packed: Sequence[Packed], rows: int, shape: tuple[int, ...]) -> "Batch":
        """The batch of these questions, and copies of the last up to so many rows."""
        shared, own, choices = shape
        shared_BxP = np.zeros((rows, shared), np.int32)
        start_B = np.full(rows, shared, np.int32)
        own_BxCxT = np.zeros((rows, choices, own + 1), np.int32)
        for row in range(rows):
            p = packed[min(row, len(packed) - 1)]
            start_B[row] -= len(p.shared)
            shared_BxP[row, start_B[row] :] = p.shared
            for choice, tokens in enumerate(p.own):
                own_BxCxT[row, choice, : len(tokens)] = tokens
        return cls(packed, shared_BxP, start_B, own_BxCxT)


def answer_losses(
    decoder: Decoder, params: Any, shared_BxP: jax.Array, start_B: jax.Array, own_BxCxT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats of every token of `own_BxCxT` but the first, and the likeliest in its place: (B, C, S)."""
    apply: Callable[..., Any] = partial(decoder.apply, {"params": params})
    batch, choices, length = own_BxCxT.shape

    def losses(own_RxT: jax.Array, cache: Cache | None) -> tuple[jax.Array, jax.Array]:
        logits = apply(own_RxT[:, :-1], cache)
        logits_RxSxV = logits if cache is None else logits[0]
        loss_RxS, _ = token_losses(logits_RxSxV, own_RxT[:, 1:])
        return loss_RxS, logits_RxSxV.argmax(-1)

    if not shared_BxP.shape[1]:
        flat = losses(own_BxCxT.reshape(-1, length), None)
        return jax.tree.map(lambda x: x.reshape(batch, choices, -1), flat)
    cache = Cache.empty(decoder.config, start_B, shared_BxP.shape[1] + length - 1)
    _, cache = apply(shared_BxP, cache)
    # Choices take turns on the one cache: copies of it for all of them would be most of a large model's memory.
    by_choice = jax.lax.map(partial(losses, cache=cache), own_BxCxT.swapaxes(0, 1))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), by_choice)


def _bucket(tokens: int, shortest: int, halves: bool = False) -> int:
    """The next power of two, or where `halves` are wanted one and a half of one, so that few shapes are compiled."""
    power = max(shortest, 1 << (tokens - 1).bit_length())
    return power * 3 // 4 if halves and shortest < tokens <= power * 3 // 4 else power


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, made in a thread of its own, a few ahead."""
    with ThreadPoolExecutor(1) as pool:
        coming = collections.deque(pool.submit(next, batches, None) for _ in range(BATCHES_AHEAD))
        while (batch := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, batches, None))
            yield batch
