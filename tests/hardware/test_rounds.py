"""The whole loop on an arm: served, driven home, run, recorded, compared, aligned, deployed by its hash. The arm is made up, the rest is real."""

import asyncio
import json

import numpy as np
import pytest
import torch
from robopref.hardware.arm_reach import start_of
from robopref.hardware.guard import Settings
from robopref.hardware.rounds import Arm
from robopref.hardware.testing.bridge_server import BridgeServer
from robopref.hardware.testing.rig import KinematicArm, arm_node

from robopref.arrays import InputError
from robopref.checkpoint import fingerprint, save
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.policies.diffusion import Diffusion
from robopref.run import main
from robopref.types import Dims

LENIENT = Settings(age=1.0, watchdog=0.5, observation_age=3.0)
SMALL = [
    "workers=1", "pairs=8", "base.demonstrations=4", "base.episodes=4", "base.rounds=1", "base.clone.steps=40", "policy.width=32",
    "policy.depth=1", "policy.diffusion_steps=16", "policy.sample_steps=4", "rounds.resets=2", "rounds.replicas=3", "align.steps=8",
    "guard.every=4", "gate.episodes=2", "evaluation.episodes=2", "evaluation.videos=0", "reward_fit.steps=10", "labeler=return",
    "env.horizon=20", "+arm.observation_age=1.0", "+arm.adopt_age=1.0",
]  # fmt: skip


def beside_an_arm(work):
    """Run `work(url)` in a thread while an arm node and a bridge run here."""

    async def run():
        async with BridgeServer() as server, arm_node(server.url, KinematicArm(), LENIENT):
            return await asyncio.to_thread(work, server.url)

    return asyncio.run(run())


def test_an_arm_that_cannot_be_is_refused():
    for wrong in ({"horizon": 0}, {"hz": 0}, {"patience": 0}, {"pictures": -1}):
        with pytest.raises(InputError, match="arm: got"):
            Arm(**wrong)


@pytest.mark.slow
def test_an_arm_plays_the_asked_resets_from_their_starts_in_their_order(tmp_path):
    torch.manual_seed(0)
    policy = Diffusion(Dims(13, 7), horizon=16, execute=8, width=32, depth=1, sample_steps=4)
    policy.normalizer.fit(torch.randn(60, 13), torch.rand(60, 7) * 2 - 1)
    save(policy, tmp_path / "policy", {})

    def work(url):
        arm = Arm(url, horizon=20, observation_age=1.0, adopt_age=1.0)
        return arm.play(tmp_path / "policy", [5, 5, 9], tmp_path / "played")

    told = beside_an_arm(work)
    episodes = TrajectoryStore(tmp_path / "played/store").load()
    assert [one.seed for one in episodes] == [5, 5, 9] and told["episodes"] == 3
    for one in episodes:
        assert one.policy == fingerprint(tmp_path / "policy") and one.executed.sum() >= 15
        assert np.abs(one.observation[0, :7] - start_of(one.seed)).max() < 0.05
        distance = np.linalg.norm(one.observation[:, 7:10] - one.observation[:, 10:13], axis=1)
        assert np.allclose(one.reward, -distance, atol=0.02), "the task is judged by where the arm was measured"


@pytest.mark.slow
def test_one_command_rolls_out_asks_aligns_and_deploys(tmp_path):
    def work(url):
        main("run", ["experiment=robot_in_the_loop", *SMALL, f"arm.bridge={url}", f"out={tmp_path / 'run'}"])

    beside_an_arm(work)
    out = tmp_path / "run"
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["policies"]) == {"base", "aligned"} and metrics["policies"]["aligned"]["episodes"] == 2
    assert metrics["labels_asked"] == 8 and "played on the arm" in metrics["notes"][0]
    assert set(metrics["arm"]) == {"rounds/rollouts", "played/base", "played/aligned"}
    store = TrajectoryStore(out / "rounds/rollouts/store")
    base = out / json.loads((out / "base/base.json").read_text())["policy"]
    assert {one.policy for one in store.load()} == {fingerprint(base)} and {one.env for one in store.load()} == {"arm"}
    assert len(PreferenceStore(store).pairs()) == 8
    aligned = out / json.loads((out / "arms/arms.json").read_text())["policies"]["aligned"]
    deployed = TrajectoryStore(out / "played/aligned/store").load()
    assert {one.policy for one in deployed} == {fingerprint(aligned)}, "the server's policy is taken by its hash"
    assert (out / "report.html").exists()
