"""The studies that come with the package: rules of their own, and a small version of each, trained."""

import importlib.util

import numpy as np
import pytest

from rlweights import testing
from rlweights.experiments import study_file
from rlweights.experiments.study import Study
from rlweights.experiments.study_file import Plan

SHIPPED = study_file.shipped()
SCALES = {
    "averaging": 0.02,
    "far_end": 0.02,
    "new_tasks_acrobot": 0.06,
    "new_tasks_cartpole_long": 0.001,
    "turning_half_cheetah_long": 0.004,
}
"""By the beginning of the name: how small is small enough; 0.01 for the others."""


def scale_of(name):
    return next((scale for begin, scale in SCALES.items() if name.startswith(begin)), 0.01)


def reset_class():
    spec = importlib.util.spec_from_file_location("rlweights_study_reset", study_file.STUDIES / "reset.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Reset


def test_the_rule_of_the_ceiling_is_sound():
    testing.check(reset_class()(every=2))
    with pytest.raises(ValueError, match="must be at least 1"):
        reset_class()(every=0)


@pytest.mark.parametrize("name", SHIPPED)
def test_first_and_last_arm_can_be_put_together(name):
    plan = Plan(name, scale_of(name))
    arms = list(plan.file.arms)
    for arm in dict.fromkeys([plan.file.baseline, arms[-1]]):
        plan.check(arm)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_arm_can_be_put_together(name):
    plan = Plan(name)
    for arm in plan.file.arms:
        plan.check(arm)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_small_version_is_trained_and_compared(name, tmp_path):
    study = Study(name, scale=scale_of(name), folder=tmp_path)
    arms = list(study.plan.file.arms)[:2]
    assert study.plan.file.baseline in arms
    assert study.run(arms, 1, quiet=True) == 0, study.failed
    assert {arm for arm, _ in study.results.rows} == set(arms)
    for row in study.results.rows.values():
        assert np.isfinite(row.values[0])
        assert row.curve
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert f"| {arms[0]} | 1 of " in table
    assert (tmp_path / "curves.png").exists()
