"""Alarms: once for each symptom and stretch, the same in a run that was resumed."""

import csv

import numpy as np
import pytest

from rlweights.running.config import agent_file
from rlweights.running.diagnosis.alarms import Alarms
from rlweights.running.records.records import Records

AGENT = agent_file.parse({"environment": {"id": "CartPole-v1"}}, "test", ["budget.total_timesteps=102_400"])
ROWS = 50


def scalars(i):
    """Learns for half of the run, then falls, and comes back in the last tenth."""
    mean = 20.0 + 10.0 * i if i < 25 else (260.0 - 24.0 * (i - 25) if i < 35 else 20.0)
    return {
        "rollout/ep_rew_mean": mean if i < 45 else 300.0,
        "train/approx_kl": 0.2 if 25 <= i < 45 else 0.01,
    }


def train(folder, start=0, end=ROWS):
    """Records rows as a trainer does; returns what was said."""
    said = []
    with Records(folder, resume_step=2_048 * start if start else None) as records:
        alarms = Alarms(folder, AGENT, 2_048 * start if start else -1, said.append)
        for i in range(start, end):
            records.write(2_048 * (i + 1), scalars(i))
            alarms.add(2_048 * (i + 1), scalars(i), records)
    return said


def test_an_alarm_is_told_once_for_each_stretch_and_taken_back(tmp_path):
    said = train(tmp_path)
    assert [line.rsplit("(")[-1] for line in said].count("fallen_from_its_best)") == 1
    assert any("  alarm: the return has fallen from 2" in line for line in said)
    rows = list(csv.DictReader((tmp_path / Alarms.NAME).read_text().splitlines()))
    states = [row["state"] for row in rows if row["symptom"] == "fallen_from_its_best"]
    assert states == ["begun", "ended"]


@pytest.mark.parametrize("killed", [10, 33, 41])
def test_a_resumed_run_gives_the_same_alarms(tmp_path, killed):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    train(whole)
    train(torn, end=killed + 3)
    train(torn, start=killed)
    assert (torn / Alarms.NAME).read_bytes() == (whole / Alarms.NAME).read_bytes()


def test_a_healthy_run_has_no_file(tmp_path):
    said = []
    off = agent_file.parse(
        AGENT.model_dump(by_alias=True, exclude_none=True), "test", ["logging.alarms=false"]
    )
    with Records(tmp_path) as records:
        healthy, silent = Alarms(tmp_path, AGENT, -1, said.append), Alarms(tmp_path, off, -1, said.append)
        for i in range(ROWS):
            row = {"rollout/ep_rew_mean": 20.0 + i, "time/fps": np.nan}
            healthy.add(2_048 * (i + 1), row, records)
            silent.add(2_048 * (i + 1), scalars(i), records)
    assert said == []
    assert not (tmp_path / Alarms.NAME).exists()
