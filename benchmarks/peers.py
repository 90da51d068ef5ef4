"""One measurement of a peer, in the peer's own Python: prints one line of JSON.

    PEERS_PYTHON benchmarks/peers.py sb3|sbx|rejax|cleanrl speed|solve SETTINGS

`benchmarks/speed.py` calls this; see there. SETTINGS is JSON: env, num_envs, n_steps, batch_size, n_epochs,
env_steps and more; for cleanrl also the path of a checkout. "speed": environment steps per second of the
whole training loop after a warm-up. "solve": seconds from the start of the process (BENCHMARK_START) until
CartPole is solved.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time

SOLVED = 475.0
ZOO = {
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
    "learning_rate": lambda progress: 1e-3 * progress,
    "clip_range": lambda progress: 0.2 * progress,
}


def stable_baselines(kind: str, what: str, settings: dict) -> dict:
    if kind == "sb3":
        from stable_baselines3 import PPO
    else:
        from sbx import PPO
    import numpy as np
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    class Watch(BaseCallback):
        """Notes when warm-up is over, and when the last 100 training episodes are solved."""

        warm: tuple = ()
        solved = None

        def _on_step(self) -> bool:
            if not self.warm and self.num_timesteps >= settings["warm_up"]:
                self.warm = (time.monotonic(), self.num_timesteps)
            return True

        def _on_rollout_end(self) -> None:
            returns = [episode["r"] for episode in self.model.ep_info_buffer]
            if self.solved is None and len(returns) >= 100 and np.mean(returns) >= SOLVED:
                self.solved = (time.time() - float(os.environ["BENCHMARK_START"]), self.num_timesteps)

    vectorized = SubprocVecEnv if settings.get("vectorization") == "async" else DummyVecEnv
    model = PPO(
        "MlpPolicy",
        make_vec_env(settings["env"], settings["num_envs"], seed=settings["seed"], vec_env_cls=vectorized),
        n_steps=settings["n_steps"],
        batch_size=settings["batch_size"],
        n_epochs=settings["n_epochs"],
        seed=settings["seed"],
        **({"device": "cpu"} if kind == "sb3" else {}),
        **(ZOO if settings["zoo"] else {}),
    )
    watch = Watch()
    model.learn(settings["env_steps"], callback=watch)
    if what == "solve":
        return {"seconds": watch.solved and watch.solved[0], "env_steps": watch.solved and watch.solved[1]}
    since, steps = watch.warm
    return {"steps_per_second": (model.num_timesteps - steps) / (time.monotonic() - since)}


def rejax(what: str, settings: dict) -> dict:
    import jax
    from rejax import PPO

    rollout = settings["num_envs"] * settings["n_steps"]
    zoo = (
        {"gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0, "learning_rate": 1e-3} if settings["zoo"] else {}
    )
    algorithm = PPO.create(
        env="CartPole-v1",
        num_envs=settings["num_envs"],
        num_steps=settings["n_steps"],
        num_epochs=settings["n_epochs"],
        num_minibatches=rollout // settings["batch_size"],
        max_grad_norm=0.5,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        **({"learning_rate": 3e-4} | zoo),
    )
    count = settings["iterations_per_call"]

    @jax.jit
    def many(state):
        return jax.lax.scan(lambda s, _: (algorithm.train_iteration(s), None), state, None, length=count)[0]

    state = algorithm.init_state(jax.random.PRNGKey(settings["seed"]))
    if what == "speed":
        state = jax.block_until_ready(many(state))
        calls = max(1, settings["env_steps"] // (rollout * count))
        since = time.monotonic()
        for _ in range(calls):
            state = many(state)
        jax.block_until_ready(state)
        return {"steps_per_second": calls * count * rollout / (time.monotonic() - since)}
    judge = jax.jit(lambda state, key: algorithm.eval_callback(algorithm, state, key)[1].mean())
    for call in range(settings["env_steps"] // (rollout * count)):
        state = many(state)
        if float(judge(state, jax.random.PRNGKey(call))) >= SOLVED:
            seconds = time.time() - float(os.environ["BENCHMARK_START"])
            return {"seconds": seconds, "env_steps": (call + 1) * count * rollout}
    return {"seconds": None, "env_steps": None}


def cleanrl(settings: dict) -> dict:
    """Runs CleanRL's published program as it is, and takes its own count, which leaves out the start."""
    options = {
        "--env-id": settings["env"],
        "--num-envs": settings["num_envs"],
        "--num-steps": settings["n_steps"],
        "--num-minibatches": settings["num_envs"] * settings["n_steps"] // settings["batch_size"],
        "--update-epochs": settings["n_epochs"],
        "--total-timesteps": settings["env_steps"],
        "--seed": settings["seed"],
    }
    words = [str(word) for option in options.items() for word in option]
    with tempfile.TemporaryDirectory() as folder:  # it writes event files
        command = [sys.executable, os.path.join(settings["cleanrl"], "cleanrl", "ppo.py"), *words]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {"steps_per_second": float(re.findall(r"SPS: (\d+)", run.stdout)[-1])}


def main() -> None:
    peer, what, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if peer == "cleanrl":
        result = cleanrl(settings)
    else:
        result = rejax(what, settings) if peer == "rejax" else stable_baselines(peer, what, settings)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
