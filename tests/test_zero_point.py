"""Before the first step policy and reference score exactly alike; whatever breaks that is refused at the door of every alignment."""

import numpy as np
import pytest
import torch

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import chunk_table
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.learners.clone import fit_normalizer
from robopref.losses.pairwise import sigmoid
from robopref.policies.diffusion import Diffusion
from robopref.types import Dims


@pytest.fixture
def setting():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    trajectories = [
        Trajectory(
            rng.normal(size=(12, 3)).astype(np.float32), rng.uniform(-1, 1, (12, 2)).astype(np.float32),
            np.zeros(12, np.float32), np.zeros(12, bool),
        )
        for _ in range(10)
    ]  # fmt: skip
    policy = Diffusion(Dims(3, 2), horizon=4, execute=4, width=16, depth=1, diffusion_steps=10, sample_steps=2)
    table = chunk_table(trajectories, policy.spec)
    fit_normalizer(policy, table)
    pairs = PairTable(torch.arange(5), torch.arange(5, 10), torch.ones(5), torch.ones(5))
    return policy, table, pairs


def first_step(policy, reference, table, pairs):
    generator = torch.Generator().manual_seed(1)
    settings = AlignSettings(steps=3, pairs_per_step=2, chunks_per_trajectory=2, anchor_chunks=4)
    return next(align(policy, reference, table, pairs, pairs.first, sigmoid, settings, generator))


def other_weights(reference):
    with torch.no_grad():
        next(reference.parameters()).add_(1e-4)


def own_noise(reference):
    generator, score = torch.Generator().manual_seed(3), reference.score
    reference.score = lambda chunks, draws: score(chunks, reference.draw(chunks, generator))


def other_normaliser(reference):
    reference.normalizer.std.mul_(1.01)


class Dropping(torch.nn.Module):
    """A denoiser that drops parts of its input while it trains."""

    def forward(self, chunk, time, condition):
        return torch.nn.functional.dropout(chunk, 0.5, self.training)


@pytest.mark.parametrize("fault", [other_weights, own_noise, other_normaliser])
def test_a_reference_that_scores_otherwise_is_refused_before_the_first_step(setting, fault):
    policy, table, pairs = setting
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    reference = policy.reference()
    fault(reference)
    with pytest.raises(InputError, match=r"align: got .*wanted (exactly equal|that of the policy)"):
        first_step(policy, reference, table, pairs)
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items()), "nothing was learned"


def test_a_policy_with_dropout_is_refused_as_it_would_train(setting):
    policy, table, pairs = setting
    policy.denoiser = Dropping()
    with pytest.raises(InputError, match="without dropout"):
        first_step(policy, policy.reference(), table, pairs)


def test_the_check_draws_nothing_from_the_generator_of_the_training(setting, monkeypatch):
    policy, table, pairs = setting
    checked = first_step(policy, policy.reference(), table, pairs)
    torch.manual_seed(0)
    again = Diffusion(Dims(3, 2), horizon=4, execute=4, width=16, depth=1, diffusion_steps=10, sample_steps=2)
    fit_normalizer(again, table)
    monkeypatch.setattr("robopref.learners.align.check_zero_point", lambda *_: None)
    assert first_step(again, again.reference(), table, pairs) == checked
