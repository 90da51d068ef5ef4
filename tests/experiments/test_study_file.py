"""Study files: what follows from them, and what is wrong with them in one line."""

import tomllib

import pytest

from rlweights.errors import ConfigError
from rlweights.experiments import study_file as studies
from rlweights.experiments.study_file import Plan
from support.studies import study_file

SHIPPED = studies.shipped()


def test_trials_are_the_agent_with_what_differs(tmp_path):
    plan = Plan(study_file(tmp_path))
    plain, small, clipped = map(plan.agent, ("plain", "small", "clipped"))
    assert plain.budget.total_timesteps == 4096
    assert (plain.algorithm.gamma, small.algorithm.gamma) == (0.98, 0.9)
    assert [rule.rule for rule in clipped.interventions] == ["clipping"]
    trial = plan.trial("small", 5, tmp_path / "runs")
    assert trial.folder == tmp_path / "runs" / "small" / "5"
    assert trial.overrides[-1] == "seed=5"
    assert (trial.name, trial.threads) == ("small, seed 5", 1)


def test_the_scale_shortens_what_the_study_names(tmp_path):
    path = study_file(
        tmp_path, ("seeds =", 'scales = ["budget.total_timesteps", "evaluation.every"]\nseeds =')
    )
    plan = Plan(path, 0.25)
    assert plan.name == "discount-x0.25"
    agent = plan.agent("plain")
    assert (agent.budget.total_timesteps, agent.evaluation.every) == (1024, 5_000)
    least = Plan(path, 1e-6).agent("plain")
    assert (least.budget.total_timesteps, least.evaluation.every) == (256, 1)  # one iteration


def test_a_digest_is_that_of_what_is_trained_and_measured(tmp_path):
    plan = Plan(study_file(tmp_path))
    assert len({plan.digest(arm) for arm in plan.file.arms}) == 3
    for change, same in (
        (("seeds = [3, 4, 5]", "seeds = [4, 5]"), True),
        (('question = "Is', 'question = "Was'), True),
        (('[arms.small]\nset = { "algorithm.gamma" = 0.9 }', "[arms.small]"), True),  # another arm
        (('budget.total_timesteps" = 4096', 'budget.total_timesteps" = 8192'), False),
        (("after = 0.5", "after = 0.25"), False),
        (('agent = "cartpole_plain"', 'agent = "cartpole_a2c"'), False),
    ):
        other = Plan(study_file(tmp_path, change, name="other"))
        assert (other.digest("plain") == plan.digest("plain")) is same, change


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'agent = "cartpole_plain"',
            'agent = "cartpol"',
            r"arms\.plain: 'cartpol' is no agent\. Did you mean",
        ),
        ("baseline =", "basline =", "basline = 'plain': there is no such key. Did you mean 'baseline'"),
        (
            "bound = 3.0 }]",
            'bound = 3.0 }]\nbaseline = "smal"',
            "arms.clipped.baseline = 'smal': is no arm. Did you",
        ),
        ('baseline = "plain"', 'baseline = "plane"', "baseline = 'plane': is no arm. Did you mean 'plain'"),
        ("algorithm.gamma", "algorithm.gama", r"arms\.small: .*algorithm\.gama = 0\.9: there is no such key"),
        ("seeds = [3, 4, 5]", "seeds = []", "seeds = "),
        ("seeds = [3, 4, 5]", "seeds = [3, 3]", "seeds: 3 stands there twice"),
        ('title = "steps until 200"', 'title = "return"', "measures: 'return' stands there twice"),
        ("threshold = 200.0", "", "'first_step_at_least' needs a threshold"),
        ("after = 0.5", "threshold = 0.5", "'mean' takes no threshold"),
        ("after = 0.5", "after = 1.5", r"measures\.0\.after = 1\.5: must be less than 1"),
        ('take = "first_step_at_least"', 'take = "first"', r"measures\.1\.take = 'first': must be 'mean'"),
        ("[arms.small]", '[arms."a b"]', r"arms\.a b: a name has small letters, digits"),
        ("question", "= question", "not valid TOML"),
    ],
)
def test_mistakes_are_one_line_that_names_file_and_key(tmp_path, old, new, says):
    path = study_file(tmp_path, (old, new))
    with pytest.raises(ConfigError, match=says) as caught:
        Plan(path)
    assert "discount.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_there_is_not_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"'turning_half_chetah' is no study\. Did you mean 'turning_half_cheetah'"
    ):
        Plan("turning_half_chetah")
    with pytest.raises(ConfigError, match=r"no\.toml: no such file"):
        Plan(tmp_path / "no.toml")
    for scale in (0.0, -1.0, 1.5):
        with pytest.raises(ConfigError, match="must be more than 0, and 1 at most"):
            Plan(study_file(tmp_path), scale)
    path = study_file(tmp_path, ("seeds =", 'scales = ["budget.steps"]\nseeds ='))
    with pytest.raises(ConfigError, match=r"arms\.plain: scales: the agent has no 'budget\.steps'"):
        Plan(path, 0.5)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_study_can_be_trained_at_any_scale(name):
    whole, tiny = Plan(name), Plan(name, 0.001)
    assert len(whole.file.seeds) >= 5
    text = SHIPPED[name].read_text(encoding="utf-8")
    assert text.startswith("# "), "a comment says what it is"
    assert tomllib.loads(text)["baseline"] in whole.file.arms
    for arm in whole.file.arms:
        agent = tiny.agent(arm)
        assert agent.total_iterations >= 1
        assert agent.budget.total_timesteps < whole.agent(arm).budget.total_timesteps
    digests = [whole.digest(arm) for arm in whole.file.arms]
    assert len(set(digests)) == len(digests), "two arms are the same"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("bound = 3.0", "bond = 3.0", r"arms\.clipped: .*interventions\.0\.bond = 3\.0: .*'bound'"),
        (
            'rule = "clipping"',
            'rule = "cliping"',
            r"arms\.clipped: .*interventions\.0\.rule = 'cliping': .*'clipping'",
        ),
        (
            "algorithm.gamma",
            "environment.kwargs.wind",
            r"arms\.small: .*environment\.kwargs\.wind = 0\.9: is no argument",
        ),
    ],
)
def test_rules_and_environments_judge_before_anything_is_trained(tmp_path, old, new, says):
    plan = Plan(study_file(tmp_path, (old, new)))
    plan.check("plain")
    with pytest.raises(ConfigError, match=says) as caught:
        [plan.check(arm) for arm in plan.file.arms]
    assert "\n" not in str(caught.value)
