"""`progress.csv`: one row of scalars for each step."""

import csv
import errno
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rlweights.running import files


class CsvFile:
    """`progress.csv`: a row of scalars for each step, whole in the file after every call."""

    NAME = "progress.csv"

    def __init__(self, folder: Path, resume_step: int):
        self.path = folder / self.NAME
        columns, rows = ["env_steps"], []
        if self.path.exists():
            columns, rows = _rows_until(self.path, resume_step)
        self._columns = dict.fromkeys(columns)
        self._row = dict(zip(columns, rows[-1], strict=True)) if rows else {}
        self._file = self._replaced("".join(",".join(row) + "\n" for row in rows[:-1]))

    @property
    def newest(self) -> int:
        """The step of the last row."""
        return int(self._row.get("env_steps", -1))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a row, or adds to the last one if that is of the same step."""
        files.must_exist(self.path)
        if step != self.newest:
            self._start += len(self._line())
            self._row = {"env_steps": str(step)}
        self._row |= zip(scalars, _shortest(list(scalars.values())), strict=True)
        new = [tag for tag in scalars if tag not in self._columns]
        if new:
            self._file.seek(0)
            _, _, rows = self._file.read(self._start).decode().partition("\n")
            self._file.close()
            self._columns |= dict.fromkeys(new)
            self._file = self._replaced(rows.replace("\n", "," * len(new) + "\n"))
            return
        self._file.seek(self._start)
        line = self._line()
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._file.truncate()  # what a longer row of the same step has left

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _line(self) -> bytes:
        """The last row as it stands in the file."""
        if not self._row:
            return b""
        return (",".join([self._row.get(tag, "") for tag in self._columns]) + "\n").encode()

    def _replaced(self, rows: str) -> io.FileIO:
        """Renames a new file of the present columns, `rows` and the last row over the old one; opens it."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(self._columns)
        content = (text.getvalue() + rows).encode()
        self._start = len(content)
        files.write(self.path, content + self._line())
        return self.path.open("r+b", buffering=0)


def _rows_until(path: Path, step: int) -> tuple[list[str], list[list[str]]]:
    """Reads the columns and rows of a CSV as if nothing had ever been recorded beyond `step`.

    A line that was torn by a kill has no end and is not among them, nor are columns that only later rows
    have filled.
    """
    text = files.read_text(path, errors="replace")
    header, *rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))) or [["env_steps"]]
    rows = [r for r in rows if len(r) == len(header) and r[0].isdecimal() and int(r[0]) <= step]
    used = [i for i in range(len(header)) if i == 0 or any(row[i] for row in rows)]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _shortest(values: Sequence[float]) -> list[str]:
    """The shortest texts that read back as the same numbers, as float32 if that is what they are."""
    with np.errstate(over="ignore"):
        singles = np.array(values, np.float32)
    pairs = zip(singles, values, strict=True)
    return [min(str(s), repr(v), key=len) if float(s) == v else repr(v) for s, v in pairs]
