"""`rlweights study`: the command."""

from rlweights import study as door
from rlweights.experiments.results import Results
from rlweights.experiments.study_file import Plan
from support.commandline import invoke
from support.studies import Pretended, study_file


def test_the_command(tmp_path):
    path = study_file(tmp_path)
    with Pretended().instead():
        code, output, errors = invoke(
            door.app, path, "--runs", tmp_path / "runs", "--seeds", 1, "--workers", 1
        )
    assert (code, errors) == (0, "")
    assert "3 to train, 0 finished, 1 at once" in output
    assert "plain, seed 3" in output
    assert str(tmp_path / "runs" / "table.md") in output.replace("\n", "")
    (tmp_path / "runs" / "table.md").unlink()
    code, output, errors = invoke(door.app, path, "--runs", tmp_path / "runs", "--show")
    assert (code, errors) == (0, "")
    assert (tmp_path / "runs" / "table.md").exists()
    assert len(Results(Plan(path), tmp_path / "runs").rows) == 3
    code, output, errors = invoke(door.app, "turning_cheetah")
    assert (code, output) == (2, "")
    assert "Did you mean 'turning_half_cheetah'" in errors
    code, output, _ = invoke(door.app)
    assert code == 0
    assert "far_end_of_the_chain" in output
