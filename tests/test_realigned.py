"""Acting beyond the training: what is exact for a Gaussian, nothing for equal policies, and a reference that never moves."""

import pytest
import torch
from small_heads import DIMS, HEADS, STATE, acted, head
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.policies.gaussian import Gaussian
from robopref.policies.real_time_chunking import RealTimeChunking
from robopref.policies.realigned import Realigned, realign
from robopref.types import Chunks


def chunks():
    return Chunks(STATE, torch.linspace(-0.5, 0.5, 64).view(4, 8, 2), torch.ones(4, 8, 2))


@pytest.mark.parametrize("name", HEADS)
def test_a_policy_that_equals_its_reference_acts_as_ever(name):
    plain = head(name)
    before = acted(plain)
    assert_close(acted(realign(plain, 2.0)), before)


@pytest.mark.parametrize("name", HEADS)
def test_guidance_moves_actions_away_from_the_reference_and_leaves_scores_alone(name):
    policy, reference = head(name, 1), head(name, 2)
    plain, far = acted(policy), acted(reference)
    draws = policy.draw(chunks(), torch.Generator().manual_seed(3))
    score = policy.score(chunks(), draws)
    guided = Realigned(policy, reference, 1.0)
    assert (acted(guided) - far).square().sum() > (plain - far).square().sum()
    assert_close(guided.score(chunks(), draws), score, rtol=0, atol=0)
    assert_close(guided.policy.act(STATE, torch.Generator().manual_seed(5)), plain, rtol=0, atol=0)


def test_the_mean_of_a_gaussian_goes_on_in_its_direction():
    options = {"horizon": 8, "execute": 8, "deterministic": True, "width": 32, "depth": 1}
    torch.manual_seed(0)
    policy, reference = Gaussian(DIMS, **options), Gaussian(DIMS, **options)
    mean, other = acted(policy), acted(reference)
    assert_close(acted(Realigned(policy, reference, 0.5)), (mean + 0.5 * (mean - other)).clamp(-1, 1))


@pytest.mark.parametrize("name", HEADS)
def test_only_the_policy_learns_and_a_folder_brings_both_back(name, tmp_path):
    guided = realign(head(name), 1.0)
    before = {k: v.clone() for k, v in guided.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in guided.parameters() if p.requires_grad], lr=0.1)
    guided.loss(chunks(), guided.draw(chunks(), torch.Generator().manual_seed(0))).mean().backward()
    optimizer.step()
    moved = {k for k, v in guided.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and not any(".reference." in k for k in moved)
    save(guided, tmp_path / "policy")
    again = load(tmp_path / "policy")
    assert_close(acted(again), acted(guided), rtol=0, atol=0)
    assert realign(again, 3.0) is again
    assert not any(p.requires_grad for n, p in again.named_parameters() if ".reference." in n)


def test_a_head_that_a_sampler_drives_itself_keeps_the_guidance():
    guided = Realigned(head("diffusion", 1), head("diffusion", 2), 1.0)
    assert_close(acted(guided.acting()), acted(guided), rtol=0, atol=0)
    free = torch.full((4,), 8)
    resumed = RealTimeChunking(guided.acting()).resume(
        STATE, torch.zeros(4, 8, 2), 0 * free, free, torch.Generator().manual_seed(5)
    )
    assert_close(resumed, acted(guided), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_realigned_is_refused():
    with pytest.raises(InputError, match="guidance"):
        realign(head("gaussian"), -1.0)
    with pytest.raises(InputError, match="other settings"):
        Realigned(head("gaussian"), head("diffusion"))
    with pytest.raises(InputError, match="one network"):
        realign(_Two(), 1.0)


class _Two(Gaussian):
    def __init__(self):
        super().__init__(DIMS, width=32, depth=1)
        self.encoder = torch.nn.Linear(3, 3)
