"""A GPU is where policies learn and act, if there is one: nothing may be left behind on the other device.

Where no GPU is at hand, torch's fake tensors stand in: they compute no numbers, but refuse operands on two devices as a GPU does.
"""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch._subclasses.fake_tensor import FakeTensorMode

from robopref.data.windows import ChunkTable
from robopref.device import accelerator, device_of, placed
from robopref.learners.align import AlignSettings, PairTable, align, gather, relative_scores
from robopref.learners.clone import clone
from robopref.losses.pairwise import sigmoid
from robopref.policies.diffusion import Diffusion
from robopref.types import Chunks, Dims, Observation, PolicySpec

CONF = Path(__file__).parents[1] / "conf"
HEADS = sorted(path.stem for path in (CONF / "policy").glob("*.yaml"))
GPU = torch.device("cuda", 0)


def table(spec: PolicySpec, episodes: int = 4, chunks: int = 3) -> ChunkTable:
    torch.manual_seed(0)
    rows = episodes * chunks
    shape = (rows, spec.history, *spec.pictures.size, 3)
    images = {camera: torch.randint(256, shape, dtype=torch.uint8) for camera in spec.pictures.cameras}
    seen = Observation(torch.randn(rows, spec.history, 5), images, ("open the drawer",) * rows if spec.words else ())
    start = torch.arange(episodes + 1) * chunks
    return ChunkTable(Chunks(seen, torch.rand(rows, spec.horizon, 2) * 2 - 1, torch.ones(rows, spec.horizon, 2)), start)


def head(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"policy={name}"]).policy
    return instantiate(config, _partial_=True)(dims=Dims(5, 2))


def test_operands_on_two_devices_are_noticed():
    with FakeTensorMode(), pytest.raises(RuntimeError, match="two different devices"):
        _ = torch.zeros(2, device=GPU) + torch.zeros(2)


@pytest.mark.parametrize("name", HEADS)
def test_a_policy_on_a_gpu_scores_there_and_pairs_are_compared_on_the_cpu(name):
    data, sides = table(head(name).spec), torch.tensor([0, 2])
    taken = gather(data, sides, 3, torch.Generator().manual_seed(0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        with GPU:
            policy = head(name)
        assert device_of(policy) == GPU
        chunks = taken.to(device_of(policy))
        draws = policy.draw(chunks, torch.Generator().manual_seed(0))
        assert {one.device for one in (chunks.action, chunks.mask, draws.noise, draws.time)} == {GPU}
        assert policy.score(chunks, draws).device == policy.loss(chunks, draws).device == GPU
        rho = relative_scores(policy, policy, chunks, draws, 1.0, data.count(sides))
        assert rho.device.type == "cpu" and rho.shape == (2,)


def test_rows_of_a_table_on_a_gpu_are_chosen_on_the_cpu():
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved = table(PolicySpec(Dims(5, 2), 8, 8, 1)).to(GPU)
        rows = gather(moved, torch.tensor([0, 2]), 3, torch.Generator().manual_seed(0))
        assert rows.action.device == GPU and moved.start.device.type == "cpu"


def test_a_machine_without_a_gpu_computes_on_its_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert accelerator().type == device_of(placed(torch.nn.Linear(1, 1))).type == device_of(object()).type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cloning_and_alignment_on_a_gpu_end_where_those_on_the_cpu_end():
    def learned(device: torch.device) -> torch.Tensor:
        torch.manual_seed(0)
        policy = Diffusion(Dims(5, 2), width=32, depth=1, diffusion_steps=10, sample_steps=3).to(device)
        data, generator = table(policy.spec), torch.Generator().manual_seed(0)
        pairs = PairTable(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.ones(2), torch.ones(2))
        list(clone(policy, data, steps=20, lr=1e-3, batch=8, generator=generator, ema=0.9))
        settings = AlignSettings(steps=20, pairs_per_step=2, chunks_per_trajectory=2, anchor_chunks=4)
        list(align(policy, policy.reference(), data, pairs, torch.tensor([0, 1]), sigmoid, settings, generator))
        rows = [torch.Generator().manual_seed(i) for i in range(4)]
        return policy.act(Observation(torch.ones(4, 1, 5, device=device)), rows).cpu()

    assert torch.allclose(learned(GPU), learned(torch.device("cpu")), atol=1e-3)
