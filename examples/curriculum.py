"""A curriculum from Python: a pole that gets longer as the agent gets better.

    python examples/curriculum.py

A callback sees every iteration and every evaluation, changes a parameter of the environments, records what it
has done, and gives what it must remember to the checkpoint, so that a run that is killed goes on exactly:

    rw.Recipe.resume(run, callbacks=[LongerPole(), rw.StopAtReturn(100.0, of="training")])
"""

import tempfile

import rlweights as rw


class LongerPole(rw.Callback):
    """Starts with a short pole; each time that the agent masters it, the next one is longer.

    Args:
        start: Half the length of the first pole.
        goal: That of the last one; CartPole's own is 0.5.
        factor: How much longer the next one is.
        mastered: Mean return of the newest episodes at which the next one comes.
    """

    def __init__(self, start: float = 0.25, goal: float = 0.5, factor: float = 1.25, mastered: float = 30.0):
        self.length, self.goal, self.factor, self.mastered = start, goal, factor, mastered
        self.waits = 0

    def on_train_begin(self):
        """Begins with the first pole; a resumed run then takes the one of its checkpoint."""
        self.training.set_environment(length=self.length)

    def on_iteration_end(self, iteration, logs):
        """Looks at the newest episodes."""
        self.waits = max(0, self.waits - 1)
        mean = logs.get("rollout/ep_rew_mean", 0.0)
        if mean >= self.mastered and self.length < self.goal and not self.waits:
            self.length = min(self.goal, self.factor * self.length)
            self.waits = 4  # iterations, so that the mean is one of the new pole
            self.training.set_environment(length=self.length)
        self.training.record({"curriculum/length": self.length})

    def state(self):
        """Returns what a checkpoint keeps."""
        return {"length": self.length, "waits": self.waits}

    def restore(self, state):
        """Takes over what a checkpoint has kept."""
        self.length, self.waits = state["length"], state["waits"]


if __name__ == "__main__":
    recipe = rw.Recipe(
        "cartpole",
        {"budget.total_timesteps": 10_240, "evaluation.final_episodes": 20},
    )
    with tempfile.TemporaryDirectory() as runs:
        agent = recipe.train(
            runs, quiet=True, callbacks=[LongerPole(), rw.StopAtReturn(100.0, of="training")]
        )
        steps, lengths = agent.history()["curriculum/length"]
        for step, length in zip(steps[::10], lengths[::10], strict=True):
            print(f"{step:7,} steps: a pole of {2 * length:.2f} m")
        print(f"evaluation with CartPole's own pole: {agent.evaluate(episodes=20).mean:.1f}")

    assert lengths[0] == 0.25, "it begins with a short pole"
    assert lengths[-1] > 0.25, "and comes to longer ones"
