"""A run that was killed at any moment and resumed ends like one that was not."""

import shutil
import sys
from pathlib import Path

import pytest

from rlweights.errors import CheckpointError, ConfigError, guarded
from rlweights.running import session
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving import checkpoint_file, run_folder
from rlweights.running.saving.checkpoints import Checkpoints
from rlweights.running.saving.run_lock import RunLock
from rlweights.running.saving.run_state import RunState
from support.simulated import (
    STEPS,
    Machine,
    Mortal,
    assert_same_result,
    machine,
    merged,
    newest,
    result,
    steps_saved,
)

REPOSITORY = Path(__file__).parents[3]
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


# Killed -------------------------------------------------------------------------------------------


def killed(computer: Machine, folder: Path, moments) -> None:
    """Lets one process after the other die at its moment, and the last one live."""
    for i, (at, after) in enumerate(moments):
        life = Mortal(computer, at, after)
        with life.living():
            computer.train(folder, resume=i > 0)
        assert life.dead, f"it ended before moment {at}"
    computer.train(folder, resume=True)


# The first checkpoint is written around deed 40 of 105 to 120.
@pytest.mark.parametrize(("at", "after"), [(4, False), (31, True), (40, False), (66, True), (93, False)])
def test_killed_at_a_moment(whole, tmp_path, at, after):
    computer, expected, _ = whole
    folder = computer.folder(tmp_path)
    killed(computer, folder, [(at, after)])
    assert_same_result(result(folder), expected)


@pytest.mark.parametrize("deed", ["rename", "remove"])
def test_killed_at_the_last_moments(whole, tmp_path, deed):
    """Before the checkpoint that says "finished" is there, and between it and the tidying up."""
    computer, expected, deeds = whole
    folder = computer.folder(tmp_path)
    killed(computer, folder, [((deed, deeds.count(deed)), False)])
    assert result(folder)["progress"]["finished"]
    assert_same_result(result(folder), expected)


def test_killed_again_and_again(whole, tmp_path):
    computer, expected, _ = whole
    folder = computer.folder(tmp_path)
    killed(computer, folder, [(50, False), (8, True), (30, False), (30, True), (45, False)])
    assert_same_result(result(folder), expected)


@pytest.mark.slow
def test_killed_at_every_moment(whole, tmp_path):
    computer, expected, deeds = whole
    for at in range(1, len(deeds) - 1):  # in how many calls the compiled loop runs depends on the time
        folder = computer.folder(tmp_path)
        killed(computer, folder, [(at, at % 2 == 0)])
        assert_same_result(result(folder), expected)
        shutil.rmtree(folder)


def test_a_run_without_a_checkpoint_starts_over_in_its_folder(whole, tmp_path):
    computer, expected, _ = whole
    folder, said = computer.folder(tmp_path), []
    with Mortal(computer, ("write", 3)).living():  # after the lock and best/, in the first checkpoint
        computer.train(folder)
    assert (folder / "best" / "weights.safetensors").exists()
    assert not steps_saved(folder)
    with Mortal(computer, 6).living():
        computer.train(folder, resume=True, said=said)
    assert said == ["there is no checkpoint yet: the run starts over"]
    assert not (folder / "best" / "weights.safetensors").exists(), "best of a future that may never come"
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


def test_best_weights_from_beyond_the_checkpoint_are_taken_back(whole, tmp_path):
    computer, _, _ = whole
    folder = computer.folder(tmp_path)
    best = folder / "best" / "weights.safetensors"
    # The lock, best/, the first checkpoint, best/ two iterations later, the second checkpoint.
    with Mortal(computer, ("write", 5)).living():
        computer.train(folder)
    (step,) = steps_saved(folder)
    _, beyond = checkpoint_file.load(best)
    assert beyond["env_steps"] > step, "the second evaluation was no better: this shows nothing"
    with Mortal(computer, 6).living():
        computer.train(folder, resume=True)
    tensors, metadata = checkpoint_file.load(best)
    assert [metadata["mean_reward"], metadata["env_steps"]] == newest(folder)[2]["best"]
    assert metadata["env_steps"] <= step
    saved, _ = checkpoint_file.load(Checkpoints(folder / "checkpoints").path(step))
    assert {name: tensor.tobytes() for name, tensor in tensors.items()} == {
        name[5:]: tensor.tobytes() for name, tensor in saved.items() if name.startswith("best/")
    }


def test_what_happened_before_a_checkpoint_was_recorded_before(tmp_path, monkeypatch):
    computer, seen, save = machine(), [], RunState.save

    def looking(self, progress, probe, step):
        table = (folder / "progress.csv").read_text().splitlines()
        series = read_scalars(folder)
        columns = table[0].split(",")
        row = dict(zip(columns, table[-1].split(","), strict=True))
        assert int(row["env_steps"]) == step
        assert row["train/loss"]
        assert series["train/loss"][-1][0] == step
        if step % (3 * STEPS) == 0:
            assert row["eval/mean_reward"]
        seen.append(step)
        save(self, progress, probe, step)

    monkeypatch.setattr(RunState, "save", looking)
    folder = computer.folder(tmp_path)
    computer.train(folder)
    assert seen == [4 * STEPS, 8 * STEPS, 12 * STEPS, 14 * STEPS]


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
    facts = session._summary(computer.agent(), outcome, tmp_path)
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


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, tmp_path, monkeypatch):
    computer, expected, _ = whole
    folder, said, resumed_at = computer.folder(tmp_path), [], []
    with Mortal(computer, ("evaluation", 5)).living():
        computer.train(folder)
    *_, before, last = steps_saved(folder)
    path = Checkpoints(folder / "checkpoints").path(last)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    advance = computer.loop.advance
    monkeypatch.setattr(computer.loop, "advance", lambda i, n: resumed_at.append(i) or advance(i, n))
    computer.train(folder, resume=True, said=said)
    assert resumed_at[0] * STEPS == before
    assert [f"{path}: damaged" in line and "trying the checkpoint before" in line for line in said] == [True]
    assert_same_result(result(folder), expected)


def test_nothing_but_damaged_checkpoints_is_an_error_and_changes_nothing(tmp_path):
    computer = machine()
    folder = computer.folder(tmp_path)
    with Mortal(computer, 80).living():
        computer.train(folder)
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    table = (folder / "progress.csv").read_bytes()
    with pytest.raises(CheckpointError, match="none of 2 can be read"):
        computer.train(folder, resume=True)
    assert (folder / "progress.csv").read_bytes() == table


# Run folders --------------------------------------------------------------------------------------

RULE = """
import gymnasium
from rlweights import Intervention


class Times(gymnasium.RewardWrapper):
    def __init__(self, env, *, factor):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


class Halving(Intervention):
    def update(self, weight, step):
        return weight * 0.5
"""


def test_files_of_the_users_own_are_run_from_their_copies(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "halving.py").write_text(RULE)
    wrapper = {"name": "rules/halving.py:Times", "factor": 2.0}
    data = merged(
        machine().data,
        {
            "environment": {"id": "CartPole-v1", "backend": "gymnasium", "wrappers": [wrapper]},
            "interventions": [{"rule": "rules/halving.py:Halving"}],
        },
    )
    (tmp_path / "mine.toml").write_text(agent_file.parse(data, "test").to_toml())
    agent = agent_file.load(tmp_path / "mine.toml")
    run = created(Assembly(agent, "mine.toml", tmp_path), tmp_path / "runs", "mine")
    shutil.rmtree(tmp_path / "rules")
    moved = run.rename(tmp_path / "moved")
    assembly = Assembly(run_folder.read(moved), "agent.toml", moved)
    assert assembly.files.loaded == [moved / "halving.py"]
    assert type(assembly.rules[0]).__name__ == "Halving"
    assert assembly.environments.vector(1).get_attr("factor") == (2.0,)
    assert "halving.py was loaded" in "\n".join(session._header(assembly, "mine", moved))


def created(assembly: Assembly, runs: Path, name: str) -> Path:
    return run_folder.create(runs, name, assembly.agent, assembly.source, assembly.files.loaded)


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rule.py").write_text(RULE)
    rules = [{"rule": f"{name}/rule.py:Halving", "name": name} for name in "ab"]
    data = merged(machine().data, {"interventions": rules})
    assembly = Assembly(agent_file.parse(data, "test"), "mine.toml", tmp_path)
    with pytest.raises(ConfigError, match="cannot both be kept in the run folder"):
        created(assembly, tmp_path / "runs", "mine")
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_with_an_agent_file_is_complete(tmp_path):
    """Killed while the agent file is written: no file, rather than half of one, which may be valid TOML."""
    assembly = machine().assembly
    with Mortal(machine(), 2).living():
        created(assembly, tmp_path, "tiny")
    (folder,) = tmp_path.glob("tiny/*")
    assert not (folder / "agent.toml").exists()


def test_run_folders_of_one_second_do_not_collide(tmp_path):
    assembly = machine().assembly
    folders = {created(assembly, tmp_path, "tiny") for _ in range(3)}
    assert len(folders) == 3
    assert all(run_folder.read(folder) == assembly.agent for folder in folders)


# Real processes -----------------------------------------------------------------------------------


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    yield __import__("soak")
    sys.modules.pop("soak")


def test_an_agent_whose_package_is_missing_is_left_out_aloud(soak, capsys, monkeypatch):
    monkeypatch.setattr(soak, "NEEDS", {"pooled": "no_such_package"})
    assert set(soak.trainable()) == soak.AGENTS.keys() - {"pooled"}
    assert capsys.readouterr().out == "`pooled` is left out: no_such_package is not installed\n"


def test_killed_for_real(soak, capsys):
    assert soak.main(["--kills", "3", "--agents", "clipped", "compiled"]) == 0
    assert "3 kills, 0 differences, 0 unreadable checkpoints" in capsys.readouterr().out


@pytest.mark.slow
def test_killed_for_real_thirty_times(soak):
    assert soak.main([]) == 0
