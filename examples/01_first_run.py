"""Train five agents in a row, see what came of it and what it cost, and let one agent act.

Run it with `python examples/01_first_run.py`; it takes some seconds, and writes a folder `runs/first-run-…`.
"""

import itertools
from pathlib import Path

import kappahop as kh

# a linear network: each agent steers a number that drifts with those of its neighbours; return is minus the squared size
run = kh.run(
    "lq_line20",
    kappa=1,  # every agent hears its direct neighbours
    env={"agents": 5, "num_envs": 4},
    network={"preset": "wifi-busy"},
    rollout={"steps": 50},
    budget={"env_steps": 4_000},
    evaluation={"episodes": 1},
    out=next(place for n in itertools.count(1) if not (place := Path("runs") / f"first-run-{n}").exists()),
)

print(f"evaluated return {run.metrics['eval_return_mean']:.1f}")
traffic = run.traffic(plane="peer")
print(f"{traffic['wire_bytes'].sum():,} bytes between agents, {traffic['dropped'].sum():,} messages lost")

policy = run.policy(agent=2)
env = kh.make_env(run.scenario, num_envs=3)
print("agent 2 acts on what agents", *policy.agents, "observe:", policy(policy.gather(env.reset())).ravel().round(2))
env.close()
print(f"goes on: kappahop resume {run.folder} budget.env_steps=8000")
