import contextlib
import errno
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
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
from rlweights.running.saving.checkpoints import Checkpoints

REPOSITORY = Path(__file__).parents[3]
TENSORS = {
    "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(7),
    "on": np.array([True]),
}
METADATA = {"iteration": 3, "best": None, "window": [[1, -0.0, 500]], "text": 'é\x1f"\\'}


def state(step: int) -> dict[str, np.ndarray]:
    return {"weights": np.full((40, 50), step, np.float32), "step": np.array(step)}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(
        (a[n].dtype, a[n].shape, a[n].tobytes()) == (b[n].dtype, b[n].shape, b[n].tobytes()) for n in a
    )


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


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


# Faults while saving ------------------------------------------------------------------------------


def failing(original, at: int, error: BaseException, first=None):
    """`original`, but its call number `at` raises `error` (after doing `first` with its arguments)."""
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls != at:
            return original(*args, **kwargs)
        if first:
            first(*args)
        raise error

    return call


def half_written(descriptor: int, data: memoryview) -> None:
    os.pwrite(descriptor, data[: len(data) // 2], 0)


FOLDER_SYNC = [("open", 2, None), ("fsync", 2, None), ("close", 2, os.close)]
STEPS_OF_SAVING = [
    ("listdir", 1, None),
    ("open", 1, None),
    ("write", 1, None),
    ("write", 1, half_written),
    ("fsync", 1, None),
    ("close", 1, os.close),
    ("replace", 1, None),
    *FOLDER_SYNC,
]


@pytest.mark.parametrize("step", STEPS_OF_SAVING, ids=lambda s: f"{s[0]}{s[1]}{'-half' if s[2] else ''}")
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only"),
        KeyboardInterrupt(),
    ],
)
def test_a_failure_at_any_step_of_saving_harms_nothing(tmp_path, monkeypatch, step, error):
    save(tmp_path / "a", state(1), {})
    name, at, first = step
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(getattr(os, name), at, error, first))
        raised = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(raised) as caught:
            save(tmp_path / "a", state(2), {})
    if isinstance(error, OSError):
        assert str(caught.value) == f"{tmp_path}/a: saving failed: {error.strerror}"
    assert names(tmp_path) == ["a"]
    # Only the sync of the folder comes after the rename.
    assert same(load(tmp_path / "a")[0], state(2 if step in FOLDER_SYNC else 1))


@pytest.mark.parametrize("step", STEPS_OF_SAVING, ids=lambda s: f"{s[0]}{s[1]}{'-half' if s[2] else ''}")
def test_a_failed_save_leaves_the_older_checkpoints(tmp_path, monkeypatch, step):
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, state(1), {})
    name, at, first = step
    with monkeypatch.context() as patch:
        patch.setattr(
            os, name, failing(getattr(os, name), at, OSError(errno.EIO, "Input/output error"), first)
        )
        with pytest.raises(
            CheckpointError, match=r"step-0+2\.safetensors: saving failed: Input/output error"
        ):
            kept.save(2, state(2), {})
    assert 1 in kept.steps(), "pruned before the new one was safe"
    found = kept.load_latest(on_damaged=pytest.fail)
    assert found is not None
    assert same(found[1], state(found[0]))


def test_a_failed_rename_while_tidying_keeps_the_new_checkpoint(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    kept.save(9, state(9), {})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(os.replace, 2, OSError(errno.EIO, "Input/output error")))
        with pytest.raises(
            CheckpointError, match=r"saved, but tidying the folder failed: Input/output error"
        ):
            kept.save(5, state(5), {})
    assert kept.steps() == [5, 9]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 999), min_size=1, max_size=20))
def test_short_writes_are_completed(sizes):
    original, sizes = os.write, list(sizes)

    def short(descriptor, data):
        return original(descriptor, data[: sizes.pop() if sizes else None])

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", short)
        save(Path(folder) / "a", state(4), METADATA)
        assert same(load(Path(folder) / "a")[0], state(4))


def test_a_write_that_makes_no_progress_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    with pytest.raises(CheckpointError, match="a: saving failed: the system writes nothing more"):
        save(tmp_path / "a", TENSORS, {})


def test_a_real_limit_on_file_size(tmp_path):
    save(tmp_path / "a", TENSORS, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(CheckpointError, match="a: saving failed: File too large"):
            save(tmp_path / "a", state(1), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["a"]
    assert same(load(tmp_path / "a")[0], TENSORS)


def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 2, OSError(errno.EINVAL, "Invalid argument")))
    save(tmp_path / "a", TENSORS, {})
    assert same(load(tmp_path / "a")[0], TENSORS)


def test_a_folder_that_cannot_be_made_or_listed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"step-0+1\.safetensors: saving failed: File exists"):
        Checkpoints(tmp_path / "file").save(1, TENSORS, {})
    with pytest.raises(CheckpointError, match="file: listing failed: Not a directory"):
        Checkpoints(tmp_path / "file").load_latest()


# The checkpoints of a run -------------------------------------------------------------------------


def test_the_newest_are_kept(tmp_path):
    kept = Checkpoints(tmp_path / "run" / "checkpoints", keep=2)
    assert kept.steps() == []
    assert kept.load_latest() is None
    for step in (0, 100, 2_000, 10**13):
        assert kept.save(step, state(step), {"step": step}) == kept.path(step)
    assert kept.steps() == [2_000, 10**13]
    found = kept.load_latest()
    assert found is not None
    assert (found[0], found[2]) == (10**13, {"step": 10**13})


def test_an_old_checkpoint_that_somebody_else_removed_is_no_error(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path, keep=1)
    monkeypatch.setattr(kept, "steps", lambda: [1, 2])
    kept.save(2, state(2), {})
    assert names(tmp_path) == [kept.path(2).name]


@pytest.mark.parametrize("bad", [lambda f: Checkpoints(f, keep=0), lambda f: Checkpoints(f).path(-1)])
def test_impossible_numbers_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="must"):
        bad(tmp_path)


def test_a_damaged_newest_falls_back_with_a_message_and_stays(tmp_path):
    kept = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        kept.save(step, state(step), {})
    kept.path(3).write_bytes(b"")
    os.truncate(kept.path(2), 500)
    before, messages = {n: (tmp_path / n).read_bytes() for n in names(tmp_path)}, []
    found = Checkpoints(tmp_path).load_latest(on_damaged=messages.append)
    assert found is not None
    assert found[0] == 1
    assert same(found[1], state(1))
    assert [m.split(": ")[0] for m in messages] == [str(kept.path(3)), str(kept.path(2))]
    assert {n: (tmp_path / n).read_bytes() for n in names(tmp_path)} == before

    kept.path(1).write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"none of 3 can be read; the newest: .*step-000000000003"):
        kept.load_latest(on_damaged=lambda message: None)


def test_damage_is_logged_when_nobody_listens(tmp_path, caplog):
    kept = Checkpoints(tmp_path)
    kept.save(1, state(1), {})
    kept.path(2).touch()
    kept.load_latest()
    assert "step-000000000002.safetensors: damaged or not a checkpoint" in caplog.text


def test_going_on_from_an_older_checkpoint_sets_the_damaged_one_aside(tmp_path):
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, state(1), {})
    kept.path(9).write_bytes(b"damaged")
    kept.save(2, state(2), {})
    assert kept.steps() == [2]
    assert Path(f"{kept.path(9)}.set-aside").read_bytes() == b"damaged"


def test_an_intact_file_of_another_agent_is_an_error_and_no_damage(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(1, TENSORS, {})
    kept.save(2, state(2), {})
    with pytest.raises(
        CheckpointError, match=r"step-000000000002.*missing 'count', 'kernel', 'on'; unexpected"
    ):
        kept.load_latest({n: (a.shape, a.dtype) for n, a in TENSORS.items()}, on_damaged=pytest.fail)


def test_only_a_save_removes_leftovers_and_only_ours(tmp_path):
    kept = Checkpoints(tmp_path)
    leftover = f"{kept.path(7).name}.0123abcd.tmp"
    foreign = [
        "notes.tmp",
        "step-7.safetensors",
        "step-000000000007.safetensors.tmp",
        "step-٠٠٠٠٠٠٠٠٠٠٠٠.safetensors",
    ]
    for name in [leftover, *foreign]:
        (tmp_path / name).touch()
    assert Checkpoints(tmp_path).load_latest() is None
    assert leftover in names(tmp_path), "an evaluation removed what a running training is writing"
    kept.save(1, state(1), {})
    assert names(tmp_path) == sorted([*foreign, kept.path(1).name])


def test_a_single_file_has_its_leftovers_removed_too(tmp_path):
    others = ["a_bin.00000000.tmp", "b.bin.00000000.tmp", "a.bin.old.tmp"]
    for name in ["a.bin.00000000.tmp", *others]:
        (tmp_path / name).touch()
    (tmp_path / "a.bin.11111111.tmp").mkdir()  # cannot be removed like a file: no reason not to save
    save(tmp_path / "a.bin", TENSORS, {})
    assert names(tmp_path) == sorted(["a.bin", "a.bin.11111111.tmp", *others])


# Kills --------------------------------------------------------------------------------------------

WRITER = """
import itertools, os, pathlib, signal, sys
import numpy as np
from rlweights.running.saving.checkpoints import Checkpoints
assert not {"tensorflow", "keras"} & sys.modules.keys()

folder, name, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
kept = Checkpoints(folder, keep=2)
first = (kept.steps() or [0])[-1] + 1

def save(step):
    kept.save(step, {"weights": np.full((40, 50), step, np.float32), "step": np.array(step)}, {"step": step})

for step in range(first, first + 3):
    save(step)
print("ready", flush=True)

if name:  # dies in the middle of one step of one save
    owner = pathlib.Path if name == "unlink" else os
    original, calls = getattr(owner, name), itertools.count(1)
    def deadly(*args, **kwargs):
        if next(calls) != at:
            return original(*args, **kwargs)
        if name == "write":
            original(args[0], args[1][:1000])
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, deadly)
for step in itertools.count(first + 3):
    save(step)
"""


def writer(folder: Path, name: str = "", at: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(at)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
    return process


def latest_is_whole(folder: Path) -> int:
    found = Checkpoints(folder).load_latest(on_damaged=pytest.fail)
    assert found is not None
    step, tensors, metadata = found
    assert same(tensors, state(step))
    assert metadata == {"step": step}
    return step


@pytest.mark.parametrize(
    ("name", "at", "step"),
    [("write", 1, 3), ("fsync", 1, 3), ("replace", 1, 3), ("fsync", 2, 4), ("unlink", 1, 4), ("write", 2, 4)],
)
def test_a_kill_in_the_middle_of_one_step(tmp_path, name, at, step):
    process = writer(tmp_path, name, at)
    assert process.wait() == -signal.SIGKILL
    assert latest_is_whole(tmp_path) == step
    kept = Checkpoints(tmp_path, keep=2)
    kept.save(step + 1, state(step + 1), {"step": step + 1})
    assert names(tmp_path) == [kept.path(step).name, kept.path(step + 1).name]


def test_kills_at_random_moments(tmp_path):
    moments, newest = random.Random(0), 0
    for _ in range(10):
        process = writer(tmp_path)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.wait()
        step = latest_is_whole(tmp_path)
        assert step >= newest + 3, "what was saved before the kill is gone"
        newest = step
