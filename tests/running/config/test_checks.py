"""Keys that are valid alone and not together, and data that no file could hold."""

import pytest

from support.agentdata import MINIMAL, error_of, refused

ROLLOUT = "the rollout of n_steps * num_envs = 128 * 8 = 1024 steps"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["algorithm.batch_size=250"],
            f"algorithm.batch_size = 250: does not divide {ROLLOUT}; the nearest that does is 256",
        ),
        (
            ["algorithm.batch_size=2000"],
            f"algorithm.batch_size = 2000: does not divide {ROLLOUT}; the nearest that does is 1024",
        ),
        (
            ["budget.total_timesteps=1023"],
            f"budget.total_timesteps = 1023: is less than {ROLLOUT}",
        ),
        (
            ["algorithm.n_steps=1000000000", "algorithm.batch_size=7"],
            "algorithm.n_steps = 1000000000: a rollout of n_steps * num_envs = 8000000000 steps is too long",
        ),
        (
            ["budget.total_timesteps=1000000000000"],
            "budget.total_timesteps = 1000000000000: is more than the counters of the compiled step hold; "
            "take more num_envs or fewer n_epochs",
        ),
        (
            ["network.shared=true", "network.value_hidden_sizes=[3]"],
            "network.value_hidden_sizes = [3]: there are no layers of the value network's own with "
            "network.shared = true",
        ),
        (
            ["environment.backend=tensorflow", "environment.wrappers=['X']"],
            "environment.wrappers = ['X']: is for backend 'gymnasium' with vectorization_mode 'sync' or "
            "'async' only",
        ),
        (
            ["environment.vectorization_mode=vector_entry_point", "environment.wrappers=['X']"],
            "environment.wrappers = ['X']: is for backend 'gymnasium' with vectorization_mode 'sync' or "
            "'async' only",
        ),
        (
            ["environment.backend=envpool", "environment.vectorization_mode=async"],
            "environment.vectorization_mode = 'async': is for backend 'gymnasium' only",
        ),
        (
            ["environment.num_threads=2"],
            "environment.num_threads = 2: is for backend 'envpool' only",
        ),
        (
            ["environment.id=mine.py:World", "environment.backend=envpool"],
            "environment.backend = 'envpool': an environment from a file, mine.py:World, needs backend "
            "'gymnasium' or 'tensorflow'",
        ),
        (
            ["environment.kwargs.render_mode=human"],
            "environment.kwargs.render_mode = 'human': is no argument of the environment itself; rlweights "
            "gives it to Gymnasium",
        ),
    ],
)
def test_what_does_not_fit_together(overrides, message):
    assert refused(*overrides) == message


def test_no_recursion_runs_away():
    deep: dict = {}
    for _ in range(200):
        deep = {"a": deep}
    assert error_of({**MINIMAL, "environment": {"id": "X", "kwargs": deep}}) == (
        "environment: nested more than 16 deep"
    )


def test_lone_surrogates_are_refused_before_a_file_fails_to_hold_them():
    assert refused("description=\udcff") == "description = '\\udcff': is not valid Unicode"
    assert refused("environment.kwargs.\udcff=1").endswith("is not valid Unicode")
