"""What a user can meet: each error is one line and its exit code, and faults of our own are not hidden."""

import pytest

import rlweights
from rlweights.errors import FORESEEN, guarded


def raising(error):
    def session():
        raise error

    return session


@pytest.mark.parametrize("kind", FORESEEN)
def test_a_foreseen_error_is_one_line_and_its_exit_code(kind, capsys):
    assert guarded(raising(kind("it is wrong"))) == kind.exit_code in (2, 3)
    assert capsys.readouterr() == ("", "error: it is wrong\n")
    assert getattr(rlweights, kind.__name__) is kind


def test_what_is_not_foreseen_shows_its_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()))
    assert guarded(lambda: 5) == 5
