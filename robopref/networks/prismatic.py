"""OpenVLA's network (Kim et al. 2024; Prismatic, Karamcheti et al. 2024) under the names of its published checkpoints.

Patches of one or two timm vision transformers (their second to last block) pass a projector and stand behind the first token of a Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.backbones import extra, read_object, read_weights


class Vision(nn.Module):
    """`featurizer` and, where two models see, `fused_featurizer`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        timm = extra("timm", "timm", "vla")
        models = [
            timm.create_model(name, pretrained=False, num_classes=0, img_size=side)
            for name, side in zip(config["timm_model_ids"], config["image_sizes"], strict=True)
        ]
        self.featurizer = models[0]
        self.fused_featurizer = models[1] if len(models) > 1 else None
        self.width = sum(model.embed_dim for model in models)
        self.patches = models[0].patch_embed.num_patches

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3 or 6, side, side), normalised for each model -> patches (B, P, width)."""
        models = [m for m in (self.featurizer, self.fused_featurizer) if m is not None]
        parts = []
        for model, seen in zip(models, pixels.split(3, dim=1), strict=True):
            parts.append(model.get_intermediate_layers(seen, n=[len(model.blocks) - 2])[0])
        return torch.cat(parts, dim=-1)


class Projector(nn.Module):
    """Patches to the width of the language model: two layers for one vision model, three for two."""

    def __init__(self, fused: bool, vision: int, width: int) -> None:
        super().__init__()
        inner = 4 * vision if fused else width
        self.fc1, self.fc2 = nn.Linear(vision, inner), nn.Linear(inner, width)
        self.fc3 = nn.Linear(width, width) if fused else None

    def forward(self, patches: Tensor) -> Tensor:
        """(B, P, vision) -> (B, P, width)."""
        found = self.fc2(F.gelu(self.fc1(patches)))
        return found if self.fc3 is None else self.fc3(F.gelu(found))


class Prismatic(nn.Module):
    """Pictures and tokens -> logits of the next token. config: the content of the checkpoint's config.json."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        transformers = extra("transformers", "transformers", "vla")
        told = {k: v for k, v in config["text_config"].items() if k not in ("model_type", "torch_dtype", "dtype")}
        language = transformers.LlamaConfig(**told)
        self.vision_backbone = Vision(config)
        self.projector = Projector(
            bool(config["use_fused_vision_backbone"]), self.vision_backbone.width, language.hidden_size
        )
        self.language_model = transformers.LlamaForCausalLM(language)
        self.context = int(language.max_position_embeddings)
        self.vocabulary = int(language.vocab_size)

    def see(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, side, side) -> projected patches (B, P, width)."""
        return self.projector(self.vision_backbone(pixels.to(self.projector.fc1.weight.dtype)))

    def embed(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Tokens (B, L) with the patches (B, P, width) behind the first: (B, L + P, width). Token j > 0 stands at place P + j."""
        said = self.language_model.get_input_embeddings()(tokens)
        return torch.cat([said[:, :1], patches, said[:, 1:]], dim=1)

    def logits(self, embedded: Tensor) -> Tensor:
        """Logits (B, S, vocabulary), float32, of the token after each of S places. Every place sees what is before it alone."""
        mask = None
        if embedded.is_meta:  # transformers would look into numbers that are not there
            places = embedded.shape[1]
            mask = torch.ones(places, places, dtype=torch.bool, device=embedded.device).tril()[None, None]
        return self.language_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits.float()

    def next(self, embedded: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits (B, vocabulary), float32, after the last place, and the cache up to here; `embedded` continues the cache."""
        found = self.language_model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
        return found.logits[:, -1].float(), found.past_key_values


def read_sharded(folder: Path) -> dict[str, Tensor]:
    """Weights of one file or of several with an index, under the names of the modules here. Raises `InputError` for missing files."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        found = read_weights(folder)
    else:
        files = sorted(set(read_object(index).get("weight_map", {}).values()))
        found = {}
        for name in files:
            try:
                found |= load_file(folder / Path(name).name)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{folder}/{name}: got a missing or torn file ({error}). Copy it again.") from error
    # transformers would have renamed "gamma", so the published files say "scale_factor".
    return {name.replace(".scale_factor", ".gamma"): value for name, value in found.items()}
