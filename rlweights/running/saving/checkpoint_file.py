"""The file format of checkpoints: sealed safetensors, written so that no kill can harm the last one.

A file becomes visible only when it is complete. A *seal* in its header (length and BLAKE2b of the whole file)
finds any damage before anything is parsed. Nothing in a checkpoint can execute code: it is JSON and raw
numbers. The same tensors and metadata give the same bytes, and any safetensors reader opens the files.
"""

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from rlweights.errors import CheckpointError
from rlweights.running import files
from rlweights.weights.arrays import Array

_DTYPES = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
}
with contextlib.suppress(ImportError):
    import ml_dtypes

    _DTYPES["BF16"] = np.dtype(ml_dtypes.bfloat16)

_DTYPE_NAMES = {dtype.name for dtype in _DTYPES.values()}

# One metadata entry "<seal> <JSON>": safetensors writes several of them in random order.
_ENTRY = "rlweights"

# Inside a name or a value the quotes are escaped, so these bytes occur once in a header.
_MARK = f'"{_ENTRY}":"'.encode()

_BLANK_SEAL = b"0" * 85  # 20 digits of length, a dash, 64 hexadecimal digits of checksum

_MAX_HEADER = 100_000_000  # what safetensors itself accepts


def save(path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Writes one checkpoint file, atomically and durably.

    One process at a time may write a file: half-written leftovers are taken for those of a killed process.

    Args:
        path: The file; an existing one is replaced atomically.
        tensors: Arrays of any shape by name: float16/32/64, bfloat16, integers, booleans.
        metadata: Values that JSON can hold (tuples come back as lists), by name.

    Raises:
        CheckpointError: If a tensor or a number of the metadata is not finite or of an unknown type, or if
            the system refuses. No temporary file stays behind and an older file is unchanged, except when
            only the last step, the sync of the folder, fails: then the complete new file is in its place.
    """
    path = Path(path)
    try:
        files.write(path, encode(tensors, metadata))
    except OSError as error:
        raise CheckpointError(f"{path}: saving failed: {reason(error)}") from error
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not saved: {error}") from error


def load(
    path: str | os.PathLike[str], expect: Mapping[str, tuple[Any, Any]] | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Reads and verifies one checkpoint file.

    Args:
        path: The file.
        expect: Shape and dtype of every tensor that the file must hold, by name.

    Returns:
        The tensors (writable arrays, sorted by name) and the metadata.

    Raises:
        CheckpointError: If the file is missing, damaged, no checkpoint, or holds other tensors than expected.
    """
    path = Path(path)
    try:
        tensors, metadata = _decode(_read(path))
    except OSError as error:
        raise CheckpointError(f"{path}: reading failed: {reason(error)}") from error
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {error}") from error
    if expect is not None:
        check_expected(path, tensors, expect)
    return tensors, metadata


def encode(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytearray:
    """Returns the bytes of a sealed file; a ValueError names the first entry that must not be saved."""
    arrays = {}
    for name, tensor in tensors.items():
        array = np.asarray(tensor, order="C")
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"{name!r} cannot name a tensor")
        if array.dtype.name not in _DTYPE_NAMES:
            raise ValueError(f"tensor {name!r} has the unsupported dtype {array.dtype}")
        arrays[name] = array
    _check_finite(arrays)
    _check_json(dict(metadata), "metadata")
    text = json.dumps(dict(metadata), separators=(",", ":"))
    entry = f"{_BLANK_SEAL.decode()} {text}"
    data = bytearray(safetensors.numpy.save(arrays, metadata={_ENTRY: entry}))
    start = data.index(_MARK) + len(_MARK)
    data[start : start + len(_BLANK_SEAL)] = _seal(data)
    return data


def _decode(data: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and metadata of a file whose seal is intact."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = json.loads(header["__metadata__"][_ENTRY][len(_BLANK_SEAL) + 1 :])
    _check_json(metadata, "metadata")
    tensors = {
        name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in sorted(safetensors.deserialize(data), key=itemgetter(0))
    }
    _check_finite(tensors)
    return tensors, metadata


def _seal(data: bytes | bytearray) -> bytes:
    """Length and checksum of a whole file whose seal is blank."""
    return f"{len(data):020d}-{hashlib.blake2b(data, digest_size=32).hexdigest()}".encode()


def _read(path: Path) -> bytes:
    """The bytes of a file, its seal verified and blank again; reads no more than the seal vouches for."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if not 0 < length <= min(status.st_size - 8, _MAX_HEADER):
            raise ValueError("empty, cut off, or without a safetensors header")
        head = bytearray(prefix + file.read(length))
        start = head.find(_MARK) + len(_MARK)
        if start < len(_MARK):
            raise ValueError("the header carries no seal")
        sealed = slice(start, start + len(_BLANK_SEAL))
        seal = bytes(head[sealed])
        if not seal.startswith(b"%020d-" % status.st_size):
            raise ValueError(f"{status.st_size} bytes are not the length it was written with")
        head[sealed] = _BLANK_SEAL
        data = bytes(head) + file.read(status.st_size - len(head))
    if _seal(data) != seal:
        raise ValueError("the checksum does not match")
    return data


def _check_finite(tensors: Mapping[str, Array]) -> None:
    # Kind "V" is bfloat16, the only one of its kind that comes here.
    bad = [n for n, t in tensors.items() if t.dtype.kind in "fV" and not np.isfinite(t).all()]
    if bad:
        raise ValueError(f"not finite: {_listed([f'tensor {name!r}' for name in bad])}")


def _check_json(value: Any, where: str) -> None:
    """Raises a ValueError if a value would not come back from JSON as it went in."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}, which is not a string")
            _check_json(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, not finite")
    elif value is not None and not isinstance(value, str | int):
        raise ValueError(f"{where} is a {type(value).__name__}, which JSON cannot hold")


def check_expected(path: Path, tensors: Mapping[str, Array], expect: Mapping[str, tuple[Any, Any]]) -> None:
    """Makes sure that a file holds the tensors of `expect`, and no others.

    Raises:
        CheckpointError: If it does not; names the tensors that are missing, unexpected or of another kind.
    """
    found = {name: (tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}
    wanted = {name: (tuple(shape), _dtype_name(dtype)) for name, (shape, dtype) in expect.items()}
    differing = [
        f"{name!r} ({_described(found[name])} in the file, {_described(wanted[name])} expected)"
        for name in sorted(found.keys() & wanted.keys())
        if found[name] != wanted[name]
    ]
    complaints = {
        "missing": [repr(name) for name in sorted(wanted.keys() - found.keys())],
        "unexpected": [repr(name) for name in sorted(found.keys() - wanted.keys())],
        "mismatching": differing,
    }
    text = "; ".join(f"{kind} {_listed(names)}" for kind, names in complaints.items() if names)
    if text:
        raise CheckpointError(f"{path}: holds other tensors than expected: {text}")


def _dtype_name(dtype: Any) -> str:
    # TensorFlow's dtypes carry NumPy's names but NumPy cannot interpret them.
    return getattr(dtype, "name", None) or np.dtype(dtype).name


def _described(kind: tuple[tuple[int, ...], str]) -> str:
    return f"{kind[1]}{list(kind[0])}"


def _listed(items: list[str], limit: int = 8) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def reason(error: OSError) -> str:
    """Returns the system's explanation of an error, without the file's name."""
    return error.strerror or str(error)
