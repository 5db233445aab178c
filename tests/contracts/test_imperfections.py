"""What every mixture in conf/imperfections/ keeps: good and faulty behaviours by name, each one that a script can do."""

import numpy as np
from robopref.envs.point_mass import PointMass

from robopref.policies.scripted import Imperfection, Scripted
from robopref.stages.collect import mixture


def test_every_behaviour_acts(preset):
    env = PointMass()
    seen, _ = env.reset(seed=0)
    for kind in ("good", "faulty"):
        count = len(preset[kind])
        made = mixture(preset[kind], 2 * count)
        assert [name for name, _ in made[:count]] == list(preset[kind]) and made[:count] == made[count:]
        for _, how in made[:count]:
            action = Scripted(env, Imperfection(**how), np.random.default_rng(0)).act(seen)
            assert action.shape == (2,) and np.abs(action).max() <= 1


def test_faulty_means_faulty(preset):
    assert all(Imperfection(**how) != Imperfection() for how in preset["faulty"].values())
    assert not {*preset["good"]} & {*preset["faulty"]}
