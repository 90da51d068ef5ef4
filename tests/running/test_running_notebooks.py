"""What notebooks show: reprs as text and HTML, and a bar that moves, without any notebook at hand."""

import io
import sys
from types import SimpleNamespace

import pytest

from rlweights.running import notebooks
from rlweights.running.recipe import Recipe
from rlweights.running.records.console import Console
from rlweights.running.trained import TrainedAgent
from support.smallruns import small_run


def test_a_table_takes_nothing_for_html():
    found = notebooks.table("<b>", {"a": "<script>", "b": 3})
    assert "&lt;b&gt;" in found
    assert "&lt;script&gt;" in found
    assert "<script>" not in found


def test_agents_recipes_and_results_say_what_they_are():
    agent = TrainedAgent(small_run())
    text = repr(agent)
    assert text.startswith(f"TrainedAgent({str(small_run())!r}, CartPole-v1, ppo, best at ")
    assert "mean return " in text
    assert "CartPole-v1" in agent._repr_html_()
    result = agent.evaluate(2)
    assert repr(result).startswith(
        f"Result(2 episodes, mean return {result.mean:.2f} +- {result.std:.2f}, mean length"
    )
    page = Recipe("cartpole", {"seed": 3})._repr_html_()
    assert "Recipe cartpole" in page
    assert "clipping" in page
    assert "seed=3" in page


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook would show, newest last."""
    shown = []
    handle = SimpleNamespace(update=shown.append)

    def display(content, display_id):
        shown.append(content)
        return handle

    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1))
    )
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    monkeypatch.setattr(notebooks.NotebookBar, "EVERY", 0.0)
    return shown


def test_a_notebook_has_a_bar_that_goes_away(notebook):
    file = io.StringIO()
    console = Console(100, file=file)
    console.start(["agent        a"])
    console.update(50, {"rollout/ep_rew_mean": 7.0}, 10.0)
    console.doing("evaluating 3 episodes")
    console.summary({"run": "r"})
    assert 'value="0" max="100"' in notebook[0]
    assert 'value="50" max="100"' in notebook[1]
    assert "50/100, return 7.00, 10.0 steps/s, 0:00:05 left" in notebook[1]
    assert "evaluating 3 episodes" in notebook[2]
    assert notebook[-1] == ""
    assert "run          r" in file.getvalue()
    assert "\x1b" not in file.getvalue()


def test_elsewhere_there_is_no_notebook(monkeypatch):
    assert not notebooks.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not notebooks.in_notebook(), "IPython in a terminal has no kernel"
