"""An agent from Python, as in a notebook: load, change, train, look at its history, evaluate, act.

    python examples/train_from_python.py

These are the objects of the command line: the run is the one that
`python -m rlweights.train cartpole --set ...` makes, and every command takes its folder.
"""

import tempfile

import gymnasium as gym

import rlweights as rw

recipe = rw.Recipe("cartpole", {"budget.total_timesteps": 20_480, "evaluation.final_episodes": 20})
recipe = recipe.changed({"interventions.clipping.bound": 2.5, "logging.every": 1_024})
print(f"{recipe.agent.description}: gamma is {recipe.agent.algorithm.gamma}")

with tempfile.TemporaryDirectory() as runs:  # a run of your own would stay: recipe.train() writes to runs/
    agent = recipe.train(runs, quiet=True)

    # Every chart of TensorBoard, as arrays.
    history = agent.history()
    steps, returns = history["rollout/ep_rew_mean"]
    for step, mean in zip(steps[::5], returns[::5], strict=True):
        print(f"{step:7,} steps: mean return {mean:6.1f}")
    largest = history["weights/policy/hidden_1/max"].values[1:]  # the first point is before training
    assert largest.max() <= history["weights/policy/hidden_1/bound"].values[-1] == 2.5 / 8

    # Whole episodes in the real environment, then single actions in one of your own.
    result = agent.evaluate(episodes=20)
    print(f"evaluation: {result.mean:.1f} +- {result.std:.1f}")
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=1)
    observation, reward, *_ = env.step(agent.act(observation))
    env.close()

assert returns[-1] > returns[0], "it has learned something"
assert result.mean > 100.0
