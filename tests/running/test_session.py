"""Resuming: runs that are finished, extended, changed, locked, or no runs."""

from pathlib import Path

import numpy as np
import pytest

from rlweights.errors import ConfigError, guarded
from rlweights.learning.evaluation import Result
from rlweights.running import announcement, session
from rlweights.running.outcome import Outcome
from rlweights.running.recipe import Recipe
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
    changes = ["algorithm.gamma=0.5", "interventions.0.bound=2.0", "seed=5", "evaluation.every=64"]
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


# What is said -------------------------------------------------------------------------------------


def outcome_of(mean: float, sampled: float | None, steps: int = 1_000) -> Outcome:
    evaluation = Result(np.full(20, mean), np.full(20, 10))
    return Outcome(Path("r"), evaluation, steps, 5.0, made=steps, finished=True, sampled=sampled)


@pytest.mark.parametrize(
    ("greedy", "sampled", "said"),
    [
        (-500.0, -117.3, True),
        (450.0, 500.0, False),
        (500.0, 300.0, False),
        (0.0, 0.0, False),
        (1.0, None, False),
    ],
)
def test_sampled_actions_that_are_far_better_than_greedy_ones_are_named(greedy, sampled, said):
    agent = machine().agent()
    facts = announcement.summary(agent, outcome_of(greedy, sampled), Path("runs"))
    assert ("but sampled" in facts) is said
    if said:
        assert facts["but sampled"].startswith("-117.3, mean of the newest training episodes")
        assert "evaluation.deterministic = false" in facts["but sampled"]


def test_a_budget_far_below_the_agents_own_is_said_beside_what_is_expected():
    agent = machine().agent(expect={"mean_reward": 475.0})
    for own, text in [
        (None, "475"),
        (1_500, "475"),
        (5_000, "475 after 5,000 steps, the agent's own budget"),
    ]:
        facts = announcement.summary(agent, outcome_of(20.0, 20.0), Path("runs"), own)
        assert facts["expected"] == text


def test_the_header_says_whose_settings_these_are_and_what_is_normalized(tmp_path, capsys):
    short = [
        "algorithm.n_steps=8",
        "algorithm.batch_size=128",
        "budget.total_timesteps=130",
        "network.hidden_sizes=[4]",
    ]
    recipe = Recipe(
        env="Acrobot-v1", changes=[*short, "evaluation.final_episodes=0", "evaluation.episodes=0"]
    )
    recipe.begin(tmp_path)
    header = {
        line[:13].strip(): line[13:] for line in capsys.readouterr().out.partition("\n\n")[0].splitlines()
    }
    assert header["settings"] == "those of the shipped agent acrobot"
    assert header["normalized"] == "observations"
    assert header["environment"] == "Acrobot-v1 (tensorflow, 16 x 8 steps an iteration)"
    assert header["budget"] == (
        "128 steps: whole iterations of the 130 asked for; the agent's own budget is 500,000"
    )
    assert header["device"].startswith(("CPU", "GPU"))
