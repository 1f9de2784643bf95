"""torch.save's files are read exactly, and nothing in them is run."""

import collections
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_files
from models.convert import torch_file
from torch_files import Storage, Tensor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


@pytest.mark.parametrize("dtype", [*torch_files.STORAGES], ids=str)
def test_tensors_of_every_type_come_back_bit_for_bit(path, dtype):
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    torch_files.write(path, {"a": array, "deep": [1, 2.5, None, "text", {"b": array[0]}]})
    loaded = torch_file.load(path)
    np.testing.assert_array_equal(loaded["a"], array)
    assert loaded["a"].dtype == dtype
    np.testing.assert_array_equal(loaded["deep"][-1]["b"], array[0])
    assert loaded["deep"][:-1] == [1, 2.5, None, "text"]


def test_strides_offsets_and_shared_storages_are_honoured(path):
    flat = np.arange(24, dtype=np.float32)
    storage = Storage(flat, "0")
    table, turned = Tensor(storage, 0, (4, 6), (6, 1)), Tensor(storage, 0, (6, 4), (1, 6))
    corner, repeated = Tensor(storage, 8, (2, 3), (6, 2)), Tensor(storage, 5, (3, 2), (0, 1))
    torch_files.write(
        path, [table, turned, corner, repeated, Tensor(storage, 24, (0,), (1,)), Tensor(storage, 7, (), ())]
    )
    table, turned, corner, repeated, empty, scalar = torch_file.load(path)
    expected = flat.reshape(4, 6)
    np.testing.assert_array_equal(table, expected)
    np.testing.assert_array_equal(turned, expected.T)
    np.testing.assert_array_equal(corner, [[8, 10, 12], [14, 16, 18]])
    np.testing.assert_array_equal(repeated, [[5, 6]] * 3)
    assert empty.shape == (0,) and scalar == 7
    assert np.shares_memory(table, turned)
    assert not table.flags.writeable


def test_a_state_dict_with_its_versions_and_numpys_numbers_beside_it(path):
    state_dict = collections.OrderedDict(weight=np.ones(2, np.float32))
    state_dict._metadata = collections.OrderedDict(version=1)
    torch_files.write(path, {"state_dict": state_dict, "loss": np.float64(2.5), "steps": np.int64(7)})
    loaded = torch_file.load(path)
    assert (loaded["loss"], loaded["steps"]) == (2.5, 7)
    assert list(loaded["state_dict"]) == ["weight"]


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        lambda mark: Calls(os.mkdir, mark),
        lambda mark: Calls(eval, f"__import__('os').mkdir({mark!r})"),
        lambda mark: Calls(getattr, "", "join"),
        lambda mark: collections.OrderedDict(a=Calls(os.mkdir, mark)),
    ],
    ids=["mkdir", "eval", "getattr", "inside a container"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_anything_else_is_refused_and_not_run(path, tmp_path, call, protocol):
    mark = str(tmp_path / "mark")
    torch_files.write_members(path, pickle.dumps({"state_dict": call(mark)}, protocol), {})
    with pytest.raises(ValueError, match=r"checkpoint\.pt: asks for .*, which does not belong in a state dict"):
        torch_file.load(path)
    assert not os.path.exists(mark)


def test_allowed_functions_cannot_be_changed(path):
    changing = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xsb."
    torch_files.write_members(path, changing, {})
    with pytest.raises(ValueError, match="sets the state of a function"):
        torch_file.load(path)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (7,), (1,)), (5, (2,), (1,)), (0, (2, 4), (3, 1)), (-1, (2,), (1,)), (3, (2,), (-1,)), (0, (2, 2), (1,))],
)
def test_a_tensor_that_reaches_past_its_storage_is_refused(path, offset, size, stride):
    torch_files.write(path, Tensor(Storage(np.zeros(6, np.float32), "0"), offset, size, stride))
    with pytest.raises(ValueError, match=r"checkpoint\.pt: (a tensor needs|no tensor has)"):
        torch_file.load(path)


def test_objects_among_numpys_numbers_are_refused(path):
    torch_files.write(path, {"a": Calls(np.dtype, "O")})
    with pytest.raises(ValueError, match="numpy object of type O"):
        torch_file.load(path)


def test_a_storage_of_another_length_is_refused(path):
    torch_files.write(path, np.zeros(6, np.float32))
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("archive/data.pkl")
    torch_files.write_members(path, pickled, {"0": b"\0" * 20})
    with pytest.raises(ValueError, match="storage 0 has 20 bytes, not 6 elements of float32"):
        torch_file.load(path)
    torch_files.write_members(path, pickled, {})
    with pytest.raises(ValueError, match="data/0"):
        torch_file.load(path)


def test_files_of_other_formats_are_refused(path):
    path.write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(ValueError, match="not a zip archive"):
        torch_file.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ValueError, match=r"holds no data\.pkl"):
        torch_file.load(path)
    torch_files.write_members(path, pickle.dumps({}, 2), {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is compressed"):
        torch_file.load(path)


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "checkpoint.pt"
    torch_files.write(path, {"state_dict": {"a": np.arange(6, dtype=np.float32)}, "loss": np.float64(1)})
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))])
    try:
        torch_file.load(path)
    except ValueError as error:
        assert str(path) in str(error)


def test_what_pytorch_saves_is_what_is_read(path):
    torch = pytest.importorskip("torch", reason="PyTorch is only needed to compare with it")
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    saved = {
        "module": torch.nn.Linear(3, 4).state_dict(),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "transposed": base.T,
        "slice": base[1::2, 3:],
        "expanded": base[0].expand(3, 8),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 5),
        "bool": torch.tensor([True, False]),
        **{str(dtype): torch.arange(5).to(dtype) for dtype in (torch.bfloat16, torch.half, torch.double, torch.int8)},
        **{str(dtype): torch.arange(5).to(dtype) for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)},
        "tied": [base, base.view(-1)],
    }
    torch.save(saved, path)
    loaded = torch_file.load(path)
    np.testing.assert_array_equal(loaded["module"]["weight"], saved["module"]["weight"])
    for name in saved.keys() - {"module", "tied"}:
        ours, theirs = loaded[name], saved[name].detach()
        assert ours.shape == tuple(theirs.shape)
        if theirs.dtype == torch.bfloat16:
            assert ours.dtype == ml_dtypes.bfloat16
            theirs = theirs.float()
        else:
            assert ours.dtype == theirs.numpy().dtype
        np.testing.assert_array_equal(ours.astype(theirs.numpy().dtype), theirs.numpy())
    assert np.shares_memory(*loaded["tied"])
    assert loaded["tied"][0].__array_interface__["data"] == loaded["tied"][1].__array_interface__["data"]
