"""Diagnoses of courses that are made up: each symptom is told where it is there, and only there."""

import json

import numpy as np
import pytest

from rlweights.errors import ConfigError
from rlweights.running.config import agent_file
from rlweights.running.diagnosis.judgement import SYMPTOMS, diagnose, judge, seeds_apart
from rlweights.running.diagnosis.record import RETURN, RunRecord, ScalarSeries, read_table
from support.smallruns import small_run

ROWS = 50
PPO = {"environment": {"id": "CartPole-v1"}, "algorithm": {"ent_coef": 0.0, "learning_rate": 1e-2}}


def healthy():
    """The scalars of a run that learns, by tag."""
    rng = np.random.default_rng(0)
    rising = np.linspace(20.0, 400.0, ROWS) + rng.normal(size=ROWS)
    return {
        RETURN: rising,
        "rollout/ep_rew_min": rising - 10.0,
        "rollout/ep_rew_max": rising + 10.0,
        "rollout/ep_len_mean": np.linspace(20.0, 90.0, ROWS),
        "rollout/return_std": np.full(ROWS, 5.0),
        "rollout/reward_nonzero_share": np.full(ROWS, 1.0),
        "rollout/reward_outlier": np.full(ROWS, 1.0),
        "rollout/truncated_share": np.zeros(ROWS),
        "rollout/action_top_share": np.full(ROWS, 0.6),
        "rollout/observation_scale": np.full(ROWS, 8.0),
        "rollout/observation_constant_share": np.zeros(ROWS),
        "train/loss": np.zeros(ROWS),
        "train/approx_kl": np.full(ROWS, 0.01),
        "train/approx_kl_last": np.full(ROWS, 0.02),
        "train/clip_fraction": np.full(ROWS, 0.1),
        "train/explained_variance": np.full(ROWS, 0.8),
        "train/entropy_fraction": np.linspace(1.0, 0.4, ROWS),
        "update/applied": np.full(ROWS, 16.0),
        "update/skipped": np.zeros(ROWS),
        "update/update_to_weight_ratio": np.full(ROWS, 0.01),
    }


def record(changes=(), agent=None, **series):
    """A run that is healthy but for what is named; `changes` to its agent file."""
    data = agent_file.parse(agent or PPO, "test", list(changes))
    columns = healthy() | {tag.replace("__", "/"): value for tag, value in series.items()}
    total = data.total_iterations * data.steps_per_iteration
    steps = np.linspace(total / ROWS, total, ROWS).astype(int)
    return RunRecord(
        data,
        {
            tag: ScalarSeries(steps[-len(values) :], np.asarray(values, float))
            for tag, values in columns.items()
        },
        "made up",
    )


FLAT = np.full(ROWS, 22.0) + np.random.default_rng(1).normal(size=ROWS)
FALLEN = np.concatenate([np.linspace(20.0, 400.0, 25), np.linspace(400.0, 30.0, 15), np.full(10, 30.0)])


def full(value):
    return np.full(ROWS, value)


CASES = {
    "not_finite": record(update__skipped=full(3.0), update__nonfinite_rewards=full(1.0)),
    "no_reward_seen": record(rollout__reward_nonzero_share=full(0.0), **{"rollout__ep_rew_mean": full(0.0)}),
    "returns_all_alike": record(
        rollout__ep_rew_mean=full(7.0), rollout__ep_rew_min=full(7.0), rollout__ep_rew_max=full(7.0)
    ),
    "reward_outlier": record(rollout__ep_rew_mean=FLAT, rollout__reward_outlier=full(30.0)),
    "rewards_large": record(rollout__ep_rew_mean=FLAT, rollout__return_std=full(5e3)),
    "rewards_small": record(rollout__ep_rew_mean=FLAT, rollout__return_std=full(1e-3)),
    "observations_of_unequal_scale": record(rollout__ep_rew_mean=FLAT, rollout__observation_scale=full(2e3)),
    "actions_outside": record(rollout__ep_rew_mean=FLAT, rollout__action_clipped_share=full(0.9)),
    "horizon_short": record(["algorithm.gamma=0.5"], rollout__ep_rew_mean=FLAT),
    "entropy_bonus_rules": record(
        ["algorithm.ent_coef=1.0"], rollout__ep_rew_mean=FLAT, train__entropy_fraction=full(0.99)
    ),
    "updates_cut_short": record(
        ["algorithm.target_kl=1e-5"], rollout__ep_rew_mean=FLAT, update__applied=full(1.0)
    ),
    "value_clip_too_tight": record(
        ["algorithm.clip_range_vf=0.2"], rollout__ep_rew_mean=FLAT, rollout__return_std=full(50.0)
    ),
    "rollouts_short": record(
        ["algorithm.n_steps=4"], rollout__ep_rew_mean=FLAT, rollout__ep_len_mean=full(200.0)
    ),
    "bound_too_tight": record(
        ['interventions=[{rule="clipping", bound=0.1}]'],
        rollout__ep_rew_mean=FLAT,
        intervention__clipping__saturated=full(0.9),
        intervention__clipping__relative_change=full(0.001),
    ),
    "noise_too_strong": record(
        ['interventions=[{rule="noise", stddev=1.0}]'],
        rollout__ep_rew_mean=FLAT,
        intervention__noise__stddev=full(1.0),
        intervention__noise__relative_change=full(2.0),
    ),
    "value_head_bounded": record(
        rollout__ep_rew_mean=FLAT,
        weights__value__head__bound=full(0.1),
        weights__value__head__max=full(0.1),
        train__explained_variance=full(0.2),
    ),
    "units_dead": record(rollout__ep_rew_mean=FLAT, plasticity__policy__hidden_0__dormant_share=full(0.95)),
    "updates_run_away": record(rollout__ep_rew_mean=FALLEN, train__approx_kl=full(0.4)),
    "updates_asleep": record(
        rollout__ep_rew_mean=FLAT, train__approx_kl=full(1e-6), train__clip_fraction=full(0.0)
    ),
    "exploration_over": record(rollout__ep_rew_mean=FLAT, train__entropy_fraction=full(0.001)),
    "noise_grows": record(rollout__ep_rew_mean=FLAT, train__std=np.linspace(1.0, 4.0, ROWS)),
    "values_blind": record(rollout__ep_rew_mean=FLAT, train__explained_variance=full(-0.1)),
    "policy_still_random": record(rollout__ep_rew_mean=FLAT, train__entropy_fraction=full(0.999)),
    "network_tired": record(
        rollout__ep_rew_mean=FALLEN,
        plasticity__policy__hidden_1__effective_rank=np.linspace(10.0, 2.0, ROWS),
        plasticity__policy__hidden_1__saturated_units=np.linspace(0.0, 0.6, ROWS),
    ),
    "rule_undoes_updates": record(
        ['interventions=[{rule="shrinkage", rate=0.9}]'],
        rollout__ep_rew_mean=FLAT,
        intervention__shrinkage__relative_change=full(0.5),
    ),
    "fallen_from_its_best": record(rollout__ep_rew_mean=FALLEN),
    "below_its_start": record(rollout__ep_rew_mean=np.linspace(-10.0, -90.0, ROWS)),
    "nothing_learnt": record(rollout__ep_rew_mean=FLAT),
    "below_its_claim": record(["expect.mean_reward=475"], rollout__ep_rew_mean=np.sqrt(np.arange(ROWS)) + 20),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_finding_is_the_planted_one(name):
    diagnosis = judge(CASES[name])
    found = [each.symptom for each in diagnosis.findings]
    assert found[0] == name, found
    assert not diagnosis.healthy
    first = diagnosis.findings[0]
    assert "{" not in first.text
    if first.kind != "harm":
        assert first.causes
    for each in first.advice:
        agent_file.parse(CASES[name].agent.model_dump(by_alias=True, exclude_none=True), "test", [each])


def test_every_symptom_that_is_no_note_has_a_case():
    told = {each.name for each in SYMPTOMS if each.kind != "note"}
    # Both need what these courses cannot be: without episodes, of one length, off a target.
    rest = {"episodes_never_end", "reward_per_step_constant", "noise_off_target"}
    assert told == CASES.keys() | rest
    assert len({each.name for each in SYMPTOMS}) == len(SYMPTOMS)


def test_mechanisms_without_harm_are_no_findings():
    """The best HalfCheetah run that was measured had such values."""
    run = record(train__approx_kl=full(0.3), train__clip_fraction=full(0.75), rollout__return_std=full(500.0))
    assert judge(run).healthy
    assert {each.kind for each in judge(record()).findings} == {"note"}


def test_a_run_that_reaches_its_claim_is_healthy():
    assert judge(record(["expect.mean_reward=20"], rollout__ep_rew_mean=FLAT)).healthy


def test_half_of_a_budget_is_no_verdict_and_old_runs_say_what_they_lack():
    run = record(rollout__ep_rew_mean=FLAT)
    early = RunRecord(
        run.agent, {tag: ScalarSeries(s.steps[:15], s.values[:15]) for tag, s in run.table.items()}
    )
    assert judge(early).healthy
    assert not judge(early).final
    old = {tag: s for tag, s in run.table.items() if tag != "rollout/return_std"}
    assert judge(RunRecord(run.agent, old)).unjudged["rewards_large"] == "rollout/return_std"
    assert "rewards_large" not in judge(run).unjudged


def test_what_came_first_is_told_first():
    late = np.where(np.arange(ROWS) < 40, 1.0, 0.001)
    run = record(rollout__ep_rew_mean=FALLEN, train__approx_kl=full(0.4), train__entropy_fraction=late)
    assert [each.symptom for each in judge(run).findings][:3] == [
        "updates_run_away",
        "exploration_over",
        "fallen_from_its_best",
    ]


def test_phases_are_judged_by_their_ends():
    swinging = np.tile([400.0, 20.0], ROWS // 2)
    phases = {"rollout__phase__number": np.arange(12.0), "rollout__phase__end_return": full(300.0)[:12]}
    assert judge(record(rollout__ep_rew_mean=swinging, **phases)).findings[0].symptom == "nothing_learnt"
    phases["rollout__phase__end_return"] = np.linspace(100.0, 300.0, 12)
    assert judge(record(rollout__ep_rew_mean=swinging, **phases)).healthy


def test_seeds_that_end_apart_are_named():
    runs = [record(rollout__ep_rew_mean=FLAT + offset) for offset in (0.0, 5.0, 200.0)]
    assert "3 seeds end between" in seeds_apart(runs)
    assert seeds_apart(runs[:2]) == ""
    assert seeds_apart([record() for _ in range(3)]) == ""


def test_real_runs_are_read_from_their_folders(tmp_path):
    run = small_run()
    diagnosis = diagnose(run)
    assert diagnosis.run == str(run)
    assert diagnosis.used == 1.0
    json.dumps(diagnosis.to_json())
    with pytest.raises(ConfigError, match="no run folder"):
        diagnose(tmp_path)
    tags = RunRecord.of(run).table
    wanted = ("return_std", "reward_nonzero_share", "reward_outlier", "truncated_share", "action_top_share")
    for name in (*wanted, "observation_scale", "observation_constant_share", "ep_rew_min", "ep_rew_max"):
        assert f"rollout/{name}" in tags
    for tag in ("train/approx_kl_last", "train/entropy_fraction", "update/policy_grad_norm"):
        assert tag in tags


def test_what_is_no_number_is_left_out():
    table = read_table("env_steps,a,b\n10,1.5,\n20,nonsense,2\ntorn,1,1\n30,3\n")
    assert list(table["a"].values) == [1.5]
    assert list(table["b"].steps) == [20]
    assert read_table("") == {}
