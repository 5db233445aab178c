"""Likelihoods that can be written down: linear-Gaussian policies, tokens that are counted out, the optimal velocity and denoiser of a Gaussian."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from robopref.envs.point_mass import PointMass
from torch import nn
from torch.distributions import Laplace, Normal
from torch.testing import assert_close

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import chunk_table
from robopref.episodes import Episode
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.learners.clone import clone, fit_normalizer
from robopref.losses.pairwise import sigmoid
from robopref.policies.diffusion import Diffusion
from robopref.policies.flow import Flow
from robopref.policies.gaussian import Gaussian
from robopref.policies.tokens import Tokens
from robopref.rollout import rollout
from robopref.run import compose
from robopref.types import Chunks, Dims, Draws, Observation

DIMS = Dims(observation=3, action=2)
HEADS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf/policy").glob("*.yaml"))
SMALL = {"width": 32, "depth": 1}
MEAN, SPREAD = 0.3, 0.4


def chunks_for(policy, batch=5, action=None):
    spec = policy.spec
    state = torch.randn(batch, spec.history, spec.dims.observation, generator=torch.Generator().manual_seed(3))
    shape = (batch, spec.horizon, spec.dims.action)
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(4)) * 1.8 - 0.9
    return Chunks(Observation(state), drawn if action is None else action, torch.ones(shape))


@pytest.mark.parametrize(("density", "family"), [("gaussian", Normal), ("laplace", Laplace)])
def test_a_linear_gaussian_policy_scores_its_analytic_likelihood(density, family):
    torch.manual_seed(0)
    policy = Gaussian(DIMS, horizon=4, execute=4, density=density, spread=0.5, width=16, depth=0)
    policy.normalizer.fit(torch.randn(40, 3) * 2 + 1, torch.rand(40, 2) - 0.5)
    with torch.no_grad():
        policy.log_spread.add_(torch.linspace(-0.5, 0.5, 8).view(4, 2))
    chunks = chunks_for(policy)
    enter, leave = policy.network.enter, policy.network.leave
    weight, bias = leave.weight @ enter.weight, leave.weight @ enter.bias + leave.bias  # one linear map
    seen = policy.normalizer.state(chunks.observation.state).flatten(1)
    mean = (seen @ weight.T + bias).view(-1, 4, 2)
    each = family(mean, policy.log_spread.exp()).log_prob(policy.normalizer.action(chunks.action))
    assert_close(
        policy.score(chunks, policy.draw(chunks, torch.Generator())), each.sum(dim=(1, 2)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("density", ["gaussian", "laplace"])
def test_a_stochastic_head_samples_the_density_that_it_scores(density):
    policy = Gaussian(DIMS, horizon=1, execute=1, density=density, spread=0.2, **SMALL)
    nn.init.zeros_(policy.network.leave.weight)
    samples = policy.act(Observation(torch.zeros(4000, 1, 3)), torch.Generator().manual_seed(0))
    centred = samples[:, 0, 0] - policy.network.leave.bias[0].detach()
    wanted = 0.2 if density == "gaussian" else 0.2 * math.sqrt(2)  # almost nothing reaches the cut at 1
    assert centred.std().item() == pytest.approx(wanted, rel=0.05) and abs(centred.mean()) < 0.02


def test_token_probabilities_of_all_chunks_sum_to_one():
    torch.manual_seed(0)
    policy = Tokens(Dims(3, 1), horizon=3, execute=3, bins=3, width=16, depth=1, heads=2)
    every = torch.tensor(list(product(range(3), repeat=3)))[..., None]  # (27, 3, 1)
    state = torch.randn(1, 1, 3).expand(27, 1, 3)
    chunks = Chunks(Observation(state), policy.detokenize(every), torch.ones(27, 3, 1))
    assert policy.score(chunks, policy.draw(chunks, torch.Generator())).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_sampling_with_the_cache_follows_the_scored_distribution():
    torch.manual_seed(0)
    policy = Tokens(Dims(3, 1), horizon=2, execute=2, bins=3, width=16, depth=2, heads=2)
    state = torch.randn(1, 1, 3)
    samples = policy.tokenize(policy.act(Observation(state.expand(6000, 1, 3)), torch.Generator().manual_seed(1)))
    every = torch.tensor(list(product(range(3), repeat=2)))[..., None]
    chunks = Chunks(Observation(state.expand(9, 1, 3)), policy.detokenize(every), torch.ones(9, 2, 1))
    wanted = policy.score(chunks, policy.draw(chunks, torch.Generator())).exp().detach()
    found = torch.stack([(samples == one).all(dim=(1, 2)).float().mean() for one in every])
    assert (found - wanted).abs().max() < 0.025  # four standard errors


def test_the_cache_gives_the_logits_of_the_whole_sequence():
    torch.manual_seed(0)
    network = Tokens(DIMS, horizon=3, execute=3, bins=5, width=16, depth=2, heads=2).network
    before, condition = torch.randint(0, 5, (4, 6)), torch.randn(4, 3)
    whole, _ = network(before, None, condition)
    cache, one_by_one = None, []
    for place in range(6):
        logits, cache = network(before[:, place : place + 1], cache, condition)
        one_by_one.append(logits)
    assert_close(torch.cat(one_by_one, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_a_predicted_chunk_turns_into_the_same_tokens_again():
    policy = Tokens(DIMS, bins=256, **SMALL)
    policy.normalizer.fit(torch.randn(40, 3), torch.rand(40, 2) * 1.7 - 0.8)
    tokens = torch.arange(256).repeat(2).view(-1, 8, 2)
    assert torch.equal(policy.tokenize(policy.detokenize(tokens)), tokens)
    action = torch.rand(9, 8, 2) * 1.4 - 0.7
    width = (policy.normalizer.high - policy.normalizer.low) / 256
    assert ((policy.detokenize(policy.tokenize(action)) - action).abs() <= width / 2 + 1e-6).all()


class LinearGaussianBins(nn.Module):
    """Logits of the bins of a Gaussian whose mean is linear in the condition, independent of earlier tokens."""

    def __init__(self, bins, tokens):
        super().__init__()
        self.edges, self.tokens = torch.linspace(-1, 1, bins + 1, dtype=torch.float64), tokens

    def forward(self, before, cache, condition):
        mean = 0.1 * condition.double().sum(dim=1)[:, None, None]
        reached = Normal(mean, SPREAD).cdf(self.edges)
        return (reached[..., 1:] - reached[..., :-1]).log().expand(-1, self.tokens, -1), cache


def test_tokens_of_a_linear_gaussian_score_its_density_times_the_bin_width():
    policy = Tokens(DIMS, horizon=4, execute=4, bins=1024, **SMALL)
    policy.network = LinearGaussianBins(1024, 8)
    chunks = chunks_for(policy)
    mean = 0.1 * chunks.observation.state.sum(dim=(1, 2))[:, None, None].double()
    inside = Normal(mean, SPREAD).cdf(torch.tensor(1.0)) - Normal(mean, SPREAD).cdf(torch.tensor(-1.0))
    density = Normal(mean, SPREAD).log_prob(chunks.action.double()) - inside.log()
    got = policy.score(chunks, policy.draw(chunks, torch.Generator()))
    assert_close(got, (density + math.log(2 / 1024)).sum(dim=(1, 2)), rtol=0, atol=0.06)  # half a bin off, at most


def optimal_velocity(noisy, time, condition):
    """E[noise - action | x_t] for actions ~ N(MEAN, SPREAD^2)."""
    t = time[:, None, None] / 50.0
    gain = (t - (1 - t) * SPREAD**2) / (t**2 + (1 - t) ** 2 * SPREAD**2)
    return gain * (noisy - (1 - t) * MEAN) - MEAN


def test_the_optimal_velocity_carries_noise_to_the_gaussian_it_belongs_to():
    policy = Flow(DIMS, horizon=1, execute=1, sample_steps=100, **SMALL)
    policy.denoiser = optimal_velocity_module(optimal_velocity)
    samples = policy.act(Observation(torch.zeros(4000, 1, 3)), torch.Generator().manual_seed(0))
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.03)  # the cut at 1 takes 4% of one side
    inner = samples[samples.abs() < 1]
    assert inner.median().item() == pytest.approx(MEAN, abs=0.03)
    assert (samples < MEAN - SPREAD).float().mean().item() == pytest.approx(0.159, abs=0.02)


def optimal_velocity_module(function):
    module = nn.Module()
    module.forward = function
    return module


def surrogate_gap(policy, near, far, probes=3000):
    """Score difference of two one-number chunks at shared draws."""
    policy.probes = probes
    pair = torch.tensor([near, far]).view(2, 1, 1)
    one = chunks_for(policy, 1, pair[:1])
    draws = policy.draw(one, torch.Generator().manual_seed(0))
    state = one.observation.state.expand(2, -1, -1)
    shared = Draws(draws.time.expand(2, -1), draws.noise.expand(2, -1, -1, -1))
    first, second = policy.score(Chunks(Observation(state), pair, torch.ones(2, 1, 1)), shared)
    return (first - second).item()


def test_the_flow_score_of_the_optimal_velocity_is_its_analytic_expectation():
    policy = Flow(Dims(3, 1), horizon=1, execute=1, **SMALL)
    policy.denoiser = optimal_velocity_module(optimal_velocity)
    t = 1e-3 + (1 - 1e-3) * ((np.arange(20000) + 0.5) / 20000) ** (1 / 1.5)
    gain = (t - (1 - t) * SPREAD**2) / (t**2 + (1 - t) ** 2 * SPREAD**2)
    slope = ((1 + gain * (1 - t)) ** 2).mean()  # E (u - v)^2 = const + slope (a - MEAN)^2
    wanted = -0.5 * slope * ((0.35 - MEAN) ** 2 - (0.9 - MEAN) ** 2)
    got = surrogate_gap(policy, 0.35, 0.9)
    assert got == pytest.approx(wanted, rel=0.05) and got > 0


def test_the_diffusion_score_of_the_optimal_denoiser_is_its_analytic_expectation():
    policy = Diffusion(Dims(3, 1), horizon=1, execute=1, **SMALL)
    kept = policy.scheduler.alphas_cumprod

    def optimal(noisy, time, condition):  # E[action | x_t]
        alpha = kept[time][:, None, None]
        return MEAN + SPREAD**2 * alpha.sqrt() / (alpha * SPREAD**2 + 1 - alpha) * (noisy - alpha.sqrt() * MEAN)

    policy.denoiser = optimal_velocity_module(optimal)
    gain = SPREAD**2 * kept.sqrt() / (kept * SPREAD**2 + 1 - kept)
    slope = (1 - gain * kept.sqrt()).square().mean().item()
    wanted = -0.5 * slope * ((0.35 - MEAN) ** 2 - (0.9 - MEAN) ** 2)
    assert surrogate_gap(policy, 0.35, 0.9) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("head", HEADS)
def test_a_rollout_does_not_depend_on_how_many_run_side_by_side(head):
    torch.manual_seed(0)
    env = PointMass(horizon=16)
    dims = Dims(env.observation_space.shape[0], env.action_space.shape[0])
    preset = compose([f"policy={head}"])["policy"]
    preset.get("arguments", preset)["width"] = 32
    if "eyes" in preset:
        preset["eyes"] |= {"cameras": ["top"], "size": 24, "width": 8}
    policy = instantiate(preset, _partial_=True)(dims=dims).eval()
    asked = [Episode(seed, sentence="reach the goal") for seed in range(4)]
    alone, together = (
        list(rollout(policy, [PointMass(horizon=16, image_size=24) for _ in range(count)], asked, batch_size=8))
        for count in (1, 4)
    )
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.action, other.action) and np.array_equal(one.observation, other.observation)


def labelled(steps=24):
    """Episodes whose actions lie near 0.6 (better) or -0.6, by turns."""

    def one(number):
        rng, level = np.random.default_rng(number), 0.6 if number % 2 else -0.6
        action = np.clip(level + 0.1 * rng.normal(size=(steps, 2)), -1, 1).astype(np.float32)
        zeros = np.zeros(steps, np.float32)
        return Trajectory(rng.normal(size=(steps, 3)).astype(np.float32), action, zeros, zeros > 0)

    return [one(i) for i in range(20)]


@pytest.mark.parametrize("head", ["flow", "gaussian", "deterministic", "laplace", "tokens", "diffusion_v"])
def test_the_same_alignment_starts_at_its_zero_point_and_works_for_every_head(head):
    torch.manual_seed(0)
    preset = {**compose([f"policy={head}"])["policy"], "horizon": 4, "execute": 4, "width": 48, "depth": 1}
    policy = instantiate(preset, _partial_=True)(dims=DIMS)
    table = chunk_table(labelled(), policy.spec)
    fit_normalizer(policy, table)
    generator = torch.Generator().manual_seed(0)
    for _ in clone(policy, table, steps=120, lr=2e-3, batch=32, generator=generator):
        pass
    first, second = torch.arange(1, 20, 2), torch.arange(0, 20, 2)
    pairs = PairTable(first, second, torch.ones(10), torch.ones(10))
    settings = AlignSettings(steps=80, lr=1e-3, pairs_per_step=6, chunks_per_trajectory=4, anchor_chunks=16)
    reference = policy.reference()
    logs = list(align(policy, reference, table, pairs, first, sigmoid, settings, generator))
    assert logs[0]["align/preference"] == pytest.approx(math.log(2), abs=1e-6)
    assert logs[0]["align/rho_winner"] == logs[0]["align/rho_loser"] == 0.0
    assert logs[-1]["align/rho_winner"] > 0 > logs[-1]["align/rho_loser"]
    seen = Observation(torch.randn(400, 1, 3))
    after, before = (one.act(seen, torch.Generator().manual_seed(5)).mean().item() for one in (policy, reference))
    assert after > before + 0.02, "better episodes act near 0.6, worse ones near -0.6"


@pytest.mark.parametrize(
    "made",
    [
        lambda: Flow(DIMS, sample_steps=0), lambda: Flow(DIMS, backbone="cnn"), lambda: Gaussian(DIMS, spread=0.0),
        lambda: Gaussian(DIMS, density="cauchy"), lambda: Tokens(DIMS, bins=1), lambda: Tokens(DIMS, width=30, heads=4),
    ],
)  # fmt: skip
def test_impossible_heads_are_refused(made):
    with pytest.raises(InputError, match="wanted"):
        made()
