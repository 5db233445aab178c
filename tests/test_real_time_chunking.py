"""Real-time chunking: weights of the paper, the true vector-Jacobian product, and what must not change."""

import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.policies.diffusion import Diffusion
from robopref.policies.flow import Flow
from robopref.policies.real_time_chunking import RealTimeChunking, flow_weight, guided_flow, prefix_weights, pulled
from robopref.types import Dims, Observation

H, A = 16, 3


def build(prediction="sample", horizon=H):
    torch.manual_seed(0)
    policy = Diffusion(Dims(4, A), horizon=horizon, execute=horizon // 2, prediction=prediction, width=64, depth=2)
    policy.normalizer.fit(torch.randn(50, 4), torch.rand(50, A) * 2 - 1)
    return policy.eval()


def build_flow():
    torch.manual_seed(0)
    policy = Flow(Dims(4, A), horizon=H, execute=H // 2, width=64, depth=2)
    policy.normalizer.fit(torch.randn(50, 4), torch.rand(50, A) * 2 - 1)
    return policy.eval()


BUILDERS = {"diffusion": build, "flow": build_flow}


def inputs(batch=5):
    g = torch.Generator().manual_seed(1)
    return Observation(torch.randn(batch, 1, 4, generator=g)), torch.rand(batch, H, A, generator=g) * 1.6 - 0.8


def numbers(value, batch=5):
    return torch.full((batch,), value)


def test_the_weights_are_those_of_the_paper():
    falling = torch.tensor([0.677, 0.433, 0.256, 0.133, 0.055, 0.013])
    wanted = torch.cat([torch.ones(4), falling, torch.zeros(6)])
    assert_close(prefix_weights(16, 4, 6), wanted, atol=6e-4, rtol=0)
    assert_close(prefix_weights(16, 4, 6, "linear")[4:10], torch.arange(6, 0, -1) / 7)
    assert prefix_weights(16, 0, 16).sum() == 0
    for schedule in ("exp", "linear", "cosine"):
        assert (prefix_weights(16, 4, 6, schedule).diff() <= 0).all()
    steps = -prefix_weights(16, 4, 6, "cosine").diff()
    assert steps[3] < 0.06 and steps[3] == pytest.approx(float(steps[9]), abs=1e-6), "level at both ends"
    with pytest.raises(InputError, match="delay"):
        prefix_weights(16, 7, 6)


@pytest.mark.parametrize("schedule", ["exp", "linear", "cosine"])
def test_the_overlap_may_end_earlier(schedule):
    whole = prefix_weights(16, 4, 6, schedule)
    assert_close(prefix_weights(16, 4, 6, schedule, fade=99), whole)
    assert_close(prefix_weights(16, 4, 6, schedule, fade=6), whole, msg="6 = H - s - d is all there is")
    short = prefix_weights(16, 4, 6, schedule, fade=2)
    assert_close(short, prefix_weights(16, 4, 10, schedule), msg="as if only d + 2 rows had been left")
    assert (short[:4] == 1).all() and 0 < short[5] < short[4] < 1 and short[6:].sum() == 0
    assert prefix_weights(16, 4, 6, schedule, fade=0).sum() == 4
    with pytest.raises(InputError, match="fade"):
        prefix_weights(16, 4, 6, schedule, fade=-1)


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_what_lies_behind_the_fade_is_free(name):
    """Rows that run before the next chunk comes must say what was seen: with H 16, E 8 and a delay of 4 these are rows 4 to 7."""
    observation, previous = inputs()
    chunking = RealTimeChunking(BUILDERS[name](), fade=2)
    other = previous.clone()
    other[:, 6:] = 0.3

    def resumed(old):
        return chunking.resume(observation, old, numbers(4), numbers(4), torch.Generator().manual_seed(3))

    assert_close(resumed(previous), resumed(other), rtol=0, atol=0, msg="the old chunk's rows there are not looked at")
    held = resumed(previous)
    assert_close(held[:, :4], previous[:, :4])
    with pytest.raises(InputError, match="fade"):
        RealTimeChunking(BUILDERS[name](), fade=-1)


def test_the_pull_is_the_gradient_by_finite_differences():
    torch.manual_seed(0)
    policy = build().double()
    observation, previous = inputs(1)
    condition = policy.encode(Observation(observation.state.double()))
    weights, wanted = prefix_weights(H, 3, 6)[:, None].double(), previous.double()
    chunking = RealTimeChunking(policy)
    time, alpha = torch.tensor(20), policy.scheduler.alphas_cumprod[20].double()

    def estimate(x):
        return chunking._estimate(x, time, alpha, condition)

    x = torch.randn(1, H, A, dtype=torch.float64)
    x0, pull = pulled(estimate, x, wanted, weights)
    numeric = torch.zeros_like(x)
    with torch.no_grad():
        error = weights * (wanted - x0)
        for index in range(x.numel()):
            step = torch.zeros(x.numel(), dtype=torch.float64)
            step[index] = 1e-5
            moved = estimate(x + step.view_as(x)) - estimate(x - step.view_as(x))
            numeric.view(-1)[index] = (error * moved / 2e-5).sum()
    assert (pull - numeric).abs().max() < 1e-4 * max(1.0, float(pull.abs().max()))
    assert pull.abs().max() > 1e-3, "a pull of nothing would agree with anything"


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_on_a_gaussian_prior_the_pull_has_its_closed_form(tau):
    """v = (2 tau - 1)/(tau^2 + (1 - tau)^2) x, hence J = tau/(tau^2 + (1 - tau)^2); with J = 1 this fails."""
    scale = tau**2 + (1 - tau) ** 2

    def estimate(x):
        return x + (1 - tau) * (2 * tau - 1) / scale * x

    x, wanted = torch.randn(2, H, A, dtype=torch.float64), torch.randn(2, H, A, dtype=torch.float64)
    weights = prefix_weights(H, 4, 6)[:, None].double()
    x0, pull = pulled(estimate, x, wanted, weights)
    assert_close(pull, tau / scale * weights * (wanted - x0))
    if 0 < tau < 1:  # unclipped, one guided step lands on the weighted mean exactly
        v = (x0 - x) / (1 - tau) + flow_weight(tau, 1e9) * pull
        assert_close(x + (1 - tau) * v, weights * wanted + (1 - weights) * x0)


def test_flow_weights_are_those_of_the_paper():
    for tau, wanted in ((0.1, 9.111), (0.2, 4.25), (0.5, 2.0)):
        assert flow_weight(tau, 1e9) == pytest.approx(wanted, abs=1e-3)
    assert flow_weight(0.1, 5.0) == 5.0 and flow_weight(0.0, 5.0) == 5.0


def test_a_guided_flow_keeps_the_frozen_rows_if_beta_is_large_enough():
    wanted, noise = torch.randn(1, H, A, dtype=torch.float64), torch.randn(1, H, A, dtype=torch.float64)
    weights = prefix_weights(H, 4, 6)[:, None].double()

    def velocity(x, tau):
        return (2 * tau - 1) / (tau**2 + (1 - tau) ** 2) * x

    def missed(beta):
        return float((guided_flow(velocity, noise, 10, wanted, weights, beta) - wanted)[:, :4].abs().max())

    assert missed(10.0) < 1e-6 < missed(5.0)
    free = guided_flow(velocity, noise, 10, wanted, weights * 0, 10.0)
    assert_close(free[:, 10:], guided_flow(velocity, noise, 10, wanted, weights, 10.0)[:, 10:])


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("mode", ["guidance", "prefix"])
def test_a_chunk_that_continues_nothing_is_the_policys_own(prediction, mode):
    policy = build(prediction)
    observation, previous = inputs()
    chunking = RealTimeChunking(policy, mode)
    own = policy.act(observation, torch.Generator().manual_seed(3))
    free = chunking.resume(observation, previous, numbers(0), numbers(H), torch.Generator().manual_seed(3))
    assert_close(free, own, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["guidance", "prefix"])
def test_a_flow_is_continued_like_a_diffusion_policy(mode):
    policy, (observation, previous) = build_flow(), inputs()
    chunking = RealTimeChunking(policy, mode)
    own = policy.act(observation, torch.Generator().manual_seed(3))
    free = chunking.resume(observation, previous, numbers(0), numbers(H), torch.Generator().manual_seed(3))
    assert_close(free, own, atol=2e-5, rtol=1e-4)
    held = chunking.resume(observation, previous, numbers(4), numbers(6), torch.Generator().manual_seed(3))
    assert_close(held[:, :4], previous[:, :4])
    assert (held - free)[:, 4:].abs().max() > 1e-3


@pytest.mark.parametrize("name", BUILDERS)
def test_the_blend_takes_what_the_pull_left_and_leaves_what_is_free(name):
    """Without it a chunk leaves the old one by up to (1 - W) of what they disagree about at the first row that is not frozen."""
    observation, previous = inputs()
    weights = prefix_weights(H, 4, 6, "cosine")[:, None]
    bare, blended = (
        RealTimeChunking(BUILDERS[name](), "guidance", blend=blend, fade=None).resume(
            observation, previous, numbers(4), numbers(6), torch.Generator().manual_seed(3)
        )
        for blend in (False, True)
    )
    assert_close(blended, weights * previous + (1 - weights) * bare)
    assert_close(blended[:, 10:], bare[:, 10:])
    assert (blended - previous)[:, 4].abs().max() < 0.1 * (bare - previous)[:, 4].abs().max()


@pytest.mark.parametrize("mode", ["guidance", "prefix"])
def test_frozen_rows_are_the_previous_ones_and_each_row_has_its_own_delay(mode):
    observation, previous = inputs()
    delay, executed = torch.tensor([0, 1, 2, 4, 6]), torch.tensor([16, 6, 6, 6, 8])
    chunks = RealTimeChunking(build(), mode).resume(
        observation, previous, delay, executed, torch.Generator().manual_seed(0)
    )
    for row, d in enumerate(delay.tolist()):
        assert_close(chunks[row, :d], previous[row, :d])
    assert torch.isfinite(chunks).all() and chunks.abs().max() <= 1.0 + 1e-6


def test_guidance_brings_the_overlap_nearer_than_a_free_chunk():
    policy = build()
    observation, _ = inputs()
    previous = policy.act(observation, torch.Generator().manual_seed(9))
    free = policy.act(observation, torch.Generator().manual_seed(3))
    pulled_in = RealTimeChunking(policy, "guidance").resume(
        observation, previous, numbers(4), numbers(6), torch.Generator().manual_seed(3)
    )
    assert (pulled_in - previous)[:, 4:8].abs().mean() <= (free - previous)[:, 4:8].abs().mean() + 1e-6


def test_sampling_survives_an_outer_no_grad_and_leaves_no_graph():
    observation, previous = inputs()
    with torch.no_grad():
        chunks = RealTimeChunking(build()).resume(
            observation, previous, numbers(2), numbers(6), torch.Generator().manual_seed(0)
        )
    assert not chunks.requires_grad


def test_a_policy_without_a_denoiser_is_refused():
    with pytest.raises(InputError, match="denoiser"):
        RealTimeChunking(object())
