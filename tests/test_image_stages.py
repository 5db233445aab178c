"""Policies that look, from collection to evaluation: pictures recorded, settings kept and checked, alignment on what was seen."""

import numpy as np
import pytest
import torch
from robopref.envs.point_mass import PointMass

from robopref.arrays import InputError
from robopref.checkpoint import load
from robopref.data.files import read_json
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.rollout import rollout
from robopref.run import compose
from robopref.stages import single

SMALL = [
    "env=point_mass", "task=point-mass", "env.image_size=32", "env.horizon=12", "policy=image_diffusion", "policy.eyes.cameras=[top]",
    "policy.eyes.size=32", "policy.eyes.width=16", "policy.horizon=4", "policy.execute=4", "policy.diffusion_steps=8",
    "policy.sample_steps=2", "workers=1", "base.clone.steps=4", "base.clone.batch=8",
]  # fmt: skip


def config(*overrides):
    return compose([*SMALL, *overrides])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of scripted episodes with pictures, and a policy cloned from it."""
    root = tmp_path_factory.mktemp("images")
    single.collect(config("episodes=4", "cameras=[top]"), root / "data")
    single.pretrain(config(f"dataset={root}/data"), root / "base")
    return root


def test_collect_stores_pictures_and_how_they_were_drawn(made):
    store = TrajectoryStore(made / "data")
    assert store.cameras == ("top",)
    assert store.info["robopref"]["render"] == {**PointMass(image_size=32).render_settings, "cameras": ["top"]}
    one, env = store.read(1, images=True), PointMass(horizon=12, image_size=32)
    env.reset(seed=one.seed)
    for step in range(len(one)):
        difference = np.abs(one.images["top"][step].astype(int) - env.render("top"))
        assert difference.mean() < 6, "video is lossy, but it is this moment's picture"
        env.step(one.action[step])


def test_a_policy_folder_keeps_the_settings_and_evaluation_checks_them(made):
    spec = load(made / "base/policy").spec
    assert spec.pictures.cameras == ("top",) and spec.pictures.size == (32, 32)
    assert spec.pictures.render == {**PointMass(image_size=32).render_settings, "cameras": ["top"]}
    folder = made / "base/policy"
    single.evaluate(config(f"checkpoint={folder}", "episodes=2"), made / "measured")
    assert read_json(made / "measured/metrics.json")["policies"]["policy"]["episodes"] == 2
    with pytest.raises(InputError, match=r"got pictures of 48x48, wanted 32x32[\s\S]*env\.image_size=32"):
        single.evaluate(config(f"checkpoint={folder}", "episodes=2", "env.image_size=48"), made / "refused")
    policy, env = load(folder), PointMass(horizon=12, image_size=32)
    env.render_settings = {**env.render_settings, "drawing": "by hand"}
    with pytest.raises(InputError, match="drawing: got 'by hand', wanted 'numpy'"):
        next(rollout(policy, [env], [1]))


def test_a_store_drawn_otherwise_is_refused_for_alignment_and_one_without_the_camera_for_cloning(made, tmp_path):
    some = [TrajectoryStore(made / "data").read(i, images=True) for i in range(2)]
    with StoreWriter(tmp_path / "other", render={"height": 32, "width": 32, "drawing": "by hand"}) as writer:
        for one in some:
            writer.add(one)
    with pytest.raises(InputError, match="drawing: got 'by hand', wanted 'numpy'"):
        single.align(config(f"dataset={tmp_path}/other", f"checkpoint={made}/base/policy"), tmp_path / "out")
    with pytest.raises(InputError, match=r"no pictures by 'corner2', wanted one of top"):
        single.pretrain(config(f"dataset={made}/data", "policy.eyes.cameras=[corner2]"), tmp_path / "out")
    with pytest.raises(InputError, match=r"got pictures of 32x32, wanted 40x40"):
        single.pretrain(config(f"dataset={made}/data", "policy.eyes.size=40"), tmp_path / "out")


def test_rollouts_are_labelled_and_aligned_with_the_pictures_they_were_seen_by(made):
    shorter = [
        "rounds.replicas=2",
        "align.steps=3",
        "align.anchor_chunks=8",
        "rounds.held_out=0.0",
        "labeler=return",
        "pairs=6",
    ]
    asked = config(*shorter, f"checkpoint={made}/base/policy", "episodes=6")
    single.collect(asked, made / "rollouts")
    assert TrajectoryStore(made / "rollouts").cameras == ("top",), "stored unasked: the policy looks through it"
    single.label(config(*shorter, f"dataset={made}/rollouts"), made / "unused")
    said = single.align(
        config(*shorter, f"dataset={made}/rollouts", f"checkpoint={made}/base/policy"), made / "aligned"
    )
    assert "policy in" in said
    assert load(made / "aligned/policy").spec == load(made / "base/policy").spec
    assert (made / "rollouts/cache/top.u8").stat().st_size == 6 * 12 * 32 * 32 * 3


def remembering(policy):
    """The policy, and what it was shown."""
    shown, real = [], policy.act

    def act(observation, generator):
        shown.append(observation)
        return real(observation, generator)

    policy.act = act
    return policy, shown


@pytest.mark.parametrize(("history", "execute"), [(1, 4), (2, 4), (3, 1), (3, 2)])
def test_a_policy_sees_the_pictures_of_its_last_observations(history, execute):
    """Position and goal decide the picture of a point mass, so a state restored from the observation gives what must be seen."""
    from robopref.policies.flow import Flow
    from robopref.types import Dims

    torch.manual_seed(0)
    eyes = {"cameras": ["top"], "size": 24, "width": 8}
    policy = Flow(Dims(8, 2), horizon=4, execute=execute, history=history, eyes=eyes, width=16, depth=1, sample_steps=1)
    policy, shown = remembering(policy.eval())
    (one,) = rollout(policy, [PointMass(horizon=9, image_size=24)], [5], batch_size=1, cameras=["top"])
    redraw = PointMass(image_size=24)
    for seen in shown:
        for k in range(history):
            redraw.set_state(np.concatenate([seen.state[0, k].double().numpy(), [0.0, 0.0]]))
            assert np.array_equal(seen.images["top"][0, k].numpy(), redraw.render())
    assert len(shown) == -(-9 // execute)
    for step in range(len(one)):
        redraw.set_state(np.concatenate([one.observation[step].astype(float), [0.0, 0.0]]))
        assert np.array_equal(one.images["top"][step], redraw.render())


def test_rollouts_with_pictures_do_not_depend_on_how_many_run_side_by_side():
    from robopref.policies.flow import Flow
    from robopref.types import Dims

    torch.manual_seed(0)
    eyes = {"cameras": ["top"], "size": 24, "width": 8}
    policy = Flow(Dims(8, 2), 4, 4, 2, eyes=eyes, width=16, depth=1, sample_steps=2).eval()
    makes = [[PointMass(horizon=9, image_size=24) for _ in range(n)] for n in (1, 3)]
    alone, together = (list(rollout(policy, envs, [1, 2, 3, 4], batch_size=4)) for envs in makes)
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a.action, b.action) and np.array_equal(a.chunk, b.chunk)
