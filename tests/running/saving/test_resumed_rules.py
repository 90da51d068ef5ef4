"""Rules with masks, counts and averages in a run that is killed: it ends like one that was not."""

from support.simulated import Machine, Mortal, assert_same_result, result

RULES = [
    {"rule": "pruning", "sparsity": 0.5, "initial": 0.3, "regrowth": 0.5, "begin": 4, "end": 40, "every": 6},
    {"rule": "continual_backpropagation", "rate": 0.05, "maturity": 3, "every": 2},
    {"rule": "freezing", "until": 20, "every": 8, "on": "path('policy/.*')"},
    {"rule": "averaging", "kind": "uniform", "begin": 12, "every": 5},
    {"rule": "spectral_norm", "norm": 2.0, "only_above": True, "on": "path('value/.*kernel')"},
    {"rule": "quantization", "bits": 3, "on": "path('policy/hidden_.*/kernel')"},
    {"rule": "sharpness_aware", "radius": 0.01},
    {"rule": "clustering", "clusters": 3, "on": "path('policy/head/kernel')"},
]


def test_what_rules_remember_is_in_the_checkpoint(tmp_path):
    computer = Machine(interventions=RULES)
    whole, broken = computer.folder(tmp_path), computer.folder(tmp_path)
    computer.train(whole)
    life = Mortal(computer, 66, True)
    with life.living():
        computer.train(broken)
    assert life.dead
    computer.train(broken, resume=True)
    assert_same_result(result(broken), result(whole))
