"""A ward: agents that are made sick on purpose, and what `diagnose` says of each.

    python benchmarks/ward.py [--diseases NAME ...] [--seeds N] [--workers N] [--runs FOLDER]

Each disease is a change of a healthy agent, on CartPole, Acrobot and Pendulum where it applies. Prints how
often the first finding is the planted one, how often it is among the first three, and every run that was
judged otherwise. Healthy agents are on the ward, too: any finding of theirs that is no note is false. Runs
that are there already are judged again, not trained again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlweights.backend import configure

configure()

from rlweights.experiments.workers import Processes, Trial
from rlweights.running.diagnosis.judgement import diagnose

WRAPPERS = Path(__file__).parent / "wrappers" / "sick.py"

BASES = {
    "CartPole": ("cartpole_plain", ("budget.total_timesteps=50_000",)),
    "Acrobot": ("cartpole_plain", ('environment.id="Acrobot-v1"', "budget.total_timesteps=60_000")),
    "Pendulum": ("pendulum", ("interventions=[]", "budget.total_timesteps=100_000")),
}
"""Agents that learn within their budget when they are healthy, whatever they claim."""

COMMON = ("evaluation.every=0", "evaluation.final_episodes=0", "checkpoint.every=0", 'expect="none"')


def wrapped(name: str, **arguments: float) -> str:
    """The override that puts one of the ward's wrappers around the environment."""
    given = "".join(f", {key} = {value}" for key, value in arguments.items())
    return f'environment.wrappers=[{{ name = "{WRAPPERS}:{name}"{given} }}]'


@dataclass(frozen=True)
class Disease:
    """One way to be sick.

    Attributes:
        overrides: What it changes.
        right: Findings that name it.
        where: On which bases.
    """

    overrides: tuple[str, ...]
    right: tuple[str, ...]
    where: tuple[str, ...] = tuple(BASES)


DISCRETE = ("CartPole", "Acrobot")
DISEASES = {
    "healthy": Disease((), ()),
    "rate x 100": Disease(
        ("algorithm.learning_rate=0.1",), ("updates_run_away", "exploration_over", "units_dead")
    ),
    "gamma 0.5": Disease(("algorithm.gamma=0.5",), ("horizon_short",)),
    "features of unequal scale": Disease(
        (wrapped("OneFeatureTimes", factor=1e4), "environment.normalize_observations=false"),
        ("observations_of_unequal_scale",),
    ),
    "rewards x 1e4": Disease(
        (wrapped("RewardTimes", factor=1e4), "environment.normalize_rewards=false"), ("rewards_large",)
    ),
    "rewards x 1e-5": Disease(
        (wrapped("RewardTimes", factor=1e-5), "environment.normalize_rewards=false"), ("rewards_small",)
    ),
    "one reward of -100": Disease((wrapped("EndPenalty", value=-100.0),), ("reward_outlier",), ("CartPole",)),
    "bound 0.01": Disease(('interventions=[{rule="clipping", bound=0.01}]',), ("bound_too_tight",)),
    "noise of 2": Disease(('interventions=[{rule="noise", stddev=2.0}]',), ("noise_too_strong",)),
    "no reward": Disease((wrapped("RewardTimes", factor=0.0),), ("no_reward_seen",)),
    "entropy bonus 2": Disease(("algorithm.ent_coef=2.0",), ("entropy_bonus_rules", "noise_grows")),
    "target_kl 1e-6": Disease(("algorithm.target_kl=1e-6",), ("updates_cut_short",)),
    "value clip 1e-3": Disease(
        ("algorithm.clip_range_vf=0.001",), ("value_clip_too_tight", "values_blind"), ("Acrobot", "Pendulum")
    ),
    "rollouts of 4 steps": Disease(
        ("algorithm.n_steps=4", "algorithm.batch_size=32"), ("rollouts_short",), ("Acrobot", "Pendulum")
    ),
    "rate / 1e4": Disease(("algorithm.learning_rate=1e-7",), ("updates_asleep", "policy_still_random")),
}


def overrides(disease: str, base: str) -> tuple[str, ...]:
    """What `--set` would be given."""
    return (*BASES[base][1], *COMMON, *DISEASES[disease].overrides)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--diseases", nargs="+", default=list(DISEASES), choices=DISEASES, metavar="NAME")
    parser.add_argument("--bases", nargs="+", default=list(BASES), choices=BASES, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "ward")
    arguments = parser.parse_args()
    cases = [
        (name, base, seed)
        for name in arguments.diseases
        for base in arguments.bases
        if base in DISEASES[name].where
        for seed in range(arguments.seeds)
    ]
    folders = {case: arguments.runs / case[0].replace(" ", "_") / case[1] / str(case[2]) for case in cases}
    trials = [
        Trial(
            "/".join(map(str, case)),
            BASES[case[1]][0],
            None,
            (*overrides(case[0], case[1]), f"seed={case[2]}"),
            arguments.runs,
            folder=folders[case],
            threads=1,
        )
        for case in cases
    ]
    failed = {}
    for ended in Processes(arguments.workers).train(trials):
        if ended.code:
            failed[ended.trial.name] = ended.error
    report(cases, folders, failed)


def report(cases: Sequence[tuple[str, str, int]], folders: dict, failed: dict[str, str]) -> None:
    """Prints the table of the ward."""
    print("| disease | runs | first | among three | judged otherwise |\n|---|---|---|---|---|")
    total = [0, 0, 0]
    for name in dict.fromkeys(name for name, *_ in cases):
        right, counts, others = DISEASES[name].right, [0, 0, 0], []
        for case in (case for case in cases if case[0] == name):
            counts[0] += 1
            try:
                found = [each.symptom for each in diagnose(folders[case]).findings if each.kind != "note"]
            except Exception as error:
                found = [failed.get("/".join(map(str, case))) or str(error)]
            first = not found if name == "healthy" else bool(found) and found[0] in right
            counts[1] += first
            counts[2] += first or bool({*right} & {*found[:3]})
            if not first:
                others.append(f"{case[1]} {case[2]}: {', '.join(found[:3]) or 'healthy'}")
        print(f"| {name} | {counts[0]} | {counts[1]} | {counts[2]} | {'; '.join(others)} |")
        if name != "healthy":
            total = [a + b for a, b in zip(total, counts, strict=True)]
    if total[0]:
        print(f"| all that are sick | {total[0]} | {total[1] / total[0]:.0%} | {total[2] / total[0]:.0%} | |")


if __name__ == "__main__":
    main()
