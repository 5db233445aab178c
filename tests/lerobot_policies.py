"""Run by test_lerobot_policies.py where lerobot is installed: its policies, tiny and random, in the folders that lerobot itself writes.

python lerobot_policies.py FOLDER; prints "equal NAME" for every policy that passed.
"""

import sys
from pathlib import Path

import torch
from lerobot.configs.types import NormalizationMode
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot_checks import bad_folders, contract, learns_by_adapters_alone, refused_sentence, round_trip
from lerobot_folders import ACTION, FEATURES, chunks_for, language_model, observed, theirs, written

from robopref.policies.lerobot_act import LeRobotACT
from robopref.policies.lerobot_diffusion import LeRobotDiffusion
from robopref.policies.lerobot_smolvla import LeRobotSmolVLA
from robopref.types import Chunks


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


def scores(name, adapter, folder):
    chunks, score = contract(adapter)
    elements = chunks.mask.sum(dim=(1, 2))
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
