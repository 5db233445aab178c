"""Run by test_lerobot_policies.py where lerobot is installed: its policies, tiny and random, in the folders that lerobot itself writes.

python lerobot_policies.py FOLDER; prints "equal NAME" for every policy that passed.
"""

import json
import sys
from pathlib import Path

import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.data.windows import ChunkTable
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.losses.pairwise import sigmoid
from robopref.policies.lerobot_act import LeRobotACT
from robopref.policies.lerobot_diffusion import LeRobotDiffusion
from robopref.policies.lerobot_smolvla import LeRobotSmolVLA
from robopref.policies.lora import LoRA
from robopref.types import Chunks, Observation

STATE, ENV, ACTION, SIDE = 3, 2, 2, 32
FEATURES = {
    "input_features": {
        "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(STATE,)),
        "observation.environment_state": PolicyFeature(type=FeatureType.ENV, shape=(ENV,)),
        "observation.images.top": PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIDE, SIDE)),
        "observation.images.wrist": PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIDE, SIDE)),
    },
    "output_features": {"action": PolicyFeature(type=FeatureType.ACTION, shape=(ACTION,))},
    "device": "cpu",
}


def statistics():
    generator = torch.Generator().manual_seed(1)
    widths = {"observation.state": (STATE,), "observation.environment_state": (ENV,), "action": (ACTION,)}
    widths |= {f"observation.images.{name}": (3, 1, 1) for name in ("top", "wrist")}
    found = {}
    for key, width in widths.items():
        low, wide = torch.rand(width, generator=generator) - 1, 0.5 + torch.rand(width, generator=generator)
        found[key] = {"min": low, "max": low + wide, "mean": low + wide / 2, "std": wide / 3}
    return found


def language_model(folder):
    """A folder with the configuration and the tokenizer of a tiny SmolVLM, as the published one has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    named = {
        "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>", "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
    }  # fmt: skip
    words = ["<unk>", "<pad>", *named.values(), "open", "the", "drawer", "close", "it", "slowly"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", extra_special_tokens=named
    )
    text = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 32, "pad_token_id": 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    SmolVLMConfig(
        text_config=text, vision_config=vision, scale_factor=2, image_token_id=4, pad_token_id=1
    ).save_pretrained(folder)
    SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor(), image_seq_len=4).save_pretrained(
        folder
    )
    return str(folder)


def written(folder, policy):
    """What lerobot's own training leaves."""
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(policy.config, dataset_stats=statistics()):
        processor.save_pretrained(folder)
    return folder


def observed(batch, spec):
    generator, history = torch.Generator().manual_seed(2), spec.history
    state = torch.randn(batch, history, spec.dims.observation, generator=generator)
    shape = (batch, history, SIDE, SIDE, 3)
    images = {k: torch.randint(256, shape, generator=generator, dtype=torch.uint8) for k in ("top", "wrist")}
    said = ("open the drawer", "close it", "open it slowly")
    return Observation(state, images, tuple(said[i % 3] for i in range(batch)) if spec.words else ())


def theirs(folder, observation):
    """The observation as lerobot's own preprocessor of the folder gives it to its policy, and its postprocessor."""
    config = json.loads((folder / "config.json").read_text())
    kind = {"diffusion": DiffusionPolicy, "act": ACTPolicy, "smolvla": SmolVLAPolicy}[config["type"]]
    policy = kind.from_pretrained(folder, local_files_only=True)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    state, at = observation.state, slice(None) if kind is DiffusionPolicy else -1
    batch = {"observation.state": state[:, at, :STATE]}
    batch |= {"observation.environment_state": state[:, at, STATE:]} if state.shape[-1] > STATE else {}
    batch |= {"task": list(observation.sentence)} if observation.sentence else {}
    for name, pictures in observation.images.items():
        batch[f"observation.images.{name}"] = pictures[:, at].movedim(-1, -3).float() / 255
    return policy, before(batch), after


def same_actions(name, adapter, folder):
    observation = observed(3, adapter.spec)
    policy, batch, after = theirs(folder, observation)
    generators = [torch.Generator().manual_seed(10 + row) for row in range(3)]
    ours = adapter.act(observation, generators)
    if name != "act":
        shape = (8, ACTION) if name == "diffusion" else (4, 32)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(10 + row)) for row in range(3)]
        noise = torch.stack(rows)
        wanted = after(policy.predict_action_chunk(batch, noise=noise))
    else:
        wanted = after(policy.predict_action_chunk(batch))
    torch.testing.assert_close(ours[:, : wanted.shape[1]], wanted, rtol=1e-4, atol=1e-5)
    swapped = adapter.act(observation[torch.tensor([2, 0])], [generators[i].manual_seed(10 + i) for i in (2, 0)])
    torch.testing.assert_close(swapped, ours[[2, 0]], rtol=1e-4, atol=1e-5)


def chunks_for(adapter, batch=6):
    spec, generator = adapter.spec, torch.Generator().manual_seed(3)
    action = torch.rand(batch, spec.horizon, ACTION, generator=generator) - 0.5
    mask = torch.ones_like(action)
    mask[0, 1:] = 0
    return Chunks(observed(batch, spec), action, mask)


def scores(name, adapter, folder):
    chunks = chunks_for(adapter)
    draws = adapter.draw(chunks, torch.Generator().manual_seed(4))
    score = adapter.score(chunks, draws)
    assert torch.equal(score, adapter.reference().score(chunks, draws))
    adapter.train()
    assert torch.equal(score, adapter.score(chunks, draws)), "training mode must not matter"
    elements = chunks.mask.sum(dim=(1, 2))
    torch.testing.assert_close(score, -0.5 * adapter.loss(chunks, draws) * elements)
    assert adapter.score(Chunks(chunks.observation, chunks.action, 0 * chunks.mask), draws).abs().max() == 0
    if name == "act":  # lerobot's own absolute error of these chunks, in its own words
        policy, batch, _ = theirs(folder, chunks.observation)
        mean = policy.predict_action_chunk(batch)
        away = ((adapter.normalizer.action(chunks.action) - mean).abs() * chunks.mask).sum(dim=(1, 2))
        wanted = -away / 0.3 - elements * torch.log(torch.tensor(0.6))
        torch.testing.assert_close(score, wanted, rtol=1e-4, atol=1e-4)
    elif name == "smolvla":  # lerobot's own loss at the same noise and times
        one = LeRobotSmolVLA.from_folder(folder, probes=1)
        draws = one.draw(chunks, torch.Generator().manual_seed(5))
        policy, batch, _ = theirs(folder, chunks.observation)
        batch |= {"action": one.normalizer.action(chunks.action), "action_is_pad": chunks.mask[..., 0] == 0}
        wanted, _ = policy.forward(batch, noise=draws.noise[:, 0], time=draws.time[:, 0], reduction="none")
        torch.testing.assert_close(one.loss(chunks, draws), wanted, rtol=1e-4, atol=1e-5)
        refused_sentence(one)
    else:
        lerobots_loss(adapter, folder)


def refused_sentence(adapter):
    seen = observed(1, adapter.spec)
    long, silent = Observation(seen.state, seen.images, ("open it " * 30,)), Observation(seen.state, seen.images)
    for observation, words in ((long, "wanted at most 48"), (silent, "got no sentence")):
        told = ""
        try:
            adapter.act(observation, torch.Generator())
        except InputError as error:
            told = str(error)
        assert words in told, told


def lerobots_loss(adapter, folder):
    """Where a chunk begins at the oldest observation, our loss at its draws is lerobot's `compute_loss` at the same noise and times."""
    one = LeRobotDiffusion.from_folder(folder, probes=1)
    chunks = chunks_for(one)
    horizon = one.body.policy.config.horizon
    draws = one.draw(chunks, torch.Generator().manual_seed(5))
    policy, batch, _ = theirs(folder, chunks.observation)
    action = one.normalizer.action(chunks.action)
    batch["action"] = torch.cat([action[:, :1].expand(-1, one.before, -1), action], dim=1)
    batch["action_is_pad"] = torch.zeros(len(chunks), horizon, dtype=torch.bool)
    whole = []
    for row in range(len(chunks)):
        single = {k: v[row : row + 1] for k, v in batch.items() if isinstance(v, torch.Tensor)}
        drawn = iter([draws.noise[row], draws.time[row]])
        real = torch.randn, torch.randint
        torch.randn, torch.randint = (lambda *_, d=drawn, **__: next(d),) * 2
        try:
            whole.append(policy.forward(single)[0])
        finally:
            torch.randn, torch.randint = real
    if one.before == 0:  # otherwise lerobot also counts the steps before now
        ours = one.loss(Chunks(chunks.observation, chunks.action, torch.ones_like(chunks.mask)), draws)
        torch.testing.assert_close(ours, torch.stack(whole), rtol=1e-4, atol=1e-5)


def learns_by_adapters_alone(adapter):
    adapted = LoRA(adapter, rank=2, alpha=4.0, root="body.policy")
    frozen = {k: v.clone() for k, v in adapted.state_dict().items() if ".lora_" not in k}
    table = ChunkTable(chunks_for(adapter), torch.arange(7))
    pairs = PairTable(torch.arange(3), torch.arange(3, 6), torch.ones(3), torch.ones(3))
    settings = AlignSettings(steps=3, lr=1e-2, pairs_per_step=2, chunks_per_trajectory=1, anchor_chunks=2)
    generator = torch.Generator().manual_seed(0)
    logs = list(align(adapted, adapted.reference(), table, pairs, pairs.first, sigmoid, settings, generator))
    assert logs[0]["align/rho_winner"] == 0.0 and logs[0]["align/rho_loser"] == 0.0
    assert logs[-1]["align/rho_winner"] != 0.0
    after = adapted.state_dict()
    assert all(torch.equal(after[k], v) for k, v in frozen.items())
    touched = [k for k, p in adapted.named_parameters() if p.grad is not None]
    assert touched and all(".lora_" in k for k in touched)


def round_trip(adapter, folder):
    chunks = chunks_for(adapter)
    draws = adapter.draw(chunks, torch.Generator().manual_seed(6))
    again = load(save(adapter, folder / "again"))
    assert again.spec == adapter.spec
    assert torch.equal(again.score(chunks, draws), adapter.score(chunks, draws))


def refused(kind, folder, words, broken):
    """`broken` spoils a copy of the folder; the refusal says `words`."""
    import shutil

    copy = folder.with_name("spoiled")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    broken(copy)
    told = ""
    try:
        kind.from_folder(copy)
    except InputError as error:
        told = str(error)
    assert words in told, (words, told)


def bad_folders(kind, folder):
    def narrower(copy):
        config = json.loads((copy / "config.json").read_text())
        if "max_state_dim" in config:  # SmolVLA pads all states to this
            config["max_state_dim"] += 1
        else:
            config["input_features"]["observation.state"]["shape"] = [STATE + 1]
        (copy / "config.json").write_text(json.dumps(config))

    def other_data(copy):
        from safetensors.torch import load_file, save_file

        (path,) = copy.glob("policy_preprocessor_step_*normalizer*.safetensors")
        held = {k: v.repeat(2) if k.startswith("action") and v.dim() == 1 else v for k, v in load_file(path).items()}
        save_file(held, path)

    def without(pattern):
        return lambda copy: [path.unlink() for path in copy.glob(pattern)]

    refused(kind, folder, "weights do not fit", narrower)
    refused(kind, folder, "of other data", other_data)
    refused(kind, folder, "normaliser is missing", without("policy_preprocessor_step_*"))
    refused(kind, folder, "normaliser is missing", without("policy_preprocessor.json"))
    refused(kind, folder, "without model.safetensors", without("model.safetensors"))
    refused(kind, folder, "without config.json", without("config.json"))


def main(root):
    torch.manual_seed(0)
    ranges = {
        "VISUAL": NormalizationMode.MEAN_STD,
        "STATE": NormalizationMode.MEAN_STD,
        "ENV": NormalizationMode.MIN_MAX,
    }
    ranges["ACTION"] = NormalizationMode.MIN_MAX
    unet = {
        "down_dims": (8, 16),
        "n_groups": 4,
        "kernel_size": 3,
        "diffusion_step_embed_dim": 8,
        "spatial_softmax_num_keypoints": 4,
        "use_group_norm": True,
    }
    for history in (2, 1):
        config = DiffusionConfig(
            **FEATURES, **unet, n_obs_steps=history, horizon=8, n_action_steps=4, noise_scheduler_type="DDIM", num_inference_steps=4,
            num_train_timesteps=10, crop_shape=(24, 24), pretrained_backbone_weights=None, normalization_mapping=ranges,
        )  # fmt: skip
        check("diffusion", LeRobotDiffusion, written(root / f"diffusion{history}", DiffusionPolicy(config)))
    config = ACTConfig(
        **FEATURES, chunk_size=4, n_action_steps=2, dim_model=16, n_heads=2, dim_feedforward=16, n_encoder_layers=1,
        n_vae_encoder_layers=1, latent_dim=4, pretrained_backbone_weights=None, dropout=0.1,
    )  # fmt: skip
    check("act", LeRobotACT, written(root / "act", ACTPolicy(config)))
    inputs = {k: v for k, v in FEATURES["input_features"].items() if k != "observation.environment_state"}
    config = SmolVLAConfig(
        **FEATURES | {"input_features": inputs}, vlm_model_name=language_model(root / "vlm"), load_vlm_weights=False, chunk_size=4,
        n_action_steps=2, num_vlm_layers=2, resize_imgs_with_padding=(32, 32), num_steps=4, expert_width_multiplier=0.5,
    )  # fmt: skip
    check("smolvla", LeRobotSmolVLA, written(root / "smolvla", SmolVLAPolicy(config)))


def check(name, kind, folder):
    adapter = kind.from_folder(folder)
    same_actions(name, adapter, folder)
    scores(name, adapter, folder)
    round_trip(adapter, folder)
    bad_folders(kind, folder)
    learns_by_adapters_alone(adapter)
    print("equal", folder.name, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
