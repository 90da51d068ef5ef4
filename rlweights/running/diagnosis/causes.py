"""Symptoms that name what can be changed: the data, its scale, a setting, a rule."""

import numpy as np

from rlweights.running.diagnosis import advice
from rlweights.running.diagnosis.record import RETURN, RunRecord, ScalarSeries
from rlweights.running.diagnosis.table import Sign, first_of, lasting, symptom

# Nothing finite, nothing to learn from ------------------------------------------------------------

_NONFINITE = ("observations", "rewards", "loss", "gradients", "weights")


@symptom(
    "cause",
    "{skipped:,.0f} updates in the recorded rows were skipped: {what} not finite, first at step {since:,}",
    causes=("the environment returns inf or NaN", "the rate is too high", "rewards grow without bound"),
    advice=lambda agent: [advice.rate(agent, 0.1), "environment.normalize_rewards=true"],
    chart="stability",
    alone=True,
)
def _not_finite(run: RunRecord) -> Sign | None:
    found: list[tuple[int, int, str]] = []
    for order, name in enumerate(_NONFINITE):
        series = run.table.get(f"update/nonfinite_{name}")
        if series is not None and series.values.any():
            found.append((int(series.steps[np.argmax(series.values > 0)]), order, name))
    if not found:
        return None
    since, _, what = min(found)
    skipped = run.table.get("update/skipped")
    total = float(skipped.values.sum()) if skipped is not None else 0.0
    verb = "are" if what.endswith("s") and what != "loss" else "is"
    return Sign(since, {"what": f"the {what} {verb}", "skipped": total})


@symptom(
    "cause",
    "no episode has ended in {steps:,} steps",
    causes=("the environment has no time limit", "the budget is less than one episode of each environment"),
    advice=lambda agent: ["environment.kwargs.max_episode_steps=1000"],
    confused="episodes that are longer than what was trained so far",
    alone=True,
)
def _episodes_never_end(run: RunRecord) -> Sign | None:
    if run.used < 0.2 or not run.has("train/loss") or RETURN in run.table:
        return None
    return Sign(0, {"steps": run.env_steps})


@symptom(
    "cause",
    "no reward was other than 0 in {rows} rows",
    causes=(
        "rewards are too rare to be found by chance",
        "the goal cannot be reached",
        "a fault of the reward",
    ),
    advice=lambda agent: [
        'interventions=[{rule="adaptive_noise", target=0.1}]',
        f"algorithm.ent_coef={advice.number(max(0.02, 4 * advice.entropy_bonus(agent)))}",
    ],
    study="far_end_of_the_chain",
    alone=True,
)
def _no_reward_seen(run: RunRecord) -> Sign | None:
    series = run.series("rollout/reward_nonzero_share")
    if series.values.any():
        return None
    return Sign(int(series.steps[0]), {"rows": len(series.values)})


@symptom(
    "cause",
    "every episode returned the same, {value:g}",
    causes=("the reward does not depend on what is done", "the goal is never reached"),
    confused="a task that is solved from the beginning",
)
def _returns_all_alike(run: RunRecord) -> Sign | None:
    low, high = run.series("rollout/ep_rew_min"), run.series("rollout/ep_rew_max")
    spread = high.values.max() - low.values.min()
    if spread > 1e-6 * max(1.0, abs(high.values.max())):
        return None
    return Sign(int(low.steps[0]), {"value": float(low.values[0])})


@symptom(
    "cause",
    "the reward depends on the length of an episode alone: each step pays the same, {value:g}",
    causes=("the reward is constant", "the end of an episode is all there is to learn"),
    confused="tasks that pay for each step that is survived, and are learned by it",
)
def _reward_per_step_constant(run: RunRecord) -> Sign | None:
    returns, lengths = run.series(RETURN), run.series("rollout/ep_len_mean")
    rates = returns.values / np.maximum(lengths.values, 1.0)
    fixed = np.ptp(lengths.values) <= 1e-6 * lengths.values.max()
    if np.ptp(rates) > 1e-6 * max(1.0, np.abs(rates).max()) or not fixed:
        return None
    return Sign(int(returns.steps[0]), {"value": float(rates[0])})


# The scale of what comes in -----------------------------------------------------------------------


@symptom(
    "cause",
    "the largest reward of a rollout is {value:.0f} times the mean of those that are not 0",
    causes=("one reward outweighs all others, often a penalty at the end",),
    advice=lambda agent: ["environment.normalize_rewards=true"],
    chart="learning",
)
def _reward_outlier(run: RunRecord) -> Sign | None:
    if run.agent.environment.normalize_rewards:
        return None
    series = run.series("rollout/reward_outlier")
    return lasting(series, series.values > 7.0, value=series.last)


@symptom(
    "cause",
    "returns vary by {value:,.0f} around their mean, which the value network has to reach from around 0",
    causes=("rewards are not scaled",),
    advice=lambda agent: ["environment.normalize_rewards=true"],
)
def _rewards_large(run: RunRecord) -> Sign | None:
    series = run.series("rollout/return_std")
    scaled = run.agent.environment.normalize_rewards
    return None if scaled else lasting(series, series.values > 100.0, value=series.last)


@symptom(
    "cause",
    "returns vary by no more than {value:.2g} around their mean: errors of the value network hide them",
    causes=("rewards are too small",),
    advice=lambda agent: ["environment.normalize_rewards=true"],
)
def _rewards_small(run: RunRecord) -> Sign | None:
    series = run.series("rollout/return_std")
    rare = run.has("rollout/reward_nonzero_share") and run.series("rollout/reward_nonzero_share").last < 0.05
    scaled = run.agent.environment.normalize_rewards
    small = (series.values < 0.05) & (series.values > 0.0)
    return None if scaled or rare else lasting(series, small, value=series.last)


@symptom(
    "cause",
    "one number of the observation varies {value:,.0f} times as much as another",
    causes=("observations are not normalized",),
    advice=lambda agent: ["environment.normalize_observations=true"],
)
def _observations_of_unequal_scale(run: RunRecord) -> Sign | None:
    if run.agent.environment.normalize_observations:
        return None
    series = run.series("rollout/observation_scale")
    return lasting(series, series.values > 100.0, value=series.last)


@symptom(
    "cause",
    "{value:.0%} of the action's components are outside of their bounds",
    causes=("actions are not rescaled to their bounds", "the deviation of the policy is too large"),
    advice=lambda agent: [
        "environment.rescale_actions=true"
        if not agent.environment.rescale_actions
        else "network.log_std_init=-0.7"
    ],
    confused="tasks whose best actions lie on the bounds",
)
def _actions_outside(run: RunRecord) -> Sign | None:
    series = run.series("rollout/action_clipped_share")
    limit = 0.6 if run.agent.environment.rescale_actions else 0.4
    since = series.since(series.values > limit)
    return None if since is None else Sign(since, {"value": series.last})


# Settings that do not fit -------------------------------------------------------------------------


@symptom(
    "cause",
    "gamma = {gamma:g} looks {horizon:.0f} steps ahead, and an episode has {length:.0f}",
    causes=("gamma is too small for the task",),
    alone=True,
    advice=lambda agent: ["algorithm.gamma=0.99"],
)
def _horizon_short(run: RunRecord) -> Sign | None:
    gamma, lengths = run.agent.algorithm.gamma, run.series("rollout/ep_len_mean")
    horizon = 1.0 / max(1.0 - gamma, 1e-9)
    if horizon > (0.3 if gamma < 0.9 else 0.03) * lengths.last:
        return None
    return Sign(int(lengths.steps[0]), {"gamma": gamma, "horizon": horizon, "length": lengths.last})


@symptom(
    "cause",
    "the entropy bonus of {bonus:g} keeps the policy random: its entropy is {share:.0%} of the largest",
    causes=("ent_coef is too large",),
    alone=True,
    advice=lambda agent: [f"algorithm.ent_coef={advice.number(min(0.01, advice.entropy_bonus(agent) / 10))}"],
)
def _entropy_bonus_rules(run: RunRecord) -> Sign | None:
    bonus = advice.entropy_bonus(run.agent)
    if bonus < 0.05:
        return None
    if run.has("train/entropy_fraction"):
        series = run.series("train/entropy_fraction")
        return lasting(series, series.values > 0.8, bonus=bonus, share=series.last)
    series = run.series("train/std")
    first = series.values[0]
    return lasting(series, series.values > 0.9 * first, bonus=bonus, share=series.last / first)


@symptom(
    "cause",
    "target_kl = {limit:g} ends each update after {share:.0%} of its steps",
    causes=("target_kl is too small",),
    alone=True,
    advice=lambda agent: ["algorithm.target_kl=0.03"],
    chart="stability",
)
def _updates_cut_short(run: RunRecord) -> Sign | None:
    limit = run.agent.algorithm.target_divergence
    if limit is None or limit > 0.01:
        return None
    algorithm = run.agent.algorithm
    size = algorithm.batch_size or run.agent.steps_per_iteration
    steps = algorithm.n_epochs * (run.agent.steps_per_iteration // size)
    series = run.series("update/applied")
    return lasting(series, series.values < 0.5 * steps, limit=limit / 1.5, share=series.last / steps)


@symptom(
    "cause",
    "values may move by {limit:g} in an update, and returns vary by {spread:.0f}",
    causes=("clip_range_vf is far below the returns",),
    advice=lambda agent: ['algorithm.clip_range_vf="none"'],
)
def _value_clip_too_tight(run: RunRecord) -> Sign | None:
    limit = getattr(run.agent.algorithm, "clip_range_vf", None)
    if not isinstance(limit, float | int):
        return None
    series = run.series("rollout/return_std")
    return lasting(series, series.values > 10.0 * limit, limit=limit, spread=series.last)


@symptom(
    "cause",
    "an update sees {steps} steps, and an episode has {length:.0f}",
    causes=("rollouts are too short: the gradient is mostly noise",),
    advice=advice.longer_rollouts,
)
def _rollouts_short(run: RunRecord) -> Sign | None:
    steps, lengths = run.agent.steps_per_iteration, run.series("rollout/ep_len_mean")
    if steps >= max(64.0, 0.5 * lengths.last):
        return None
    return Sign(int(lengths.steps[0]), {"steps": steps, "length": lengths.last})


# What interventions bring -------------------------------------------------------------------------


@symptom(
    "cause",
    "{share:.0%} of the weights that `{rule}` watches stand at their bound",
    causes=("the bound is too tight", "bound and initializer do not fit: see `unit`"),
    advice=lambda agent: advice.scaled(agent, ("clipping",), "bound", 10.0),
    chart="interventions",
)
def _bound_too_tight(run: RunRecord) -> Sign | None:
    return first_of(
        lasting(series, series.values > 0.5, share=series.last, rule=tag.split("/")[1])
        for tag, series in run.matching(r"intervention/[^/]+/saturated", 8).items()
    )


@symptom(
    "cause",
    "`{rule}` moves the weights by {change:.0%} of their size each time",
    causes=("the noise is too strong",),
    advice=lambda agent: [
        *advice.scaled(agent, ("noise",), "stddev", 0.1),
        *advice.scaled(agent, ("adaptive_noise",), "target", 0.1),
    ],
    chart="interventions",
)
def _noise_too_strong(run: RunRecord) -> Sign | None:
    def told(rule: str) -> Sign | None:
        change = run.series(f"intervention/{rule}/relative_change")
        return lasting(change, change.values > 0.5, rule=rule, change=change.last)

    return first_of(told(tag.split("/")[1]) for tag in run.matching(r"intervention/[^/]+/stddev", 8))


@symptom(
    "mechanism",
    "the distance that `{rule}` makes is {ratio:.2g} times its target",
    causes=("the policy no longer reacts to its weights", "initial_stddev is too large"),
    advice=lambda agent: advice.scaled(agent, ("adaptive_noise",), "initial_stddev", 0.1),
    chart="interventions",
)
def _noise_off_target(run: RunRecord) -> Sign | None:
    def told(rule: str, target: ScalarSeries) -> Sign | None:
        distance = run.series(f"intervention/{rule}/distance")
        ratios = distance.values / np.maximum(target.values[-len(distance.values) :], 1e-12)
        ratio = float(np.median(ratios[-distance.window :]))
        return lasting(distance, (ratios > 4.0) | (ratios < 0.25), rule=rule, ratio=ratio)

    targets = run.matching(r"intervention/[^/]+/target", 8)
    return first_of(told(tag.split("/")[1], target) for tag, target in targets.items())


@symptom(
    "cause",
    "the value network's last layer is held within {bound:.2g}, and its largest weight stands there",
    causes=("returns do not fit into bounded weights",),
    advice=lambda agent: ["environment.normalize_rewards=true"],
    chart="interventions",
)
def _value_head_bounded(run: RunRecord) -> Sign | None:
    bound = run.matching(r"weights/value/head/bound")["weights/value/head/bound"]
    largest = run.matching(r"weights/value/head/max")["weights/value/head/max"]
    if largest.values[-1] < 0.99 * bound.values[-1] or run.series("train/explained_variance").last > 0.5:
        return None
    return Sign(int(largest.steps[0]), {"bound": float(bound.values[-1])})


@symptom(
    "note",
    "`{rule}` has changed nothing",
    causes=("its bound is out of reach", "its selection or its placement is not what was meant"),
    chart="interventions",
    alone=True,
)
def _rule_does_nothing(run: RunRecord) -> Sign | None:
    for tag, series in run.matching(r"intervention/[^/]+/relative_change", 8).items():
        if not series.values.any():
            return Sign(int(series.steps[0]), {"rule": tag.split("/")[1]})
    return None
