"""One sealed file: what comes back is what went in, and any damage is found."""

import contextlib
import os
import pickle
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlweights.errors import CheckpointError
from rlweights.running.saving import checkpoint_file
from rlweights.running.saving.checkpoint_file import load, save
from support.checkpointed import METADATA, TENSORS, names, same

# What comes back is what went in ------------------------------------------------------------------


EXACT = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"


def arrays() -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    finite = {"allow_nan": False, "allow_infinity": False}
    small = {"min_value": -(2.0**100), "max_value": 2.0**100}  # rounds to finite bfloat16
    dtypes = [np.dtype(name) for name in EXACT.split()]
    return st.one_of(
        *(hnp.arrays(dtype, shapes, elements=finite if dtype.kind == "f" else None) for dtype in dtypes),
        hnp.arrays(np.float32, shapes, elements=small).map(lambda a: a.astype(ml_dtypes.bfloat16)),
    )


TENSOR_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda n: n != "__metadata__"
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TENSOR_NAMES, arrays(), max_size=5), st.dictionaries(st.text(), JSON, max_size=4))
def test_any_state_comes_back_bit_for_bit(tensors, metadata):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        save(path, tensors, metadata)
        loaded, loaded_metadata = load(path, {n: (a.shape, a.dtype) for n, a in tensors.items()})
        assert same(loaded, tensors)
        assert list(loaded) == sorted(tensors)
        assert repr(loaded_metadata) == repr(metadata)  # -0.0 too, and the order of the keys
        assert all(array.flags.writeable for array in loaded.values())
        again = Path(folder) / "b.safetensors"
        save(again, loaded, loaded_metadata)
        assert again.read_bytes() == path.read_bytes()


def test_memory_layout_and_byte_order_do_not_matter(tmp_path):
    values = np.arange(24, dtype=np.int32).reshape(4, 6)
    save(
        tmp_path / "a",
        {"f": np.asfortranarray(values), "s": values[::2, ::-3], "b": values.astype(">i4")},
        {},
    )
    loaded, _ = load(tmp_path / "a")
    assert same(loaded, {"f": values, "s": values[::2, ::-3].copy(), "b": values})


def test_any_safetensors_reader_opens_the_file(tmp_path):
    save(tmp_path / "a", TENSORS, METADATA)
    assert same(safetensors.numpy.load_file(tmp_path / "a"), TENSORS)


# What is refused ----------------------------------------------------------------------------------


CYCLE: list = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        *(
            ({"fine": np.ones(2), "bad/w": np.array([1, value], dtype)}, {}, "not finite: tensor 'bad/w'$")
            for value in (np.nan, np.inf, -np.inf)
            for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
        ),
        ({"z": np.ones(2, complex)}, {}, "tensor 'z' has the unsupported dtype complex128"),
        ({"z": np.array([object()])}, {}, "tensor 'z' has the unsupported dtype object"),
        ({"z": np.array(["text"])}, {}, "tensor 'z' has the unsupported dtype <U4"),
        ({"__metadata__": np.ones(2)}, {}, "'__metadata__' cannot name a tensor"),
        ({3: np.ones(2)}, {}, "3 cannot name a tensor"),
        ({"\ud800": np.ones(2)}, {}, "surrogates not allowed"),
        ({}, {"best": float("nan")}, r"metadata\['best'\] is nan, not finite"),
        ({}, {"a": [0, {"b": (float("inf"),)}]}, r"metadata\['a'\]\[1\]\['b'\]\[0\] is inf, not finite"),
        ({}, {"a": {1: 2}}, r"metadata\['a'\] has the key 1, which is not a string"),
        ({}, {"a": np.float32(1)}, r"metadata\['a'\] is a float32, which JSON cannot hold"),
        ({}, {"a": b"bytes"}, r"metadata\['a'\] is a bytes, which JSON cannot hold"),
        ({}, {"a": CYCLE}, "recursion"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path, tensors, metadata, message):
    save(tmp_path / "a", TENSORS, METADATA)
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(CheckpointError, match=f"{tmp_path}/a: not saved: .*{message}") as caught:
        save(tmp_path / "a", tensors, metadata)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == before


def test_other_tensors_than_expected_are_listed(tmp_path):
    save(tmp_path / "a", TENSORS, METADATA)
    kernel, count = ((2, 3), "float32"), ((), np.dtype("int64"))
    load(tmp_path / "a", {"kernel": kernel, "count": count, "on": ((1,), SimpleNamespace(name="bool"))})
    with pytest.raises(CheckpointError) as caught:
        load(
            tmp_path / "a",
            {"kernel": ((3, 2), "float32"), "count": ((), np.int32), "gone": kernel, "far": count},
        )
    assert str(caught.value) == (
        f"{tmp_path}/a: holds other tensors than expected: missing 'far', 'gone'; unexpected 'on'; "
        "mismatching 'count' (int64[] in the file, int32[] expected), "
        "'kernel' (float32[2, 3] in the file, float32[3, 2] expected)"
    )


# Damage -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "a"
    save(path, TENSORS, METADATA)
    return path.read_bytes()


def refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="a: damaged or not a checkpoint: "):
        load(path)


def test_every_flipped_bit_is_found(tmp_path, intact):
    for offset in range(len(intact)):
        for bit in range(8):
            damaged = bytearray(intact)
            damaged[offset] ^= 1 << bit
            refuses(tmp_path / "a", bytes(damaged))


def test_every_truncation_and_any_tail_is_found(tmp_path, intact):
    for length in range(len(intact)):
        refuses(tmp_path / "a", intact[:length])
    for tail in (b"\0", b" ", intact):
        refuses(tmp_path / "a", intact + tail)


EDITS = st.lists(
    st.tuples(st.integers(0, 700), st.integers(0, 40), st.binary(max_size=40)), min_size=1, max_size=4
)


def edited(data: bytes, edits) -> bytes:
    for start, removed, inserted in edits:
        data = data[:start] + inserted + data[start + removed :]
    return data


@settings(max_examples=300, deadline=None)
@given(EDITS)
def test_any_damage_is_found(intact, edits):
    damaged = edited(intact, edits)
    if damaged != intact:
        with tempfile.TemporaryDirectory() as folder:
            refuses(Path(folder) / "a", damaged)


def resealed(data: bytes) -> bytes:
    """A forgery: whatever it holds, with a seal that vouches for it."""
    start = data.find(checkpoint_file._MARK) + len(checkpoint_file._MARK)
    stop = start + len(checkpoint_file._BLANK_SEAL)
    seal = checkpoint_file._seal(data[:start] + checkpoint_file._BLANK_SEAL + data[stop:])
    return data[:start] + seal + data[stop:]


def with_header(data: bytes, change) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + length])
    return resealed(len(header).to_bytes(8, "little") + header + data[8 + length :])


@settings(max_examples=300, deadline=None)
@given(EDITS)
def test_a_forged_seal_brings_no_other_exception(intact, edits):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(with_header(intact, lambda header: edited(header, edits)))
        with contextlib.suppress(CheckpointError):
            load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"F32"', b'"C64"'),
        (b'"F32"', b'"F64"'),
        (b'"I64"', b'"C64"'),
        (b"[2,3]", b"[2,-3]"),
        (b"[2,3]", b"[4294967296,4294967296]"),
        (b"[2,3]", b"[" * 50_000),
        (b'{\\"iteration\\"', b'NaN{\\"'),
        (b'{\\"iteration\\":3', b'{\\"iteration\\":1e999'),
        (b'{\\"iteration\\":3', b'{\\"iteration\\":NaN'),
    ],
)
def test_a_forged_header_is_refused(tmp_path, intact, old, new):
    assert old in intact
    refuses(tmp_path / "a", with_header(intact, lambda header: header.replace(old, new)))


def test_a_forged_value_that_is_not_finite_is_refused(tmp_path, intact):
    value = np.float32(5).tobytes()
    refuses(tmp_path / "a", resealed(intact.replace(value, np.float32(np.nan).tobytes())))


class Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    proof = tmp_path / "executed"
    payload = pickle.dumps(Payload(proof))
    refuses(tmp_path / "a", payload)
    refuses(tmp_path / "a", len(payload).to_bytes(8, "little") + payload)
    assert not proof.exists()
    pickle.loads(payload)
    assert proof.exists(), "the payload was harmless and the test worthless"


def test_other_things_than_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CheckpointError, match="not a regular file"):
            load(path)
    with pytest.raises(CheckpointError, match="gone: reading failed: No such file or directory"):
        load(tmp_path / "gone")


def test_lying_lengths_allocate_nothing(tmp_path, intact):
    tracemalloc.start()
    try:
        for head in (intact, (10**11).to_bytes(8, "little") + intact[8:], b"\xff" * 8):
            (tmp_path / "a").write_bytes(head)
            os.truncate(tmp_path / "a", 10**12)  # sparse
            with pytest.raises(CheckpointError):
                load(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
