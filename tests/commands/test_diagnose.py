"""`rlweights diagnose` and `rlweights check-env`: lines, JSON, a page."""

import json

from support.commandline import refused
from support.smallruns import small_run


def test_diagnose_tells_findings_or_health(rlweights, tmp_path):
    run = small_run()
    code, output, error = rlweights("diagnose", run, "--html", tmp_path / "page.html")
    assert (code, error) == (0, "")
    assert output.startswith(f"{run}: 1,024 steps, 100% of the budget\n")
    assert output.endswith(f"wrote {tmp_path / 'page.html'}\n")
    code, output, _ = rlweights("diagnose", run, "--json")
    assert code == 0
    (found,) = json.loads(output)
    assert found["env_steps"] == 1024
    assert "no run folder" in refused(rlweights("diagnose", tmp_path / "none"))


def test_check_env_tells_facts_and_findings(rlweights, tmp_path):
    code, output, error = rlweights("check-env", "CartPole-v1", "--steps", 200)
    assert (code, error) == (0, "")
    assert "healthy      nothing that is known" in output
    code, output, _ = rlweights("check-env", "CartPole-v1", "--steps", 200, "--json")
    assert json.loads(output)["findings"] == []
    assert "no such environment" in refused(rlweights("check-env", "CartPol-v1"))
    assert "Gymnasium has no such environment" in refused(rlweights("check-env", "Chain"))
