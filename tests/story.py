"""Whole runs that take seconds: every stage, every baseline, few episodes of each; on the point mass and in Meta-World."""

import json

TINY = [
    "env=point_mass", "task=point-mass", "experiment=quickstart", "workers=1", "pairs=12", "policy.width=48", "policy.depth=1",
    "policy.diffusion_steps=20", "policy.sample_steps=4", "base.demonstrations=12", "base.episodes=16", "base.rounds=1",
    "base.clone.steps=120", "rounds.resets=6", "align.steps=50", "guard.every=25", "gate.episodes=8", "evaluation.episodes=16",
    "evaluation.videos=1", "reward_fit.steps=40", "gate.tolerance=1",
]  # fmt: skip

TINY_STORY = [
    "experiment=quickstart", "task=reach", "labeler=return", "workers=1", "pairs=6", "env.horizon=30", "policy.width=32", "policy.depth=1",
    "policy.diffusion_steps=10", "policy.sample_steps=2", "base.demonstrations=4", "base.episodes=4", "base.rounds=1",
    "base.clone.steps=60", "rounds.resets=2", "rounds.replicas=2", "align.steps=30", "guard.every=15", "gate.episodes=4",
    "gate.tolerance=1", "choose.resets=2", "evaluation.episodes=4", "evaluation.videos=1", "reward_fit.steps=20",
]  # fmt: skip


def timeless(run):
    """metrics.json of a run folder without its times and its command."""
    found = json.loads((run / "metrics.json").read_text())
    parts = {
        name: [{k: v for k, v in one.items() if k != "seconds"} for one in found[name]]
        for name in ("base_search", "guard")
    }
    return {k: v for k, v in found.items() if k not in ("seconds", "command")} | parts
