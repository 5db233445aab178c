"""OpenVLA from a folder in its published layout: tiny, random, with real token ids, both vision models, and sharded weights."""

import json
import os
from importlib.util import find_spec

import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.data.windows import ChunkTable
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.losses.pairwise import sigmoid
from robopref.networks.prismatic import Prismatic
from robopref.networks.recompute import recompute
from robopref.plan_memory import main as plan
from robopref.policies.lora import LoRA
from robopref.policies.openvla import OpenVLA
from robopref.run import compose
from robopref.stages import vla
from robopref.types import Chunks, Observation

MISSING = [name for name in ("timm", "transformers", "peft") if find_spec(name) is None]
if MISSING and not os.environ.get("ROBOPREF_REQUIRE_VISION"):
    pytest.skip(f"needs the extra `vla`: no {', '.join(MISSING)}", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CONFIG = {
    "model_type": "openvla",
    "timm_model_ids": ["test_vit2", "test_vit3"],
    "image_sizes": [32, 32],
    "use_fused_vision_backbone": True,
    "n_action_bins": 256,
    "pad_to_multiple_of": 64,
    "text_config": {
        "model_type": "llama", "vocab_size": 32064, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 48, "pad_token_id": 32000, "torch_dtype": "bfloat16",
    },
    "norm_stats": {
        "kitchen": {"action": {"q01": [-0.1, 0.0, 0.0], "q99": [0.3, 2.0, 1.0], "mask": [True, True, False]}},
        "shelf": {"action": {"q01": [-1.0, -1.0, 0.0], "q99": [1.0, 1.0, 1.0], "mask": [True, True, False]}},
    },
}  # fmt: skip
PIXELS = {"means": [[0.48, 0.46, 0.41], [0.5, 0.5, 0.5]], "stds": [[0.23, 0.22, 0.22], [0.5, 0.5, 0.5]]}
WORDS = [
    "in", "what", "action", "should", "the", "robot", "take", "to", "open", "the", "drawer", "close", "it", "slowly", "?", ":", "out",
]  # fmt: skip


def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {"<unk>": 0, "<s>": 1} | {word: 10 + i for i, word in enumerate(dict.fromkeys(WORDS))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made.to_str()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("openvla")
    torch.manual_seed(0)
    model = Prismatic(CONFIG)
    with torch.no_grad():  # otherwise all tokens are nearly alike, and few of them are actions
        model.language_model.lm_head.weight[31744:32000].mul_(80)
    state = {k.replace(".gamma", ".scale_factor"): v.contiguous() for k, v in model.state_dict().items()}
    assert any(k.endswith("ls1.scale_factor") for k in state)
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for name, keys in parts.items():
        save_file({k: state[k].bfloat16() for k in keys}, root / name)
    where = {k: name for name, keys in parts.items() for k in keys}
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (root / "config.json").write_text(json.dumps(CONFIG))
    (root / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    (root / "tokenizer.json").write_text(tokenizer())
    return root


def seen(batch=4):
    generator = torch.Generator().manual_seed(2)
    pictures = torch.randint(256, (batch, 1, 32, 32, 3), generator=generator, dtype=torch.uint8)
    said = ("open the drawer", "close it", "open it slowly", "Close the drawer slowly")
    return Observation(torch.zeros(batch, 1, 1), {"top": pictures}, tuple(said[i % 4] for i in range(batch)))


def chunks_for(batch=4):
    action = torch.rand(batch, 1, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(batch, 1, 3)
    mask[0, 0, 2] = 0
    return Chunks(seen(batch), action, mask)


def original_inputs(policy, row):
    """Embeddings (1, S, width) of one row's prompt, put together as the published code does."""
    observation = seen()[torch.tensor([row])]
    ids = policy.tokenizer.encode(
        f"In: What action should the robot take to {observation.sentence[0].lower()}?\nOut:"
    ).ids
    ids = torch.tensor([[*ids, 29871]])
    pixels = observation.images["top"][:, 0].permute(0, 3, 1, 2).float() / 255
    parts = []
    for model, mean, std in zip(
        (policy.network.vision_backbone.featurizer, policy.network.vision_backbone.fused_featurizer), PIXELS["means"], PIXELS["stds"],
        strict=True,
    ):  # fmt: skip
        scaled = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        parts.append(model.get_intermediate_layers(scaled, n=[len(model.blocks) - 2])[0])
    patches = policy.network.projector(torch.cat(parts, dim=2))
    said = policy.network.language_model.model.embed_tokens(ids)
    return torch.cat([said[:, :1], patches, said[:, 1:]], dim=1)


def published_decoding(tokens, low, high):
    """Ids -> actions, as `predict_action` of the published code does with numpy."""
    import numpy as np

    bins = np.linspace(-1, 1, 256)
    centres = (bins[:-1] + bins[1:]) / 2
    normalised = centres[np.clip(32000 - tokens - 1, 0, 254)]
    scaled = 0.5 * (normalised + 1) * (high - low) + low
    return np.where(np.array([True, True, False]), scaled, normalised)


def test_the_likeliest_actions_are_those_that_transformers_itself_generates(folder):
    import numpy as np

    policy = OpenVLA.from_folder(folder, data="kitchen")
    ours = policy.act(seen(), torch.Generator().manual_seed(0))
    assert ours.shape == (4, 1, 3) and len(ours.flatten().unique()) > 3
    for row in range(4):
        found = policy.network.language_model.generate(
            inputs_embeds=original_inputs(policy, row),
            max_new_tokens=3,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        told = CONFIG["norm_stats"]["kitchen"]["action"]
        wanted = published_decoding(found[0, -3:].numpy(), np.array(told["q01"]), np.array(told["q99"]))
        assert_close(ours[row, 0].double(), torch.from_numpy(wanted), rtol=1e-4, atol=1e-5)


def test_the_score_is_the_log_probability_of_the_tokens_one_after_the_other(folder):
    policy = OpenVLA.from_folder(folder, data="kitchen")
    chunks = chunks_for()
    score = policy.score(chunks, policy.draw(chunks, torch.Generator()))
    tokens = policy.tokenize(chunks.action)[:, 0]
    assert ((tokens >= 31744) & (tokens <= 31999)).all()
    for row in range(4):
        embedded, total = original_inputs(policy, row), 0.0
        for place in range(3):
            logits = policy.network.language_model(inputs_embeds=embedded).logits[0, -1]
            total += logits.log_softmax(-1)[tokens[row, place]].item() * chunks.mask[row, 0, place].item()
            after = policy.network.language_model.model.embed_tokens(tokens[row, place][None, None])
            embedded = torch.cat([embedded, after], dim=1)
        assert score[row].item() == pytest.approx(total, rel=1e-4)


def test_a_row_does_not_see_its_neighbours_and_samples_by_its_own_generator(folder):
    policy = OpenVLA.from_folder(folder, data="kitchen", temperature=1.0)
    chunks = chunks_for()
    whole = policy.score(chunks, policy.draw(chunks, torch.Generator()))
    part = chunks[torch.tensor([2, 0])]
    assert_close(policy.score(part, policy.draw(part, torch.Generator())), whole[[2, 0]], rtol=1e-4, atol=1e-4)

    def sample(rows):
        return policy.act(seen()[torch.tensor(rows)], [torch.Generator().manual_seed(r) for r in rows])

    assert_close(sample([0, 1, 2, 3])[2], sample([3, 2, 0])[1])
    assert not torch.equal(
        sample([0, 1, 2, 3]), OpenVLA.from_folder(folder, data="kitchen").act(seen(), torch.Generator())
    )


def test_tokens_turn_into_actions_and_back(folder):
    policy = OpenVLA.from_folder(folder, data="kitchen")
    ids = torch.arange(31745, 32000)
    action = policy.normalizer.unaction(policy.centres(ids)[:, None].expand(-1, 3))
    assert torch.equal(policy.tokenize(action), ids[:, None].expand(-1, 3))
    assert torch.equal(policy.centres(torch.tensor([5, 31744])), policy.centres(torch.tensor([31745, 31745])))


def test_alignment_by_adapters_with_checkpointing_starts_at_the_zero_point(folder, tmp_path):
    policy = OpenVLA.from_folder(folder, data="kitchen")
    chunks = chunks_for()
    draws = policy.draw(chunks, torch.Generator())
    plain = policy.score(chunks, draws)
    adapted = LoRA(policy, rank=2, alpha=4.0, targets=["q_proj", "v_proj"], root="network")
    policy.temperature = 1.0
    patches = policy.network.see(policy._pixels(chunks.observation))
    prompt, uniform = (
        policy.network.embed(torch.ones(len(chunks), 4, dtype=torch.int64), patches),
        torch.rand(len(chunks), 3),
    )
    said = policy._decode(prompt, uniform)
    assert recompute(adapted) == 2
    adapted.train()
    assert torch.equal(policy._decode(prompt, uniform), said), "a cache must outlive checkpointing"
    assert torch.equal(adapted.score(chunks, draws), plain) and torch.equal(
        adapted.reference().score(chunks, draws), plain
    )
    frozen = {k: v.clone() for k, v in adapted.state_dict().items() if ".lora_" not in k}
    table, pairs = (
        ChunkTable(chunks, torch.arange(5)),
        PairTable(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.ones(2), torch.ones(2)),
    )
    settings = AlignSettings(steps=3, lr=1e-2, pairs_per_step=2, chunks_per_trajectory=1, anchor_chunks=2)
    logs = list(
        align(
            adapted, adapted.reference(), table, pairs, pairs.first, sigmoid, settings, torch.Generator().manual_seed(0)
        )
    )
    assert logs[0]["align/rho_winner"] == 0.0 and logs[-1]["align/rho_winner"] != 0.0
    assert all(torch.equal(adapted.state_dict()[k], v) for k, v in frozen.items())
    assert {k.split(".")[-4] for k, p in adapted.named_parameters() if p.grad is not None} == {"q_proj", "v_proj"}
    adapted.save_adapter(tmp_path / "adapter")
    again = LoRA.with_adapter(OpenVLA.from_folder(folder, data="kitchen"), tmp_path / "adapter", root="network")
    assert torch.equal(again.score(chunks, draws), adapted.score(chunks, draws))
    with pytest.raises(InputError, match="adapters of base"):  # the same weights with the statistics of other data
        LoRA.with_adapter(OpenVLA.from_folder(folder, data="shelf"), tmp_path / "adapter", root="network")


def test_the_ordinary_folder_needs_the_published_one_no_more(folder, tmp_path):
    policy = OpenVLA.from_folder(folder, data="shelf")
    chunks = chunks_for()
    draws = policy.draw(chunks, torch.Generator())
    again = load(save(policy, tmp_path / "policy"))
    assert again.spec == policy.spec
    assert torch.equal(again.score(chunks, draws), policy.score(chunks, draws))
    half = OpenVLA.from_folder(folder, data="shelf", bfloat16=True)
    assert half.network.projector.fc1.weight.dtype == torch.bfloat16
    assert_close(half.score(chunks, draws), policy.score(chunks, draws), rtol=0.05, atol=0.5)


@pytest.mark.slow
def test_the_experiment_begins_from_a_published_folder_and_moves_its_adapters_alone(folder, tmp_path):
    import shutil

    from robopref.envs.point_mass import PointMass

    copy, out = tmp_path / "published", tmp_path / "run"
    shutil.copytree(folder, copy)
    stats = {"desk": {"action": {"q01": [-1.0, -1.0], "q99": [1.0, 1.0]}}}
    (copy / "config.json").write_text(json.dumps({**CONFIG, "norm_stats": stats}))
    width = PointMass().observation_space.shape[0]
    base = OpenVLA.from_folder(copy, observation=width, camera="top", temperature=1.0)
    save(base, tmp_path / "base")
    words = [
        "experiment=vla", f"checkpoint={tmp_path / 'base'}", "env=point_mass", "task=point-mass", "env.image_size=32", "env.horizon=6",
        "workers=1", "pairs=6", "rounds.count=1", "rounds.resets=3", "rounds.replicas=2", "reward_fit.steps=2", "align.steps=3",
        "align.anchor_chunks=4", "align.pairs_per_step=2", "align.chunks_per_trajectory=2", "evaluation.episodes=2", "vla.baselines=[]",
        "lora.rank=2", "lora.root=network",
    ]  # fmt: skip
    said = {"point-mass": {"trained": ["open the drawer", "close it"], "held_out": ["open it slowly"]}}
    config = {**compose(words), "language": {"tasks": said}}
    vla.run(config, out, "robopref run experiment=vla")
    found = json.loads((out / "metrics.json").read_text())
    assert list(found["policies"]) == ["base", "aligned"] and found["labels_asked"] == 6
    assert found["parameters"] == sum(p.numel() for p in base.parameters()) and not (out / "demonstrations").exists()
    before, after = load(tmp_path / "base").state_dict(), load(out / "rounds/round-0/align/policy").state_dict()
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    linear = {f"{k}.weight" for k, m in base.named_modules() if type(m) is torch.nn.Linear}
    assert moved and moved <= linear
    other = {**config, "env": {**config["env"], "image_size": 16}}
    with pytest.raises(InputError, match=r"got pictures of 16x16, wanted 32x32"):
        vla.run(other, tmp_path / "other", "robopref run experiment=vla")
    assert not (tmp_path / "other").exists()


def test_the_memory_of_a_published_folder_is_counted(folder):
    told = plan({"checkpoint": str(folder), "batch": "2", "rank": "2"})
    assert "alignment, LoRA, adapters off as reference" in told and "has no blocks" not in told


def test_bad_folders_and_sentences_are_told(folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for data, words in [("bridge", r"got 'bridge', wanted .* \(those of kitchen, shelf\)"), ("", "those of kitchen")]:
        with pytest.raises(InputError, match=words):
            OpenVLA.from_folder(copy, data=data)

    def changed(**changes):
        text = {**CONFIG["text_config"], **changes.pop("text", {})}
        (copy / "config.json").write_text(json.dumps({**CONFIG, "text_config": text, **changes}))
        return OpenVLA.from_folder(copy, data="kitchen")

    with pytest.raises(InputError, match=r"weights do not fit \((.*got .*wanted ){5}"):
        changed(text={"num_hidden_layers": 3})
    with pytest.raises(InputError, match=r"weights do not fit \(.*got \(16, .*wanted \(32, "):
        changed(text={"hidden_size": 32})
    with pytest.raises(InputError, match="the normaliser is missing"):
        changed(norm_stats={})
    with pytest.raises(InputError, match="without q99"):
        changed(norm_stats={"kitchen": {"action": {"q01": [0.0]}}})
    with pytest.raises(InputError, match="wanted 'openvla'"):
        changed(model_type="llama")
    policy = changed()
    long = Observation(seen(1).state, seen(1).images, ("open the drawer " * 12,))
    with pytest.raises(InputError, match=r"tokens .* wanted at most \d+: the context of 48"):
        policy.act(long, torch.Generator())
    with pytest.raises(InputError, match="got no sentence"):
        policy.act(Observation(seen(1).state, seen(1).images), torch.Generator())
    with pytest.raises(InputError, match="images"):
        policy.act(
            Observation(torch.zeros(1, 1, 1), {"top": torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8)}, ("open it",)),
            torch.Generator(),
        )
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="missing or torn"):
        changed()
    for name in ("config", "preprocessor_config", "tokenizer"):
        whole = (copy / f"{name}.json").read_text()
        (copy / f"{name}.json").write_text(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=rf"{name}\.json: got broken JSON"):
            OpenVLA.from_folder(copy, data="kitchen")
        (copy / f"{name}.json").write_text(whole)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"got no tokenizer\.json"):
        changed()
