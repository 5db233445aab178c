from dataclasses import replace

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


def seen(policy, state, seed=3):
    """An observation with the state (B, K, D), pictures where the policy looks, and sentences where it reads."""
    generator, pictures = torch.Generator().manual_seed(seed), policy.spec.pictures
    shape = (*state.shape[:2], *pictures.size, 3)
    images = {c: torch.randint(256, shape, generator=generator, dtype=torch.uint8) for c in pictures.cameras}
    said = ("open the drawer", "close it", "push the red button down now", "Slide!")
    return Observation(state, images, tuple(said[i % 4] for i in range(len(state))) if policy.spec.words else ())


def chunks_for(policy, batch=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    spec = policy.spec
    state = torch.randn(batch, spec.history, 5, generator=generator)
    action = torch.rand(batch, spec.horizon, 3, generator=generator) * 2 - 1
    mask = torch.ones(batch, spec.horizon, 3)
    mask[0, spec.horizon // 2 :] = 0
    return Chunks(seen(policy, state), action, mask)


def draws_for(policy, chunks, seed=2):
    return policy.draw(chunks, torch.Generator().manual_seed(seed))


def test_a_sampled_chunk_has_the_announced_shape_and_range(preset):
    policy = build(preset)
    chunk = policy.act(seen(policy, torch.randn(4, policy.spec.history, 5)), torch.Generator().manual_seed(0))
    assert chunk.shape == (4, policy.spec.horizon, 3)
    assert chunk.abs().max() <= 1.0


def test_the_same_generator_gives_the_same_chunk(preset):
    policy = build(preset)
    observation = seen(policy, torch.randn(4, policy.spec.history, 5))
    one, two = (policy.act(observation, torch.Generator().manual_seed(7)) for _ in range(2))
    other = policy.act(observation, torch.Generator().manual_seed(8))
    assert torch.equal(one, two)
    assert torch.equal(one, other) == preset.get("deterministic", False)


def test_a_row_with_its_own_generator_does_not_see_its_neighbours(preset):
    policy = build(preset)
    observation = seen(policy, torch.randn(4, policy.spec.history, 5))

    def sample(rows):
        generators = [torch.Generator().manual_seed(r) for r in rows]
        return policy.act(observation[rows], generators)

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
    policy = build(preset)
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


def test_the_first_row_of_a_mask_counts_its_executed_half_only(preset):
    policy = build(preset)
    chunks = chunks_for(policy)
    draws = draws_for(policy, chunks)
    flat = torch.ones_like(chunks.mask)
    flat[0, : policy.spec.horizon // 2] = 0
    rest, whole = (Chunks(chunks.observation, chunks.action, m) for m in (flat, torch.ones_like(flat)))
    parts = policy.score(chunks, draws)[0] + policy.score(rest, draws)[0]
    assert_close(parts, policy.score(whole, draws)[0])


def test_times_are_stratified_where_the_score_is_a_surrogate(preset):
    knobs = preset.get("arguments", preset)  # a wrapper keeps its head's
    knobs |= {"probes": 5} if "probes" in knobs else {}
    policy = build(preset)
    draws = draws_for(policy, chunks_for(policy, batch=40))
    if "diffusion_steps" in knobs:
        assert (draws.time // 10 == torch.arange(5)).all()
    elif "probes" in knobs:  # times rise with the probe, and no two rows of a column leave their stratum
        assert (draws.time[:, 1:].amin(dim=0) >= draws.time[:, :-1].amax(dim=0)).all()
    else:
        assert draws.time.shape == (40, 1) and not draws.noise.any()


def test_the_score_gradient_equals_finite_differences(preset):
    policy = build(preset).double()
    chunks = chunks_for(policy)
    state = chunks.observation.state.double()
    chunks = Chunks(replace(chunks.observation, state=state), chunks.action.double(), chunks.mask.double())
    draws = policy.draw(chunks, torch.Generator().manual_seed(0))
    draws = type(draws)(draws.time.double() if draws.time.is_floating_point() else draws.time, draws.noise.double())
    step = 1e-6
    for measure in (policy.score, policy.loss):
        policy.zero_grad()
        measure(chunks, draws).sum().backward()
        matrices = [p for p in policy.parameters() if p.dim() == 2 and p.requires_grad]
        for parameter in (matrices[0], matrices[-1]):
            at = int(parameter.grad.abs().argmax())
            place, slope = divmod(at, parameter.shape[1]), parameter.grad.flatten()[at].item()
            assert slope != 0
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[place] += sign * step
                    values.append(measure(chunks, draws).sum().item())
                    parameter[place] -= sign * step
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
        policy.act(seen(policy, torch.randn(2, policy.spec.history, 6)), torch.Generator())
