"""`lora.rank=N` on the command line: only adapters learn, the reference is the policy with them off, and an ordinary policy is saved."""

import pytest
import torch
from small_alignment import LOOP, settings, taught, trajectory
from test_vla import EYES, SMALL, point_mass

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.networks.transformer import Block
from robopref.policies.vla import TokenVLA
from robopref.stages import vla
from robopref.stages.align import align_policy
from robopref.stages.ranking import Ranking
from robopref.stages.steps import adapted
from robopref.types import Dims

LORA = {"lora": {"rank": 2, "alpha": 4.0, "targets": [], "root": ""}}


@pytest.fixture
def setting():
    return taught()


def aligned(policy, pairs, folder, chosen):
    config = {
        "align": vars(chosen),
        "loss": {"_target_": "robopref.losses.pairwise.sigmoid", "_partial_": True},
        "seed": 0,
    }
    config |= {"guard": {"every": 10}, "rounds": {"guidance": 0.0}, **LOOP, **LORA}
    trajectories = [trajectory(0.6 if i % 2 else -0.6, i) for i in range(20)]
    ranking = Ranking(pairs.first, pairs, pairs)
    return align_policy(config, save(policy, folder / "base"), trajectories, ranking, 1.0, folder, [], "aligned", 0)


def test_adapters_learn_and_are_merged_into_the_policy_that_is_saved(setting, tmp_path):
    policy, _, pairs = setting
    found, stopped = aligned(policy, pairs, tmp_path, settings(steps=20, lr=1e-2))
    new = load(tmp_path / "policy")
    assert type(new) is type(policy) and new.state_dict().keys() == policy.state_dict().keys()
    assert not stopped and found["guard/rho_winner"] > found["guard/rho_loser"]
    moved = [(a - b) for a, b in zip(new.parameters(), policy.parameters(), strict=True) if not torch.equal(a, b)]
    assert moved and all(torch.linalg.matrix_rank(one, rtol=1e-3) <= 2 for one in moved), "an update of rank 2"


def test_a_collapse_is_rolled_back_to_the_policy_without_adapters(setting, tmp_path):
    policy, _, pairs = setting
    _, stopped = aligned(policy, pairs, tmp_path, settings(steps=9, lr=0.3, anchor=0, proximal=0, kappa=50))
    assert "rolled back" in stopped
    ended = zip(load(tmp_path / "policy").parameters(), policy.parameters(), strict=True)
    assert all(torch.equal(mine, before) for mine, before in ended)


@pytest.mark.parametrize("more", [{"learner": "mapo"}, {"best_of": {"candidates": 4}}, {"rounds": {"guidance": 1.0}}])
def test_where_the_reference_would_act_or_learn_adapters_are_refused(setting, more):
    with pytest.raises(InputError, match="Set lora"):
        adapted({"rounds": {"guidance": 0.0}, **LOOP, **LORA, **more}, setting[0], 0)


def test_blocks_are_computed_again_where_it_is_asked_for(setting):
    policy = TokenVLA(Dims(3, 1), EYES, horizon=3, execute=3, bins=3, **SMALL)
    config = {"rounds": {"guidance": 0.0}, **LOOP, **LORA}
    for asked in (False, True):
        learned = adapted({**config, "lora": {**LORA["lora"], "rank": 0}, "recompute": asked}, policy, 0)
        assert {m.recompute for m in learned.modules() if isinstance(m, Block)} == {asked}
    with pytest.raises(InputError, match="without transformer blocks"):
        adapted({**config, "recompute": True}, setting[0], 0)


def test_a_vla_run_learns_by_adapters(tmp_path):
    vla.run(
        point_mass("policy=vla_flow", "lora.rank=2", "vla.baselines=[]"),
        tmp_path / "run",
        "robopref run experiment=vla",
    )
    before, after = (load(tmp_path / "run" / p / "policy") for p in ("base", "rounds/round-0/align"))
    moved = {k for k, v in after.state_dict().items() if not torch.equal(v, before.state_dict()[k])}
    linear = {f"{k}.weight" for k, m in before.named_modules() if type(m) is torch.nn.Linear}
    assert moved and moved <= linear, "only what has adapters moves"
