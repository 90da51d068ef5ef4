"""One measurement of rlweights: prints one line of JSON. `benchmarks/speed.py` calls this; see there."""

import json
import os
import sys
import time

from rlweights.backend import configure

configure()

from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.saving.run_state import EpisodeWindow

SOLVED = 475.0


def main() -> None:
    contender, what, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    backend, _, rules = contender.partition("+")
    path = agent_file.find("cartpole")
    overrides = [
        f'environment.id="{settings["env"]}"',
        f'environment.backend="{backend}"',
        f"environment.num_envs={settings['num_envs']}",
        f"algorithm.n_steps={settings['n_steps']}",
        f"algorithm.batch_size={settings['batch_size']}",
        f"algorithm.n_epochs={settings['n_epochs']}",
        f"budget.total_timesteps={settings['env_steps']}",
        f"seed={settings['seed']}",
    ]
    if "vectorization" in settings:
        overrides.append(f'environment.vectorization_mode="{settings["vectorization"]}"')
    if not settings["zoo"]:
        overrides += ["algorithm.learning_rate=3e-4", "algorithm.clip_range=0.2", "algorithm.gae_lambda=0.95"]
    if not rules:
        overrides.append("interventions=[]")
    agent = agent_file.load(path, overrides)
    loop = Assembly(agent, str(path), path.parent).make_loop()
    rollout = agent.steps_per_iteration
    window, done, total = EpisodeWindow(), 0, agent.total_iterations
    since, counted = 0.0, 0
    loop.begin(0, 0)
    while done < total:
        rows = loop.advance(done, total - done)
        done += len(rows)
        for _, episodes in rows:
            window.add(episodes)
        solved = window.count >= 100 and window.scalars()["rollout/ep_rew_mean"] >= SOLVED
        if what == "solve" and solved:
            seconds = time.time() - float(os.environ["BENCHMARK_START"])
            print(json.dumps({"seconds": seconds, "env_steps": done * rollout}))
            return
        if since:
            counted += len(rows)
        elif done * rollout >= settings["warm_up"]:
            since = time.monotonic()
    if what == "solve":
        print(json.dumps({"seconds": None, "env_steps": None}))
    else:
        print(json.dumps({"steps_per_second": counted * rollout / (time.monotonic() - since)}))


if __name__ == "__main__":
    main()
