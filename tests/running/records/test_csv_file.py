"""progress.csv: exact numbers, late columns, torn lines."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.errors import RecordsError
from rlweights.running.records.csv_file import _shortest
from rlweights.running.records.records import Records
from support.recorded import CSV, rows_of

# Scalars ------------------------------------------------------------------------------------------


def test_two_writes_at_one_step_make_one_row(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(1, {"b": 2.0})
        records.write(2, {"a": 0.123456789012345})
        records.write(2, {"a": 3.0, "b": 4.0})
    assert (tmp_path / CSV).read_text() == "env_steps,a,b\n1,1.0,2.0\n2,3.0,4.0\n"


def test_late_columns_leave_the_rows_as_they_were(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"b, with comma": 2.0})
        records.write(3, {"c": 3.0, "a": 4.0})
        assert [list(row.values()) for row in rows_of(tmp_path)] == [
            ["1", "1.0", "", ""],
            ["2", "", "2.0", ""],
            ["3", "4.0", "", "3.0"],
        ]
    assert list(rows_of(tmp_path)[0]) == ["env_steps", "a", "b, with comma", "c"]


@given(
    st.one_of(
        st.floats(allow_nan=False, width=32, allow_subnormal=False),
        st.floats(allow_nan=False, allow_subnormal=False),
    )
)
@settings(deadline=None)
def test_numbers_read_back_exactly_from_their_shortest_text(value):
    (text,) = _shortest([value])
    assert len(text) <= len(repr(value))
    with np.errstate(over="ignore"):
        single = float(np.float32(value)) == value
        assert (float(np.float32(text)) if single else float(text)) == value


# Resuming -----------------------------------------------------------------------------------------


def test_resuming_at_a_recorded_step_adds_to_its_row(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"a": 2.0})
    with Records(tmp_path, resume_step=2) as records:
        records.write(2, {"eval": 3.0})
        records.write(3, {"a": 4.0})
    assert (tmp_path / CSV).read_text() == "env_steps,a,eval\n1,1.0,\n2,2.0,3.0\n3,4.0,\n"


def test_a_torn_line_is_never_taken_for_a_number(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"a": 12.25})
    os.truncate(tmp_path / CSV, (tmp_path / CSV).stat().st_size - 2)
    assert (tmp_path / CSV).read_text().endswith("\n2,12.2")
    Records(tmp_path, resume_step=2).close()
    assert (tmp_path / CSV).read_text() == "env_steps,a\n1,1.0\n"


def test_columns_of_dropped_rows_are_dropped(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"b": 2.0})
    Records(tmp_path, resume_step=1).close()
    assert (tmp_path / CSV).read_text() == "env_steps,a\n1,1.0\n"


# Faults -------------------------------------------------------------------------------------------


def test_a_csv_that_vanished_is_noticed(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        (tmp_path / CSV).unlink()
        with pytest.raises(RecordsError, match=r"progress\.csv: .* has vanished"):
            records.write(2, {"a": 2.0})
