"""Run by test_lerobot_policies.py where lerobot is installed: pi0, pi0.5 and pi0-FAST, tiny and random, in the folders that lerobot writes.

python lerobot_pi.py FOLDER; prints "equal NAME" for every policy that passed. lerobot knows two sizes, of 0.3 and 2 billion weights: here
both are made of 32 numbers, for its own classes and the adapters alike.
"""

import shutil
import sys
from pathlib import Path

import torch
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0_fast import modeling_pi0_fast
from lerobot.policies.pi05 import modeling_pi05
from lerobot.processor import tokenizer_processor
from lerobot_checks import bad_folders, contract, learns_by_adapters_alone, refused, refused_sentence, round_trip
from lerobot_folders import (
    ACTION,
    FEATURES,
    action_tokenizer,
    chunks_for,
    observed,
    paligemma_tokenizer,
    theirs,
    written,
)
from transformers import AutoProcessor, AutoTokenizer

from robopref.networks.recompute import recompute
from robopref.policies.lerobot_pi0 import LeRobotPi0
from robopref.policies.lerobot_pi0_fast import LeRobotPi0Fast
from robopref.policies.lerobot_pi05 import LeRobotPi05
from robopref.types import Chunks

SIDE, WIDTH, VOCABULARY = 16, 32, 400


def shrink(module):
    """Make a module of lerobot build models of a few thousand weights; all else is its own code."""

    def small(config):
        text, vision = getattr(config, "text_config", config), getattr(config, "vision_config", None)
        text.vocab_size = VOCABULARY
        if vision is not None:
            config.image_token_index = VOCABULARY
            vision.hidden_size = vision.intermediate_size = vision.num_attention_heads * 2
            vision.num_hidden_layers, vision.image_size, vision.patch_size = 1, SIDE, 8
            vision.projection_dim = WIDTH
        return config

    def shrunk(real):
        return lambda config: real(config=small(config))

    size = module.GemmaConfig(width=WIDTH, depth=2, mlp_dim=32, num_heads=8, num_kv_heads=1, head_dim=8)
    module.get_gemma_config = lambda variant: size
    for name in ("PaliGemmaForConditionalGenerationWithPiGemma", "PiGemmaForCausalLM"):
        if hasattr(module, name):
            setattr(module, name, shrunk(getattr(module, name)))


def randomised(policy):
    """Weights that all matter: lerobot begins with gates and norms at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return policy


def configured(config, **more):
    inputs = {k: v for k, v in FEATURES["input_features"].items() if k != "observation.environment_state"}
    return config(
        **FEATURES | {"input_features": inputs}, image_resolution=(SIDE, SIDE), chunk_size=4, empty_cameras=1, **more
    )


def hub(kind, **local):
    """transformers' `kind` where names of the hub are folders here: only lerobot's own code may ask for them."""

    class Hub:
        @staticmethod
        def from_pretrained(name, **options):
            return kind.from_pretrained(local.get(name.rpartition("/")[2].replace("-", "_"), name), **options)

    return Hub


def folder_of(root, name, policy):
    """What lerobot leaves of a tiny policy, with the tokenizers' files copied in, as they must be where there is no network."""
    folder = written(root / name, randomised(policy))
    paligemma_tokenizer(folder, VOCABULARY)
    return folder


def same_actions(adapter, folder):
    observation = observed(3, adapter.spec)
    policy, batch, after = theirs(folder, observation)
    generators = [torch.Generator().manual_seed(10 + row) for row in range(3)]
    ours = adapter.act(observation, generators)
    rows = [torch.randn(4, 32, generator=torch.Generator().manual_seed(10 + row)) for row in range(3)]
    wanted = after(policy.predict_action_chunk(batch, noise=torch.stack(rows)))
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 1e-3, "what is seen and drawn must matter"
    swapped = adapter.act(observation[torch.tensor([2, 0])], [generators[i].manual_seed(10 + i) for i in (2, 0)])
    torch.testing.assert_close(swapped, ours[[2, 0]], rtol=1e-4, atol=1e-5)


def lerobots_loss(kind, folder):
    """Ours at its draws is lerobot's own loss where it draws the same noise and times."""
    one = kind.from_folder(folder, probes=1)
    chunks = chunks_for(one)
    draws = one.draw(chunks, torch.Generator().manual_seed(5))
    policy, batch, _ = theirs(folder, chunks.observation)
    policy.model.sample_noise = lambda *_: draws.noise[:, 0]
    policy.model.sample_time = lambda *_: draws.time[:, 0]
    wanted, _ = policy.forward(batch | {"action": one.normalizer.action(chunks.action)}, reduction="none")
    whole = Chunks(chunks.observation, chunks.action, torch.ones_like(chunks.mask))
    torch.testing.assert_close(one.loss(whole, draws), wanted, rtol=1e-4, atol=1e-5)


def recomputed(adapter):
    """Blocks that are computed again leave scores, gradients and actions as they were, and are really computed again."""
    chunks = chunks_for(adapter)
    draws, observation = adapter.draw(chunks, torch.Generator().manual_seed(4)), observed(2, adapter.spec)

    def found():
        adapter.zero_grad()
        score = adapter.score(chunks, draws)
        score.sum().backward()
        return (
            score.detach(),
            [p.grad.clone() for p in adapter.parameters() if p.grad is not None],
            kept(adapter, chunks, draws),
        )

    score, gradients, before = found()
    acted = adapter.act(observation, torch.Generator().manual_seed(3))
    assert recompute(adapter) > 0
    again, others, after = found()
    assert torch.equal(again, score) and after < 0.7 * before, (before, after)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()) + 1e-7)
    assert torch.equal(adapter.act(observation, torch.Generator().manual_seed(3)), acted)
    recompute(adapter, on=False)
    adapter.zero_grad()


def kept(adapter, chunks, draws):
    """Bytes that the forward pass keeps for the backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        adapter.score(chunks, draws)
    return sum(sizes)


def in_bfloat16(kind, folder):
    """Half the weights, the zero point still exact, the score near that of float32."""
    whole, half = kind.from_folder(folder), kind.from_folder(folder, bfloat16=True)
    assert {p.dtype for p in half.parameters()} == {torch.float32, torch.bfloat16}
    chunks, score = contract(half)
    wanted = whole.score(chunks, whole.draw(chunks, torch.Generator().manual_seed(4)))
    torch.testing.assert_close(score, wanted, rtol=0.1, atol=0.5)
    learns_by_adapters_alone(half)
    return half


def bad_tokenizers(kind, folder):
    refused(kind, folder, "google/paligemma-3b-pt-224", lambda copy: (copy / "tokenizer.json").unlink())


def check(kind, folder):
    adapter = kind.from_folder(folder)
    assert adapter.spec.pictures.cameras == ("top", "wrist"), "an empty camera is nobody's"
    same_actions(adapter, folder)
    contract(adapter)
    lerobots_loss(kind, folder)
    refused_sentence(adapter, adapter.spec.words)
    recomputed(adapter)
    round_trip(adapter, folder)
    bad_folders(kind, folder)
    bad_tokenizers(kind, folder)
    in_bfloat16(kind, folder)
    learns_by_adapters_alone(adapter)
    print("equal", folder.name, flush=True)


def speaks(folder, observation, policy, batch):
    """What lerobot says one id after the other with and without a cache, and the logits that it chose each of them from."""
    model, heard = policy.model, []
    pictures, read = policy._preprocess_images(batch), ("tokens", "attention_mask")
    inputs = (*pictures, *(batch[f"observation.language.{one}"] for one in read))
    cached = model.sample_actions_fast_kv_cache(*inputs, max_decoding_steps=6)
    hook = model.paligemma_with_expert.paligemma.lm_head.register_forward_hook(lambda *a: heard.append(a[2][:, -1]))
    said = model.sample_actions_fast(*inputs, max_decoding_steps=6)
    hook.remove()
    assert torch.equal(said, cached)
    return said, torch.stack(heard, dim=1)


def exact(adapter, folder):
    """The score of an answer is the likelihood of saying it: lerobot's own logits while it speaks, one id after the other."""
    observation = observed(3, adapter.spec)
    policy, batch, _ = theirs(folder, observation)
    said, logits = speaks(folder, observation, policy, batch)
    adapter.prefix, kept = [], adapter.prefix
    ours = adapter.log_probs(observation, said.tolist())
    adapter.prefix = kept
    wanted = logits.log_softmax(dim=-1).gather(-1, said[..., None]).squeeze(-1)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def same_tokens(adapter, folder):
    """lerobot's own ids of a chunk, and the same chunk back from them."""
    chunks = chunks_for(adapter)
    policy, _, after = theirs(folder, chunks.observation)
    step = tokenizer_processor.ActionTokenizerProcessorStep(
        action_tokenizer_name=adapter.config["action_tokenizer"],
        paligemma_tokenizer_name=str(folder),
        fast_skip_tokens=0,
    )
    ids, mask = step._tokenize_action(adapter.normalizer.action(chunks.action))
    for one, row, told in zip(adapter.tokenize(chunks.action), ids, mask, strict=True):
        theirs_ids = row[told].tolist()
        begin = 1 + len(adapter.prefix)
        assert theirs_ids[1:begin] == adapter.prefix
        assert one == theirs_ids[begin : begin + len(one)] and one[-1] == adapter.end
    wanted = after(policy.detokenize_actions(ids, 4, ACTION))
    decoded = torch.stack(
        [torch.from_numpy(adapter.fast.decode(adapter.cleaned(row.tolist()), 4, ACTION)) for row in ids]
    )
    ours = adapter.normalizer.unaction(decoded.float())
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    assert adapter.tokenize(ours) == adapter.tokenize(chunks.action), "what was acted is said by the same ids again"


def fast_actions(adapter, folder):
    observation = observed(3, adapter.spec)
    policy, batch, after = theirs(folder, observation)
    generators = [torch.Generator().manual_seed(10 + row) for row in range(3)]
    ours = adapter.act(observation, generators)
    torch.testing.assert_close(ours, after(policy.predict_action_chunk(batch)), rtol=1e-4, atol=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 1e-3, "what is seen must matter"
    adapter.temperature = 1.0  # drawn: a row's draws are its own
    ours = adapter.act(observation, [one.manual_seed(10 + i) for i, one in enumerate(generators)])
    swapped = adapter.act(observation[torch.tensor([2, 0])], [generators[i].manual_seed(10 + i) for i in (2, 0)])
    torch.testing.assert_close(swapped, ours[[2, 0]], rtol=1e-4, atol=1e-5)
    other = adapter.act(observation, [one.manual_seed(20 + i) for i, one in enumerate(generators)])
    assert (ours - other).abs().max() > 1e-3
    adapter.temperature = 0.0


def check_fast(folder):
    adapter = LeRobotPi0Fast.from_folder(folder)
    fast_actions(adapter, folder)
    exact(adapter, folder)
    same_tokens(adapter, folder)
    contract(adapter)
    refused_sentence(adapter, adapter.spec.words)
    recomputed(adapter)
    round_trip(adapter, folder)
    bad_folders(LeRobotPi0Fast, folder)
    bad_tokenizers(LeRobotPi0Fast, folder)
    refused(LeRobotPi0Fast, folder, "fast-action-tokenizer", lambda copy: shutil.rmtree(copy / "action_tokenizer"))
    in_bfloat16(LeRobotPi0Fast, folder)
    learns_by_adapters_alone(adapter)
    print("equal", folder.name, flush=True)


def main(root):
    for module in (modeling_pi0, modeling_pi05, modeling_pi0_fast):
        shrink(module)
    paligemma = paligemma_tokenizer(root / "paligemma", VOCABULARY)
    tokenizer_processor.AutoTokenizer = hub(AutoTokenizer, paligemma_3b_pt_224=paligemma)
    config = configured(modeling_pi0.PI0Config, n_action_steps=2, num_inference_steps=3)
    check(LeRobotPi0, folder_of(root, "pi0", modeling_pi0.PI0Policy(config)))
    config = configured(modeling_pi05.PI05Config, n_action_steps=2, num_inference_steps=3)
    check(LeRobotPi05, folder_of(root, "pi05", modeling_pi05.PI05Policy(config)))
    fast = action_tokenizer(root / "fast", 4)
    tokenizer_processor.AutoProcessor = modeling_pi0_fast.AutoProcessor = hub(AutoProcessor, fast_action_tokenizer=fast)
    modeling_pi0_fast.AutoTokenizer = tokenizer_processor.AutoTokenizer
    config = configured(
        modeling_pi0_fast.PI0FastConfig, n_action_steps=4, validate_action_token_prefix=False, max_decoding_steps=24,
        tokenizer_max_length=60,
        fast_skip_tokens=0,
    )  # fmt: skip
    folder = folder_of(root, "pi0_fast", modeling_pi0_fast.PI0FastPolicy(config))
    shutil.copytree(fast, folder / "action_tokenizer")
    check_fast(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
