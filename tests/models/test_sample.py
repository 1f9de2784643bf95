"""Generation: greedily what the full forward pass gives, sampled as the softmax says, and every way to end."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoders import attend_causally, distinct_params
from models import sample
from models.config import DecoderConfig
from models.decoder import Decoder
from models.execution import Execution
from models.sample import TOKENS_PER_DISPATCH, Sampling, choose, generate

CONFIG = DecoderConfig(width=16, layers=2, heads=4, vocab_size=29, ffn_multiple=8)
OTHER = DecoderConfig(
    width=24, layers=2, heads=6, vocab_size=29, ffn_multiple=8, norm="rms", key_heads=2, tied_embeddings=True
)
PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5]]
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def params():
    return distinct_params(CONFIG, seed=0)


def texts(params, prompts, sampling=GREEDY, config=CONFIG, context=100, max_tokens=40, **options):
    """All of what `generate` gives of each row."""
    chunks = list(generate(params, config, prompts, sampling, context=context, max_tokens=max_tokens, **options))
    return [list(itertools.chain(*row)) for row in zip(*chunks, strict=True)]


def greedy_by_full_passes(params, config, prompt, tokens):
    """Reads the whole text anew for each token."""
    apply = jax.jit(Decoder(config).apply)
    text_L = np.zeros(len(prompt) + tokens, np.int32)
    text_L[: len(prompt)] = prompt
    for length in range(len(prompt), len(text_L)):
        text_L[length] = apply({"params": params}, text_L[None])[0, length - 1].argmax()
    return text_L[len(prompt) :].tolist()


@pytest.mark.parametrize("config", [CONFIG, OTHER], ids=["paper", "alternatives"])
def test_greedily_every_row_is_what_full_passes_give(config):
    params = distinct_params(config, seed=1)
    expected = [greedy_by_full_passes(params, config, prompt, 40) for prompt in PROMPTS]
    assert texts(params, PROMPTS, config=config) == expected
    assert len({*itertools.chain(*expected)}) > 5


def test_prompts_read_by_a_kernel_go_on_in_the_same_way(params):
    by_kernel = texts(params, PROMPTS, execution=Execution(attend=attend_causally))
    assert by_kernel == texts(params, PROMPTS)


def test_a_row_ends_with_the_end_of_text_and_the_others_go_on(params):
    endless = texts(params, PROMPTS)
    # An end that one row meets midway and, if it can be, another one later or never.
    end_id = endless[0][TOKENS_PER_DISPATCH + 3]
    until = [row[: row.index(end_id) + 1] if end_id in row else row for row in endless]
    assert texts(params, PROMPTS, end_id=end_id) == until
    assert len({len(row) for row in until}) > 1


@pytest.mark.parametrize("max_tokens", [1, TOKENS_PER_DISPATCH, TOKENS_PER_DISPATCH + 1])
def test_no_row_gets_more_than_asked(params, max_tokens):
    assert texts(params, PROMPTS, max_tokens=max_tokens) == [row[:max_tokens] for row in texts(params, PROMPTS)]


def test_a_row_ends_where_the_context_is_full(params):
    assert [len(row) for row in texts(params, PROMPTS, context=9)] == [2, 8, 6]


def test_tokens_come_while_the_text_grows(params):
    first = next(iter(generate(params, CONFIG, PROMPTS, GREEDY, context=4000, max_tokens=3000)))
    assert [len(row) for row in first] == [TOKENS_PER_DISPATCH] * 3


def test_what_a_row_draws_depends_on_the_seed_and_not_on_its_neighbours(params):
    alone = texts(params, PROMPTS[:1], Sampling(), seed=5)
    beside = texts(params, [PROMPTS[0], list(range(20)) * 4], Sampling(), seed=5)
    assert alone[0] == beside[0]
    assert alone != texts(params, PROMPTS[:1], Sampling(), seed=6)
    twice = texts(params, [PROMPTS[0]] * 2, Sampling(), seed=5)
    assert twice[0] != twice[1]


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [(Sampling(1.0), 5), (Sampling(0.5), 5), (Sampling(1.0, top_p=0.8), 3), (Sampling(1.0, top_p=1e-6), 1)],
)
def test_tokens_are_drawn_as_often_as_their_share_of_what_is_kept(sampling, kept):
    probability_V = np.array([0.1, 0.4, 0.05, 0.25, 0.2])  # 0.4 and 0.25 are less than 0.8 together, with 0.2 more
    draws = 4000
    logits_BxV = jnp.tile(jnp.log(probability_V), (draws, 1))
    token_B = jax.jit(lambda logits: choose(sampling, logits, 3, jnp.zeros(draws, int)))(logits_BxV)
    expected_V = probability_V ** (1 / sampling.temperature)
    expected_V[np.argsort(-probability_V)[kept:]] = 0
    expected_V /= expected_V.sum()
    drawn_V = np.bincount(token_B, minlength=5) / draws
    assert (drawn_V[expected_V == 0] == 0).all()
    np.testing.assert_allclose(drawn_V, expected_V, atol=4 * 0.5 / draws**0.5)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "there is no prompt"),
        ([[1], []], {}, "prompt 1 has no tokens"),
        ([[1] * 12], {}, "prompt 0 has 12 tokens and fills the context of 12"),
        ([[1, 29]], {}, "holds id 29, which is outside the vocabulary of 29"),
        ([[-1]], {}, "holds id -1"),
        ([[1]], {"max_tokens": 0}, "max_tokens 0"),
        ([[1]], {"seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_continued_is_refused(params, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        texts(params, prompts, context=12, **options)


def test_lengths_share_what_was_compiled_and_waste_little():
    lengths = [sample._rounded_up(tokens) for tokens in range(5000)]
    assert all(tokens <= length <= max(1.25 * tokens, tokens + 7) for tokens, length in enumerate(lengths))
    assert len({*lengths}) < 40


@pytest.mark.parametrize("wrong", [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.1}])
def test_impossible_sampling_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
