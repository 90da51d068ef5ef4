"""Resuming: runs that are finished, extended, changed, locked, or no runs."""

import pytest

from rlweights.errors import ConfigError, guarded
from rlweights.running import announcement, session
from rlweights.running.saving import run_folder
from rlweights.running.saving.run_lock import RunLock
from support.simulated import (
    STEPS,
    Mortal,
    assert_same_result,
    machine,
    result,
    steps_saved,
)

# Finished -----------------------------------------------------------------------------------------


def test_a_finished_run_is_left_alone(whole, tmp_path):
    computer, _, _ = whole
    folder, said = computer.folder(tmp_path), []
    computer.train(folder)

    def contents():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*.*") if p.name != ".lock"}

    before = contents()
    outcome = computer.train(folder, resume=True, said=said, budget={"total_timesteps": 14 * STEPS + 3})
    assert (outcome.evaluation, outcome.made, outcome.env_steps) == (None, 0, 14 * STEPS)
    assert contents() == before
    assert session.exit_code(outcome) == 0
    facts = announcement.summary(computer.agent(), outcome, tmp_path)
    assert facts["finished"] == "before, after 224 steps; nothing was changed"
    assert facts["extend"] == f"python -m rlweights.train --resume {folder} --total-timesteps 448"


def test_a_larger_budget_extends_a_finished_run(whole, tmp_path):
    computer, expected, _ = whole
    longer = {"budget": {"total_timesteps": 22 * STEPS}}
    extended = []
    for moments in ([], [20, 30]):
        folder = computer.folder(tmp_path)
        computer.train(folder)
        for at in moments:
            with Mortal(computer, at).living():
                computer.train(folder, resume=True, **longer)
            assert run_folder.read(folder).budget.total_timesteps == 22 * STEPS
        outcome = computer.train(folder, resume=True, **longer)
        assert outcome.evaluation is not None
        assert outcome.env_steps == 22 * STEPS
        extended.append(result(folder))
    assert_same_result(*extended)
    rows = [line.partition(b",")[0] for line in extended[0]["progress.csv"].splitlines()]
    before = [line.partition(b",")[0] for line in expected["progress.csv"].splitlines()]
    assert rows == before + [str(i * STEPS).encode() for i in range(15, 23)]


def test_a_budget_below_what_was_trained_is_refused(tmp_path):
    computer = machine()
    folder = computer.folder(tmp_path)
    computer.train(folder)
    with pytest.raises(ConfigError, match=r"budget.total_timesteps = 160 is less than the 224 steps"):
        computer.train(folder, resume=True, budget={"total_timesteps": 160})
    assert run_folder.read(folder).budget.total_timesteps == 224


# Another agent ------------------------------------------------------------------------------------


def test_changes_on_the_command_line_are_refused(tmp_path):
    folder = machine().folder(tmp_path)
    before = (folder / "agent.toml").read_text()
    changes = ["algorithm.gamma=0.5", "interventions.0.bound=2.0", "seed=4", "evaluation.every=64"]
    with pytest.raises(ConfigError) as raised:
        session.resume(folder, changes, quiet=True)
    error = str(raised.value)
    assert "\n" not in error
    assert "these keys differ: algorithm.gamma, interventions.0.bound, seed." in error
    assert (folder / "agent.toml").read_text() == before


def test_changes_in_the_agent_file_are_refused(tmp_path):
    computer = machine()
    folder = computer.folder(tmp_path)
    with Mortal(computer, 80).living():
        computer.train(folder)
    (folder / "agent.toml").write_text(computer.agent(algorithm={"gamma": 0.5}).to_toml())
    with pytest.raises(ConfigError, match=r"step-0+128.safetensors: .* these keys differ: algorithm.gamma."):
        computer.train(folder, resume=True, algorithm={"gamma": 0.5})


def test_what_does_not_concern_the_training_may_change(whole, tmp_path):
    computer, expected, _ = whole
    folder = computer.folder(tmp_path)
    with Mortal(computer, 80).living():
        computer.train(folder)
    changes = {
        "description": "looked at less closely",
        "evaluation": {"every": 5 * STEPS, "episodes": 1},
        "logging": {"every": 2 * STEPS, "diagnostics_every": 0, "histograms_every": 0},
        "guard": {"on_nonfinite": "rollback"},
        "checkpoint": {"keep": 1},
    }
    computer.train(folder, resume=True, **changes)
    assert run_folder.read(folder) == computer.agent(**changes)
    assert result(folder)["latest/weights.safetensors"] == expected["latest/weights.safetensors"]
    assert steps_saved(folder) == [14 * STEPS]


def test_no_run_folder(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}/none: no run folder, it holds no agent.toml"):
        session.resume(tmp_path / "none", [], quiet=True)


# Locked, damaged ----------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_and_not_touched(tmp_path, capsys):
    computer = machine()
    folder = computer.folder(tmp_path)
    before = sorted(folder.iterdir())
    with RunLock(folder):
        code = guarded(lambda: session.exit_code(computer.train(folder, resume=True, description="another")))
    assert code == 2
    assert "is training into this folder" in capsys.readouterr().err
    assert [p for p in sorted(folder.iterdir()) if p.name != ".lock"] == before
    assert run_folder.read(folder).description == ""
