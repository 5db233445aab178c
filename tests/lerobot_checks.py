"""What every adapter to a policy of lerobot must keep, whatever it is; for lerobot_policies.py and lerobot_pi.py."""

import json
import shutil

import torch
from lerobot_folders import STATE, chunks_for, observed
from safetensors.torch import load_file, save_file

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.data.windows import ChunkTable
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.losses.pairwise import sigmoid
from robopref.policies.lora import LoRA
from robopref.types import Chunks, Observation


def contract(adapter):
    chunks = chunks_for(adapter)
    draws = adapter.draw(chunks, torch.Generator().manual_seed(4))
    score = adapter.score(chunks, draws)
    assert torch.equal(score, adapter.reference().score(chunks, draws))
    adapter.train()
    assert torch.equal(score, adapter.score(chunks, draws)), "training mode must not matter"
    elements = chunks.mask.sum(dim=(1, 2))
    torch.testing.assert_close(score, -0.5 * adapter.loss(chunks, draws) * elements)
    assert adapter.score(Chunks(chunks.observation, chunks.action, 0 * chunks.mask), draws).abs().max() == 0
    return chunks, score


def refused_sentence(adapter, most=48):
    seen = observed(1, adapter.spec)
    long, silent = Observation(seen.state, seen.images, ("open it " * 120,)), Observation(seen.state, seen.images)
    for observation, words in ((long, f"wanted at most {most}"), (silent, "got no sentence")):
        told = ""
        try:
            adapter.act(observation, torch.Generator())
        except InputError as error:
            told = str(error)
        assert words in told, told


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
    return told


def bad_folders(kind, folder):
    def narrower(copy):
        config = json.loads((copy / "config.json").read_text())
        if "max_state_dim" in config:  # SmolVLA pads all states to this
            config["max_state_dim"] += 1
        else:
            config["input_features"]["observation.state"]["shape"] = [STATE + 1]
        (copy / "config.json").write_text(json.dumps(config))

    def fewer(copy):
        held = load_file(copy / "model.safetensors")
        save_file({k: held[k] for k in sorted(held)[7:]}, copy / "model.safetensors")

    def other_data(copy):
        (path,) = copy.glob("policy_preprocessor_step_*normalizer*.safetensors")
        held = {k: v.repeat(2) if k.startswith("action") and v.dim() == 1 else v for k, v in load_file(path).items()}
        save_file(held, path)

    def without(pattern):
        return lambda copy: [path.unlink() for path in copy.glob(pattern)]

    if "paligemma_variant" not in (folder / "config.json").read_text():  # the pi family pads all numbers to one width
        refused(kind, folder, "weights do not fit", narrower)
    names = sorted(load_file(folder / "model.safetensors"))[:6]
    told = refused(kind, folder, "7 weights do not fit", fewer)
    assert all(name in told for name in names[:5]) and names[5] not in told, "the first five are named"
    refused(kind, folder, "of other data", other_data)
    refused(kind, folder, "normaliser is missing", without("policy_preprocessor_step_*"))
    refused(kind, folder, "normaliser is missing", without("policy_preprocessor.json"))
    refused(kind, folder, "without model.safetensors", without("model.safetensors"))
    refused(kind, folder, "without config.json", without("config.json"))

    def torn(pattern):
        def half(copy):
            (path,) = copy.glob(pattern)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

        return half

    refused(kind, folder, "config.json: got broken JSON", torn("config.json"))
    refused(kind, folder, "got a torn file", torn("policy_preprocessor_step_*normalizer*.safetensors"))
