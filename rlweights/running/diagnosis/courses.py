"""Symptoms of the course of a run: mechanisms, harm, and what is worth a note."""

import numpy as np

from rlweights.learning.intervals import trend
from rlweights.running.diagnosis import advice
from rlweights.running.diagnosis.record import RETURN, RunRecord, ScalarSeries
from rlweights.running.diagnosis.table import Sign, first_of, lasting, symptom

# Mechanisms ---------------------------------------------------------------------------------------


@symptom(
    "mechanism",
    "{share:.0%} of the units of {layer} are dormant: nothing passes them",
    causes=("the rate has killed relu units", "weights have been pulled to where units are silent"),
    advice=lambda agent: [advice.rate(agent, 0.1), 'network.activation="tanh"'],
    chart="plasticity",
)
def _units_dead(run: RunRecord) -> Sign | None:
    return first_of(
        lasting(series, series.values > 0.8, share=series.last, layer="/".join(tag.split("/")[1:-1]))
        for tag, series in run.matching(r"plasticity/.*/dormant_share").items()
    )


@symptom(
    "mechanism",
    "updates run away: the KL divergence of an update is {value:.2g} (its last epoch: {last:.2g})",
    causes=("the rate is too high", "too many epochs", "rewards are not scaled", "batches are too small"),
    advice=advice.smaller_steps,
    confused="continuous control that learns well at such values",
    chart="stability",
    study="too_high_a_rate_half_cheetah",
)
def _updates_run_away(run: RunRecord) -> Sign | None:
    series = run.series("train/approx_kl").settled
    since = series.since(series.values > 0.05)
    if since is None and series.values.max() > 1.0:
        since = int(series.steps[np.argmax(series.values > 1.0)])
    if since is None:
        return None
    final = run.series("train/approx_kl_last") if run.has("train/approx_kl_last") else series
    return Sign(since, {"value": float(series.values.max()), "last": float(final.values.max())})


@symptom(
    "mechanism",
    "updates are asleep: KL divergence {value:.1g}, no ratio clipped, while the return stands still",
    causes=("the rate is too small", "weights have grown", "max_grad_norm is tiny"),
    advice=lambda agent: [advice.rate(agent, 10.0), "algorithm.max_grad_norm=0.5"],
    confused="a run that has converged, or whose rate has fallen to 0",
    chart="stability",
)
def _updates_asleep(run: RunRecord) -> Sign | None:
    kl, clipped = run.series("train/approx_kl"), run.series("train/clip_fraction")
    rows = min(len(kl.values), len(clipped.values))
    still = (kl.values[-rows:] < 1e-4) & (clipped.values[-rows:] < 0.01)
    return lasting(kl, still, value=kl.last)


@symptom(
    "mechanism",
    "the policy is sure of itself: its entropy has fallen to {share:.1%} of the largest",
    causes=("the rate is too high", "rewards outweigh the entropy bonus", "there is no bonus"),
    advice=lambda agent: [*advice.exploring(agent), advice.rate(agent, 1 / 3)],
    confused="a task that is solved: then the return is at its best",
    study="new_tasks_cartpole",
)
def _exploration_over(run: RunRecord) -> Sign | None:
    series = run.series("train/entropy_fraction")
    return lasting(series, series.values < 0.05, share=series.last)


@symptom(
    "mechanism",
    "the deviation of actions grows: from {first:.2g} to {last:.2g}",
    causes=(
        "ent_coef with many dimensions of actions",
        "actions outside give no gradient",
        "there is no signal",
    ),
    advice=lambda agent: ["algorithm.ent_coef=0.0", "environment.normalize_rewards=true"],
)
def _noise_grows(run: RunRecord) -> Sign | None:
    series = run.series("train/std")
    least = np.minimum.accumulate(series.values)
    return lasting(series, series.values > 1.5 * least, first=float(least[-1]), last=series.last)


@symptom(
    "mechanism",
    "the value network explains nothing of the returns: explained variance {value:.2f}",
    causes=("rewards are not scaled", "observations are not normalized", "what decides is not observed"),
    advice=lambda agent: ["environment.normalize_rewards=true", "environment.normalize_observations=true"],
    confused="returns that do not vary: then it is 0",
)
def _values_blind(run: RunRecord) -> Sign | None:
    series = run.series("train/explained_variance").settled
    blind = (series.values < 0.1) & (series.values != 0.0)
    return None if run.used < 0.2 else lasting(series, blind, value=series.last)


@symptom(
    "mechanism",
    "the policy has stayed as random as it began: its entropy is {share:.0%} of the largest",
    causes=("rewards say nothing yet", "a fault of the environment", "the rate is too small"),
    advice=lambda agent: [advice.rate(agent, 3.0)],
    confused="an entropy bonus that keeps it so",
)
def _policy_still_random(run: RunRecord) -> Sign | None:
    series = run.series("train/entropy_fraction")
    return None if run.used < 0.3 else lasting(series, series.values > 0.95, share=series.last)


@symptom(
    "mechanism",
    "the network is tired: in {layer} {share:.0%} of the units are dormant or saturated, rank {rank:.1f}",
    causes=("too many epochs", "weights have grown", "the task has changed"),
    advice=lambda agent: ['interventions=[{rule="clipping", bound=1.5}]', "network.layer_norm=true"],
    confused="runs whose return is at its best: then it is no matter",
    chart="plasticity",
    study="turning_half_cheetah",
)
def _network_tired(run: RunRecord) -> Sign | None:
    if run.harm is None or run.harm.kind != "fallen":
        return None
    for tag, rank in run.matching(r"plasticity/policy/.*/effective_rank").items():
        layer = tag.removesuffix("/effective_rank")
        shares = [run.table.get(f"{layer}/{each}") for each in ("dormant_share", "saturated_units")]
        share = max((float(each.values[-1]) for each in shares if each is not None), default=0.0)
        if share > 0.3 and rank.values[-1] < 0.5 * rank.values.max():
            onset = int(rank.steps[np.argmax(rank.values < 0.5 * rank.values.max())])
            numbers = {"layer": layer.removeprefix("plasticity/"), "share": share}
            return Sign(onset, numbers | {"rank": float(rank.values[-1])})
    return None


@symptom(
    "mechanism",
    "`{rule}` takes back what the optimizer does: its change is {ratio:.0%} of the update's",
    causes=("the rule is too strong",),
    advice=lambda agent: [
        *advice.scaled(agent, ("clipping",), "bound", 3.0),
        *advice.scaled(agent, ("shrinkage",), "rate", 0.1),
    ],
    chart="interventions",
)
def _rule_undoes_updates(run: RunRecord) -> Sign | None:
    updates = run.series("update/update_to_weight_ratio")
    steps = run.series("update/applied")
    rules = run.matching(r"intervention/(clipping|shrinkage|projection)/relative_change", 8)

    def told(rule: str, change: ScalarSeries) -> Sign | None:
        rows = min(len(change.values), len(updates.values), len(steps.values))
        each = updates.values[-rows:] / np.maximum(steps.values[-rows:], 1.0)
        ratios = change.values[-rows:] / np.maximum(each, 1e-12)
        ratio = float(np.median(ratios[-change.window :]))
        return lasting(change, change.values[-rows:] > 0.9 * each, rule=rule, ratio=ratio)

    return first_of(told(tag.split("/")[1], change) for tag, change in rules.items())


# Harm ---------------------------------------------------------------------------------------------


def _harmed(run: RunRecord, kind: str) -> Sign | None:
    harm = run.harm
    return None if harm is None or harm.kind != kind else Sign(harm.since, harm.numbers)


@symptom(
    "harm",
    "the return has fallen from {best:,.4g} to {last:,.4g}",
    causes=("updates run away", "exploration is over", "the network is tired"),
    advice=advice.smaller_steps,
    confused="a task that has changed; best/weights holds what was reached",
)
def _fallen_from_its_best(run: RunRecord) -> Sign | None:
    return _harmed(run, "fallen")


@symptom(
    "harm",
    "the return is below that of the beginning: {last:,.4g} after {first:,.4g}",
    causes=("a sign of the reward", "a fault of the environment", "penalties that teach to do nothing"),
    advice=advice.smaller_steps,
    confused="exploration that costs: look at eval/mean_reward",
)
def _below_its_start(run: RunRecord) -> Sign | None:
    return _harmed(run, "below_start")


@symptom(
    "harm",
    "nothing is learnt: the return was {first:,.4g} and is {last:,.4g}",
    causes=(
        "a fault of the environment",
        "the budget is too small",
        "rewards are rare",
        "observations are not scaled",
    ),
    advice=lambda agent: [
        f"budget.total_timesteps={4 * agent.budget.total_timesteps}",
        "environment.normalize_observations=true",
    ],
    confused="a slow task",
)
def _nothing_learnt(run: RunRecord) -> Sign | None:
    return _harmed(run, "nothing_learnt")


@symptom(
    "harm",
    "the agent file expects {claim:g}, and the return is {last:,.4g}",
    causes=("the seed", "the budget is too small", "settings that were changed"),
    advice=lambda agent: [f"budget.total_timesteps={2 * agent.budget.total_timesteps}"],
)
def _below_its_claim(run: RunRecord) -> Sign | None:
    return _harmed(run, "below_claim")


# Notes --------------------------------------------------------------------------------------------


@symptom(
    "note",
    "the return still rises at the end: by {gain:,.3g} in the last third",
    causes=("the budget is too small",),
    advice=lambda agent: [f"budget.total_timesteps={3 * agent.budget.total_timesteps}"],
    alone=True,
)
def _budget_short(run: RunRecord) -> Sign | None:
    series = run.series(RETURN)
    third = len(series.values) // 3
    late = series.values[-third:]
    gain, whole = late[-1] - late[0], np.ptp(series.values)
    rises = third >= 4 and trend(late) > 0.0 and gain > max(0.2 * whole, 3.0 * series.noise)
    return Sign(int(series.steps[-third]), {"gain": float(gain)}) if rises and run.ended else None


@symptom(
    "note",
    "the most likely actions return {greedy:,.4g}, drawn ones {sampled:,.4g}",
    causes=("the best policy is random", "what decides is not observed", "other wrappers in evaluations"),
    advice=lambda agent: ["evaluation.deterministic=false"],
    confused="evaluations of another environment",
    alone=True,
)
def _greedy_and_sampled_apart(run: RunRecord) -> Sign | None:
    if not run.agent.evaluation.deterministic:
        return None
    upper = run.matching("eval/mean_reward_upper")["eval/mean_reward_upper"]
    series = run.series(RETURN)
    reached = np.interp(upper.steps[-3:], series.steps, series.values)
    apart = upper.values[-3:] < reached - 0.2 * np.ptp(series.values)
    if not apart.all():
        return None
    greedy = run.table["eval/mean_reward"]
    return Sign(int(upper.steps[-3]), {"greedy": float(greedy.values[-1]), "sampled": series.last})


@symptom(
    "note",
    "the time limit cuts off {share:.0%} of the episodes, and values explain {value:.2f} of the returns",
    causes=("the limit hides what comes after it", "the time is not observed"),
    confused="tasks of a fixed length",
)
def _time_limit_matters(run: RunRecord) -> Sign | None:
    series, values = run.series("rollout/truncated_share"), run.series("train/explained_variance")
    if values.last > 0.2:
        return None
    return lasting(series, series.values > 0.5, share=series.last, value=values.last)


@symptom(
    "note",
    "every episode ends after {length:.0f} steps, and none is said to be cut off: a time limit in disguise?",
    causes=("terminated is sent where truncated is meant",),
    confused="tasks that end at a fixed step for good",
)
def _time_limit_in_disguise(run: RunRecord) -> Sign | None:
    lengths, cut = run.series("rollout/ep_len_mean"), run.series("rollout/truncated_share")
    if np.ptp(lengths.values) > 1e-6 or cut.values.any() or lengths.values[0] < 10.0:
        return None
    return Sign(int(lengths.steps[0]), {"length": float(lengths.values[0])})


@symptom(
    "note",
    "one action is taken in {share:.0%} of all steps, and the return is not at its best",
    causes=("doing nothing pays more than trying", "penalties come first"),
    advice=advice.exploring,
)
def _passive(run: RunRecord) -> Sign | None:
    series = run.series("rollout/action_top_share")
    return lasting(series, series.values > 0.95, share=series.last)


@symptom(
    "note",
    "{share:.0%} of the observation's numbers never change",
    causes=("a constant feature",),
    confused="features that only some states have",
)
def _observations_constant(run: RunRecord) -> Sign | None:
    series = run.series("rollout/observation_constant_share")
    return lasting(series, series.values > 0.0, share=series.last)


@symptom(
    "note",
    "evaluations take {ratio:.1f} times as many steps as the training between them",
    causes=("episodes are long", "evaluation.every is small"),
    advice=lambda agent: [f"evaluation.every={5 * agent.evaluation.every}"],
    alone=True,
)
def _evaluations_dominate(run: RunRecord) -> Sign | None:
    section = run.agent.evaluation
    if not section.every:
        return None
    lengths = run.matching("eval/mean_ep_length")["eval/mean_ep_length"]
    ratio = float(np.median(lengths.values)) * section.episodes / section.every
    return Sign(int(lengths.steps[0]), {"ratio": ratio}) if ratio > 1.0 else None
