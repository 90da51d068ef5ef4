"""How fast a run is."""

from rlweights.running.records.throughput import Rate


def test_the_rate_leaves_out_compilation_and_evaluations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    rate = Rate()
    now[0] = 30.0  # compiling
    rate.tick(1000)
    assert rate.value is None
    now[0] = 30.5
    rate.tick(1000)
    assert rate.value == 2000.0
    with rate.paused():
        now[0] = 90.5
    now[0] = 92.5
    rate.tick(3000)
    assert rate.value == 1500.0
    assert (rate.seconds, rate.paused_seconds) == (2.5, 60.0)
    assert rate.mean == 4000 / 2.5
