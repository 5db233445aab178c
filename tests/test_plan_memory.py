"""What fine-tuning needs: counted on shapes, held against memory really taken; and the settings that need less compute the same."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from robopref.arrays import InputError
from robopref.checkpoint import save
from robopref.networks.recompute import recompute
from robopref.plan_memory import CHOICES, Choice, Shape, kept_for_backward, made_up, main, need
from robopref.policies.diffusion import Diffusion
from robopref.policies.vla import FlowVLA, TokenVLA
from robopref.train import fit
from robopref.types import Dims

CONF = Path(__file__).parents[1] / "conf/policy"
EYES = {"cameras": ["top"], "size": 16, "encoder": "small", "width": 8}
needs_peft = pytest.mark.skipif(
    find_spec("peft") is None and not os.environ.get("ROBOPREF_REQUIRE_VISION"), reason="needs the extra `vla`: no peft"
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def small(kind=FlowVLA):
    torch.manual_seed(0)
    return kind(Dims(5, 3), EYES, horizon=4, execute=4, width=16, depth=2, heads=2).eval()


def some_gradient(policy, chunks, draws):
    policy.zero_grad()
    policy.loss(chunks, draws).mean().backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", [FlowVLA, TokenVLA])
def test_checkpointing_keeps_less_and_changes_neither_score_nor_gradient(kind):
    policy = small(kind)
    chunks = made_up(policy, 6)
    draws = policy.draw(chunks, torch.Generator().manual_seed(0))
    score, gradient, kept = (
        policy.score(chunks, draws),
        some_gradient(policy, chunks, draws),
        kept_for_backward(policy, 6),
    )
    assert recompute(policy) == 2
    assert kept_for_backward(policy, 6) < 0.7 * kept
    assert torch.equal(policy.score(chunks, draws), score)
    torch.testing.assert_close(some_gradient(policy, chunks, draws), gradient)
    assert torch.equal(policy.reference().score(chunks, draws), score)
    recompute(policy, on=False)
    assert kept_for_backward(policy, 6) == kept
    with pytest.raises(InputError, match="without transformer blocks"):
        recompute(Diffusion(Dims(3, 2)))


def test_what_is_kept_is_the_about_the_same_on_shapes_alone_and_grows_with_the_batch():
    with torch.device("meta"):
        shapes = small()
    # Attention has another kernel on the CPU.
    assert kept_for_backward(shapes, 6) == pytest.approx(kept_for_backward(small(), 6), rel=0.1)
    assert kept_for_backward(shapes, 12) == pytest.approx(2 * kept_for_backward(shapes, 6), rel=0.05)


def train(steps=5, **settings):
    policy = small()
    chunks = made_up(policy, 6)
    chunks.action.copy_(torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(1)) - 0.5)
    losses = []

    def step(generator):
        loss = policy.loss(chunks, policy.draw(chunks, generator)).mean()
        losses.append(loss.item())
        return loss, {}

    list(fit(policy, step, steps=steps, lr=1e-2, generator=torch.Generator().manual_seed(0), **settings))
    return policy.state_dict(), losses


def test_an_optimiser_in_the_processors_memory_makes_the_same_steps():
    (plain, _), (offloaded, _) = train(), train(offload=True)
    assert all(torch.equal(plain[k], offloaded[k]) for k in plain)
    assert not torch.equal(plain["leave.weight"], small().state_dict()["leave.weight"])


def test_bfloat16_products_keep_the_zero_point_and_learn_about_the_same():
    policy = small()
    chunks = made_up(policy, 6)
    draws = policy.draw(chunks, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            before = policy.reference().score(chunks, draws)
        score = policy.score(chunks, draws)
    assert score.dtype == torch.float32 and torch.equal(score, before)
    plain = policy.score(chunks, draws)
    assert not torch.equal(score, plain)
    torch.testing.assert_close(score, plain, rtol=0.02, atol=0.1)
    (weights, losses), (_, wanted) = train(20, autocast=True), train(20)
    assert all(v.dtype == torch.float32 for k, v in weights.items() if v.is_floating_point())
    assert losses[-1] == pytest.approx(wanted[-1], rel=0.1) and losses[-1] < 0.8 * losses[0]


def test_the_parts_follow_from_the_counts():
    shape = Shape(weights=100, learned=10, kept=1000, kept_recomputed=400)
    plain = need(Choice("", copy=True), Shape(100, 100, 1000, None))
    assert plain == {"weights": 400, "reference": 400, "gradients": 400, "optimiser": 800, "activations": 1000, "total": 3000, "processor": 0}  # fmt: skip
    adapted = need(Choice("", adapters=True, half=True, recompute=True), shape)
    assert (adapted["weights"], adapted["reference"], adapted["activations"]) == (90 * 2 + 10 * 4, 0, 200)
    off = need(Choice("", offload=True), Shape(100, 100, 1000, None))
    assert (off["optimiser"], off["processor"]) == (0, 1600)
    assert need(Choice("", recompute=True), Shape(100, 100, 1000, None)) is None


@needs_peft
@pytest.mark.parametrize("name", ["diffusion", "tokens", "vla_flow"])
def test_the_command_has_a_row_for_every_choice(name):
    told = main({"policy": name, "batch": "4", "rank": "2", "gpu": "24"})
    rows = told.splitlines()[2:]
    assert [row[:46].rstrip() for row in rows] == [c.name for c in CHOICES]
    assert all(row.endswith(("yes", "blocks")) for row in rows)
    assert all(
        row.endswith(("NO", "blocks")) for row in main({"policy": name, "batch": "4", "gpu": "0.0001"}).splitlines()[2:]
    )


@needs_peft
def test_a_folder_is_counted_without_its_weights(tmp_path):
    save(small(), tmp_path / "policy")
    (tmp_path / "policy/model.safetensors").unlink()
    assert "million weights" in main({"checkpoint": str(tmp_path / "policy"), "batch": "2"})


def test_bad_requests_are_told(tmp_path):
    for options, words in [
        ({"policy": "diffusion", "bach": "3"}, "Did you mean"),
        ({}, "policy=NAME or checkpoint=DIR"),
        ({"policy": "diffusion", "batch": "many"}, "wanted a number"),
        ({"policy": "diffusion", "rank": "0"}, "more than 0"),
        ({"checkpoint": str(tmp_path)}, r"no config\.json"),
    ]:
        with pytest.raises(InputError, match=words):
            main(options)


@pytest.mark.slow
@needs_peft
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_alignment_by_adapters_needs_at_most_a_fifth_more_than_cloning_and_the_plan_is_near():
    measured = import_module("robopref.benchmarks._vla_memory").measured
    clone, align = measured("clone_lora"), measured("align_lora")
    assert align["peak"] <= 1.2 * clone["peak"]
    for one in (clone, align, measured("clone_all")):
        assert 1 / 1.3 <= one["peak"] / one["planned"] <= 1.3
