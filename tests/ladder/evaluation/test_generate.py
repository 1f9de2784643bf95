"""`ladder generate`: text in, text out as it comes, from a saved model."""

import io
import json

import jax
import numpy as np
import pytest
from etils import epath

from decoders import distinct_params
from ladder.evaluation.generate import generate, write
from models import saved
from models.config import DecoderConfig
from models.sample import Sampling
from models.saved import SavedModel

CONFIG = DecoderConfig(width=16, layers=1, heads=2, vocab_size=259, ffn_multiple=8)
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def params():
    """A model that says é after é, in two bytes, and the end of text after anything else."""
    params = jax.tree.map(np.zeros_like, distinct_params(CONFIG, seed=0))
    params["norm"]["gain"] += 1
    first, second = (byte + 3 for byte in "é".encode())
    params["embedding"][:, 0] = params["output"][0, 1] = 1
    params["embedding"][first] = np.eye(16)[1]
    params["embedding"][second] = np.eye(16)[2]
    params["output"][1, second] = params["output"][2, first] = 1
    return params


@pytest.fixture(scope="module")
def checkpoint(params, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "saved"
    saved.save(SavedModel(CONFIG, "bytes", 20), params, epath.Path(folder))
    return str(folder)


def test_the_text_is_decoded_whole_characters_at_a_time(checkpoint):
    growing = list(generate(checkpoint, ["é", "x", ""], GREEDY, max_tokens=17, seed=0))
    assert growing[0] == ("é" * 8, "", "")
    assert growing[-1] == ("é" * 8, "", "")


def test_the_first_text_is_written_while_it_grows_and_the_others_below():
    file = io.StringIO()
    seen = []

    def growing():
        for texts in [("b", "y"), ("bc", "yz"), ("bc", "yz!")]:
            seen.append(file.getvalue())
            yield texts

    write(["a", "x"], growing(), file)
    assert seen == ["", "ab", "abc"]
    assert file.getvalue() == "abc\n\nxyz!\n"


def test_the_verb_prints_texts_or_json(checkpoint, ladder_, capsys):
    greedy = ["generate", "--checkpoint", checkpoint, "--prompt", "aé", "--temperature", "0", "--max-tokens", "4"]
    ladder_(*greedy)
    assert capsys.readouterr().out == "aééé\n"
    ladder_(*greedy, "--prompt", "x", "--json")
    assert json.loads(capsys.readouterr().out) == [{"prompt": "aé", "text": "éé"}, {"prompt": "x", "text": ""}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a" * 20], "prompt 0 has 20 tokens and fills the context of 20"),
        (["--prompt", "a", "--temperature", "-1"], "temperature -1.0"),
        ([], "there is no prompt"),
    ],
)
def test_the_verb_refuses_in_one_line(checkpoint, ladder_, arguments, message):
    with pytest.raises(SystemExit) as refusal:
        ladder_("generate", "--checkpoint", checkpoint, *arguments)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_model_of_unknown_vocabulary_is_refused(params, tmp_path):
    saved.save(SavedModel(CONFIG, "", 20), params, epath.Path(tmp_path / "model"))
    with pytest.raises(ValueError, match="does not name its vocabulary"):
        list(generate(str(tmp_path / "model"), ["a"], GREEDY, max_tokens=4, seed=0))
