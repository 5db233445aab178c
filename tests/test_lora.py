"""LoRA: the reference is the policy with its adapters off, only adapters learn, and an adapter folder is peft's own."""

import json
import os
from importlib.util import find_spec

import pytest
import torch

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.data.windows import ChunkTable
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.losses.pairwise import sigmoid
from robopref.policies.diffusion import Diffusion
from robopref.policies.flow import Flow
from robopref.policies.lora import LoRA
from robopref.policies.tokens import Tokens
from robopref.policies.vla import FlowVLA, TokenVLA
from robopref.types import Chunks, Dims, Observation

if find_spec("peft") is None and not os.environ.get("ROBOPREF_REQUIRE_VISION"):
    pytest.skip("needs the extra `vla`: no peft", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

DIMS = Dims(observation=5, action=3)
EYES = {"cameras": ["top"], "size": 16, "encoder": "small", "width": 8, "state": [0, 1]}
SMALL = {"horizon": 4, "execute": 4, "width": 16, "depth": 2}
HEADS = {
    "diffusion": lambda: Diffusion(DIMS, **SMALL),
    "flow": lambda: Flow(DIMS, **SMALL),
    "tokens": lambda: Tokens(DIMS, heads=2, **SMALL),
    "vla_tokens": lambda: TokenVLA(DIMS, EYES, heads=2, **SMALL),
    "vla_flow": lambda: FlowVLA(DIMS, EYES, heads=2, **SMALL),
}


def build(name, **options):
    torch.manual_seed(0)
    policy = HEADS[name]()
    policy.normalizer.fit(torch.randn(50, 5) * 3 + 1, torch.rand(50, 3) * 2 - 1)
    return LoRA(policy.eval(), **({"rank": 2, "alpha": 4} | options)).eval()


def chunks_for(policy, batch=8):
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(batch, policy.spec.history, 5, generator=generator)
    images = {c: torch.zeros(batch, 1, 16, 16, 3, dtype=torch.uint8) for c in policy.spec.pictures.cameras}
    sentence = tuple(["open the drawer"] * batch) if policy.spec.words else ()
    action = torch.rand(batch, 4, 3, generator=generator) * 2 - 1
    return Chunks(Observation(state, images, sentence), action, torch.ones(batch, 4, 3))


def moved(adapted, scale=0.1):
    """Adapters that have learned something."""
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return adapted


@pytest.mark.parametrize("name", HEADS)
def test_policy_and_reference_agree_exactly_until_adapters_learn_and_the_reference_stays(name):
    plain, adapted = HEADS[name](), build(name)
    torch.manual_seed(0)
    plain = HEADS[name]()
    plain.normalizer.load_state_dict(adapted.normalizer.state_dict())
    chunks = chunks_for(adapted)
    draws = adapted.draw(chunks, torch.Generator().manual_seed(2))
    reference, before = adapted.reference(), plain.eval().score(chunks, draws)
    assert torch.equal(adapted.score(chunks, draws), before) and torch.equal(reference.score(chunks, draws), before)
    moved(adapted)
    assert torch.equal(reference.score(chunks, draws), before)
    assert not torch.equal(adapted.score(chunks, draws), before)
    one, two = (p.act(chunks.observation, torch.Generator().manual_seed(3)) for p in (reference, plain))
    assert torch.equal(one, two)


@pytest.mark.parametrize("name", HEADS)
def test_alignment_moves_adapters_only_and_starts_at_the_zero_point(name):
    adapted = build(name)
    frozen = {k: v.clone() for k, v in adapted.state_dict().items() if ".lora_" not in k}
    start, chunks = torch.arange(9), chunks_for(adapted)
    table = ChunkTable(chunks, start) if name else None
    pairs = PairTable(torch.arange(4), torch.arange(4, 8), torch.ones(4), torch.ones(4))
    settings = AlignSettings(steps=6, lr=3e-2, pairs_per_step=4, chunks_per_trajectory=1, anchor_chunks=2)
    logs = list(
        align(
            adapted, adapted.reference(), table, pairs, pairs.first, sigmoid, settings, torch.Generator().manual_seed(0)
        )
    )
    assert logs[0]["align/rho_winner"] == 0.0 and logs[0]["align/rho_loser"] == 0.0
    assert logs[0]["align/preference"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-6)
    assert logs[-1]["align/rho_winner"] != 0.0
    after = adapted.state_dict()
    assert all(torch.equal(after[k], v) for k, v in frozen.items())
    touched = [k for k, p in adapted.named_parameters() if p.grad is not None]
    assert touched and all(".lora_" in k for k in touched)


def test_an_adapter_folder_round_trips_and_peft_itself_reads_it(tmp_path):
    import peft

    adapted = moved(build("vla_flow", targets=["qkv", "out"], root="network"))
    chunks = chunks_for(adapted)
    draws = adapted.draw(chunks, torch.Generator().manual_seed(2))
    adapted.save_adapter(tmp_path / "adapter")
    assert sorted(p.suffix for p in (tmp_path / "adapter").iterdir()) == [".json", ".json", ".safetensors"]
    torch.manual_seed(0)
    plain, theirs = HEADS["vla_flow"](), HEADS["vla_flow"]()
    plain.load_state_dict(build("vla_flow").merged().state_dict())
    theirs.load_state_dict(plain.state_dict())
    again = LoRA.with_adapter(plain.eval(), tmp_path / "adapter", root="network")
    assert torch.equal(again.score(chunks, draws), adapted.score(chunks, draws))
    theirs.network = peft.PeftModel.from_pretrained(theirs.network, str(tmp_path / "adapter")).base_model.model
    assert torch.equal(theirs.eval().score(chunks, draws), adapted.score(chunks, draws))


def test_the_whole_policy_round_trips_through_the_ordinary_folder(tmp_path):
    adapted = moved(build("tokens"))
    again = load(save(adapted, tmp_path / "policy"))
    chunks = chunks_for(adapted)
    draws = adapted.draw(chunks, torch.Generator().manual_seed(2))
    assert torch.equal(again.score(chunks, draws), adapted.score(chunks, draws))
    assert torch.equal(again.reference().score(chunks, draws), adapted.reference().score(chunks, draws))


def test_a_merged_policy_is_what_the_adapters_made_of_it():
    adapted = moved(build("flow"))
    chunks = chunks_for(adapted)
    draws = adapted.draw(chunks, torch.Generator().manual_seed(2))
    before = adapted.score(chunks, draws)
    merged = adapted.merged()
    assert type(merged) is Flow and not [k for k in merged.state_dict() if "lora" in k or "base_layer" in k]
    torch.testing.assert_close(merged.score(chunks, draws), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(LoRA(merged, rank=2).reference().score(chunks, draws), before, rtol=1e-4, atol=1e-4)


def test_bad_input_is_told(tmp_path):
    with pytest.raises(InputError, match=r"ends of names of linear layers. There are: denoiser"):
        build("flow", targets=["q_proj"])
    with pytest.raises(InputError, match="rank >= 1"):
        build("flow", rank=0)
    loose = build("flow")
    loose.policy.denoiser.requires_grad_(True)
    with pytest.raises(InputError, match="weights outside the adapters would learn"):
        loose.reference()
    with pytest.raises(InputError, match=r"no adapter_config\.json"):
        LoRA.with_adapter(HEADS["flow"](), tmp_path)
    build("flow").save_adapter(tmp_path)
    torch.manual_seed(1)
    with pytest.raises(InputError, match="adapters of base"):
        LoRA.with_adapter(HEADS["flow"](), tmp_path)
    (tmp_path / "robopref_base.json").unlink()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))
    with pytest.raises(InputError, match=r"weights do not fit \(.*got \(2, .*wanted \(3, "):
        LoRA.with_adapter(HEADS["flow"](), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(InputError, match="wanted plain LoRA"):
        LoRA.with_adapter(HEADS["flow"](), tmp_path)
