import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.types import Chunks, Dims, Observation

DIMS = Dims(observation=5, action=3)


def build(preset, **changes):
    torch.manual_seed(0)
    policy = instantiate({**preset, **changes}, _partial_=True)(dims=DIMS)
    policy.normalizer.fit(torch.randn(50, 5) * 3 + 1, torch.rand(50, 3) * 2 - 1)
    return policy.eval()


def chunks_for(policy, batch=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    spec = policy.spec
    state = torch.randn(batch, spec.history, 5, generator=generator)
    action = torch.rand(batch, spec.horizon, 3, generator=generator) * 2 - 1
    mask = torch.ones(batch, spec.horizon, 3)
    mask[0, spec.horizon // 2 :] = 0
    return Chunks(Observation(state), action, mask)


def draws_for(policy, chunks, seed=2):
    return policy.draw(chunks, torch.Generator().manual_seed(seed))


def test_a_sampled_chunk_has_the_announced_shape_and_range(preset):
    policy = build(preset)
    chunk = policy.act(Observation(torch.randn(4, policy.spec.history, 5)), torch.Generator().manual_seed(0))
    assert chunk.shape == (4, policy.spec.horizon, 3)
    assert chunk.abs().max() <= 1.0


def test_the_same_generator_gives_the_same_chunk(preset):
    policy = build(preset)
    observation = Observation(torch.randn(4, policy.spec.history, 5))
    one, two = (policy.act(observation, torch.Generator().manual_seed(7)) for _ in range(2))
    other = policy.act(observation, torch.Generator().manual_seed(8))
    assert torch.equal(one, two)
    assert torch.equal(one, other) == preset.get("deterministic", False)


def test_a_row_with_its_own_generator_does_not_see_its_neighbours(preset):
    policy = build(preset)
    state = torch.randn(4, policy.spec.history, 5)

    def sample(rows):
        generators = [torch.Generator().manual_seed(r) for r in rows]
        return policy.act(Observation(state[rows]), generators)

    assert_close(sample([0, 1, 2, 3])[2], sample([3, 2, 0, 1])[1], atol=1e-6, rtol=1e-5)


def test_policy_and_reference_score_exactly_alike_at_shared_draws(preset):
    policy = build(preset)
    chunks = chunks_for(policy)
    draws = draws_for(policy, chunks)
    assert torch.equal(policy.score(chunks, draws), policy.reference().score(chunks, draws))
    policy.train()
    assert torch.equal(policy.score(chunks, draws), policy.reference().score(chunks, draws)), (
        "train mode must not matter"
    )


def test_the_reference_is_frozen_and_does_not_follow(preset):
    policy = build(preset)
    reference, chunks = policy.reference(), chunks_for(policy)
    draws = draws_for(policy, chunks)
    before = reference.score(chunks, draws)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    assert torch.equal(before, reference.score(chunks, draws))
    assert not any(p.requires_grad for p in reference.parameters())
    assert not torch.equal(before, policy.score(chunks, draws))


def test_masked_elements_do_not_reach_the_score_or_the_loss(preset):
    policy = build(preset, **({"backbone": "mlp"} if "backbone" in preset else {}))
    chunks = chunks_for(policy)
    draws = draws_for(policy, chunks)
    half = Chunks(chunks.observation, chunks.action, chunks.mask * 0)
    assert policy.score(half, draws).abs().max() == 0
    assert policy.loss(half, draws).abs().max() == 0


def test_the_score_is_minus_half_the_summed_loss(preset):
    policy = build(preset)
    chunks = chunks_for(policy)
    draws = draws_for(policy, chunks)
    elements = chunks.mask.sum(dim=(1, 2))
    assert_close(policy.score(chunks, draws), -0.5 * policy.loss(chunks, draws) * elements)


def test_times_are_stratified(preset):
    if "probes" not in preset:
        # A head whose likelihood is exact draws nothing.
        draws = draws_for(build(preset), chunks_for(build(preset)))
        assert not draws.noise.any() and not draws.time.any()
        return
    policy = build(preset, probes=5, diffusion_steps=50)
    draws = draws_for(policy, chunks_for(policy, batch=40))
    assert (draws.time // 10 == torch.arange(5)).all()


def test_the_score_gradient_equals_finite_differences(preset):
    policy = build(preset).double()
    chunks = chunks_for(policy)
    chunks = Chunks(Observation(chunks.observation.state.double()), chunks.action.double(), chunks.mask.double())
    draws = policy.draw(chunks, torch.Generator().manual_seed(0))
    draws = type(draws)(draws.time, draws.noise.double())
    parameter = next(p for p in policy.parameters() if p.dim() == 2)
    policy.score(chunks, draws).sum().backward()
    slope, step = parameter.grad[0, 0].item(), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter[0, 0] += sign * step
            values.append(policy.score(chunks, draws).sum().item())
            parameter[0, 0] -= sign * step
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_saving_and_loading_gives_the_same_policy(preset, tmp_path):
    policy = build(preset)
    again = load(save(policy, tmp_path / "policy"))
    chunks = chunks_for(policy)
    draws = draws_for(policy, chunks)
    assert again.spec == policy.spec
    assert torch.equal(policy.score(chunks, draws), again.score(chunks, draws))


def test_other_dimensions_are_refused_with_a_message(preset):
    policy = build(preset)
    with pytest.raises(InputError, match="wanted"):
        policy.act(Observation(torch.randn(2, policy.spec.history, 6)), torch.Generator())
