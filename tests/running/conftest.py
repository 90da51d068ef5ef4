"""Runs that several files of this folder look at."""

import pytest

from support.simulated import (
    Mortal,
    machine,
    result,
)

BACKENDS = ("gymnasium", "tensorflow", "envpool")


@pytest.fixture(scope="module", params=BACKENDS)
def whole(request, tmp_path_factory):
    """A machine, the result of a run that was not killed, and what that run did, deed by deed."""
    if request.param == "envpool":
        pytest.importorskip("envpool")
    computer = machine(request.param)
    folder, life = computer.folder(tmp_path_factory.mktemp("whole")), Mortal(computer)
    with life.living():
        computer.train(folder)
    return computer, result(folder), life.deeds
