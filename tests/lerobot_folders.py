"""Tiny random policies of lerobot in the folders that lerobot itself writes, and what they see; for lerobot_policies.py and lerobot_pi.py."""

import inspect
import json

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

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
        found[key] = {
            "min": low,
            "max": low + wide,
            "mean": low + wide / 2,
            "std": wide / 3,
            "q01": low,
            "q99": low + wide,
        }
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


def paligemma_tokenizer(folder, size):
    """A tokenizer of words and numbers in the files of PaliGemma's; what is left of its `size` ids stands for places and actions."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>", "<eos>", "<bos>", "<unk>", "Task", "State", "Action", *":;,|-", "open", "the", "drawer", "close", "it", "slowly",
    ]  # fmt: skip
    words += [str(i) for i in range(256)]
    words += [f"<loc{i}>" for i in range(size - len(words))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    ).save_pretrained(folder)
    return str(folder)


def action_tokenizer(folder, horizon):
    """FAST's folder, its Python file included, fitted to random chunks by the copy that lerobot carries."""
    from lerobot.policies.molmoact2.molmoact2_hf_model.action_tokenizer import UniversalActionProcessor

    chunks = [3 * torch.randn(horizon, ACTION, generator=torch.Generator().manual_seed(i)).numpy() for i in range(200)]
    UniversalActionProcessor.fit(chunks, vocab_size=250).save_pretrained(folder)
    named = "processing_action_tokenizer"
    head = "import logging\nfrom typing import ClassVar\nimport numpy as np\nfrom transformers import PreTrainedTokenizerFast\n"
    head += "from transformers.processing_utils import ProcessorMixin\nlogger = logging.getLogger(__name__)\n"
    (folder / f"{named}.py").write_text(head + inspect.getsource(UniversalActionProcessor))
    for name in ("processor_config.json", "tokenizer_config.json"):
        told = json.loads((folder / name).read_text())
        told["auto_map"] = {"AutoProcessor": f"{named}.UniversalActionProcessor"}
        (folder / name).write_text(json.dumps(told))
    return str(folder)


def written(folder, policy, **options):
    """What lerobot's own training leaves."""
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(policy.config, dataset_stats=statistics(), **options):
        processor.save_pretrained(folder)
    return folder


def observed(batch, spec):
    generator, history = torch.Generator().manual_seed(2), spec.history
    state = torch.randn(batch, history, spec.dims.observation, generator=generator)
    shape = (batch, history, SIDE, SIDE, 3)
    images = {k: torch.randint(256, shape, generator=generator, dtype=torch.uint8) for k in ("top", "wrist")}
    said = ("open the drawer", "close it", "open it slowly")
    return Observation(state, images, tuple(said[i % 3] for i in range(batch)) if spec.words else ())


def theirs(folder, observation, **overrides):
    """The observation as lerobot's own preprocessor of the folder gives it to its policy, and its postprocessor."""
    config = json.loads((folder / "config.json").read_text())
    kind = get_policy_class(config["type"])
    policy = kind.from_pretrained(folder, local_files_only=True)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder), **overrides)
    state, at = observation.state, slice(None) if config["type"] == "diffusion" else -1
    batch = {"observation.state": state[:, at, :STATE]}
    batch |= {"observation.environment_state": state[:, at, STATE:]} if state.shape[-1] > STATE else {}
    batch |= {"task": list(observation.sentence)} if observation.sentence else {}
    for name, pictures in observation.images.items():
        batch[f"observation.images.{name}"] = pictures[:, at].movedim(-1, -3).float() / 255
    return policy, before(batch), after


def chunks_for(adapter, batch=6):
    spec, generator = adapter.spec, torch.Generator().manual_seed(3)
    action = torch.rand(batch, spec.horizon, ACTION, generator=generator) - 0.5
    mask = torch.ones_like(action)
    mask[0, 1:] = 0
    return Chunks(observed(batch, spec), action, mask)
