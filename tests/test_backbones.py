"""Encoders from local folders of torchvision, timm and transformers: tiny models with random weights in the real layouts."""

import json
import os
from importlib.util import find_spec

import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.checkpoint import load, save
from robopref.networks.backbones import Backbone, describe
from robopref.networks.eyes import Eyes
from robopref.policies.diffusion import Diffusion
from robopref.types import Dims, Observation

LIBRARIES = ("torchvision", "timm", "transformers")
MISSING = [name for name in LIBRARIES if find_spec(name) is None]
if MISSING and not os.environ.get("ROBOPREF_REQUIRE_VISION"):
    pytest.skip(f"needs the extra `vision`: no {', '.join(MISSING)}", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SEEN = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def timm_folder(root):
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("resnet10t", pretrained=False)
    told = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2], "classifier": "fc"}
    (root / "config.json").write_text(
        json.dumps({"architecture": "resnet10t", "num_classes": 1000, "pretrained_cfg": told})
    )
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, root / "model.safetensors")
    model.reset_classifier(0)
    shift, scale = (torch.tensor(told[k]).view(3, 1, 1) for k in ("mean", "std"))
    return lambda x: model.eval()((x - shift) / scale)


def transformers_folder(root):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    model = ViTModel(config).eval()
    model.save_pretrained(root)
    (root / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return lambda x: model(pixel_values=(x - 0.5) / 0.5).last_hidden_state.mean(dim=1)


def torchvision_folder(root):
    import torchvision
    from safetensors.torch import save_file

    model = torchvision.models.resnet18(weights=None)
    (root / "config.json").write_text(json.dumps({"torchvision": "resnet18"}))
    save_file(model.state_dict(), root / "model.safetensors")
    model.fc = torch.nn.Identity()
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return lambda x: model.eval()((x - shift) / scale)


FOLDERS = {"timm": timm_folder, "transformers": transformers_folder, "torchvision": torchvision_folder}


@pytest.fixture(params=sorted(FOLDERS))
def made(request, tmp_path):
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    return request.param, tmp_path / "model", FOLDERS[request.param](tmp_path / "model")


def test_a_folder_gives_the_features_of_the_library_itself(made):
    library, folder, wanted = made
    told = describe(folder)
    assert told["library"] == library
    backbone = Backbone(told, folder)
    with torch.no_grad():
        assert_close(backbone(SEEN), wanted(SEEN))
        before = backbone(SEEN)
        assert torch.equal(backbone.train()(SEEN), before), "training mode must not matter"
        assert_close(backbone(SEEN[:1]), before[:1], atol=1e-5, rtol=1e-4)


def test_a_policy_with_a_backbone_needs_the_folder_no_more(made, tmp_path):
    _, folder, _ = made
    eyes = {
        "cameras": ["top"],
        "size": 32,
        "encoder": "backbone",
        "folder": str(folder),
        "width": 8,
        "frozen": True,
        "shift": 0,
    }
    policy = Diffusion(Dims(2, 1), horizon=2, execute=2, eyes=eyes).eval()
    encoder = policy.eyes.encoders["top"]
    assert not any(p.requires_grad for p in encoder.body.parameters()) and encoder.leave.weight.requires_grad
    save(policy, tmp_path / "policy")
    folder.rename(tmp_path / "gone")
    again = load(tmp_path / "policy")
    observation = Observation(
        torch.zeros(2, 1, 2), {"top": (255 * SEEN[:2, None].permute(0, 1, 3, 4, 2)).to(torch.uint8)}
    )
    assert torch.equal(policy.encode(observation), again.encode(observation))
    assert again.spec == policy.spec


def test_weights_that_do_not_fit_are_named(made):
    library, folder, _ = made
    config = json.loads((folder / "config.json").read_text())
    other = {
        "timm": {"architecture": "resnet34"},
        "torchvision": {"torchvision": "resnet34"},
        "transformers": {"num_hidden_layers": 3},
    }
    (folder / "config.json").write_text(json.dumps({**config, **other[library]}))
    with pytest.raises(InputError, match=r"weights do not fit \(.*got "):
        Backbone(describe(folder), folder)
    if library == "transformers":  # the same layers, each of another width
        (folder / "config.json").write_text(
            json.dumps({**config, "intermediate_size": config["intermediate_size"] + 8})
        )
        with pytest.raises(InputError, match=r"weights do not fit \((.*got \(\d.*wanted \(\d){2}"):
            Backbone(describe(folder), folder)


def test_resnet18_takes_a_checkpoints_weights_into_its_group_norms(tmp_path):
    torchvision_folder(tmp_path)
    from safetensors.torch import load_file

    eyes = Eyes(cameras=["top"], size=32, encoder="resnet18", folder=str(tmp_path), width=8)
    body = eyes.encoders["top"].body
    assert torch.equal(body[0].weight, load_file(tmp_path / "model.safetensors")["conv1.weight"])
    assert not [m for m in eyes.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    norms = [m for m in eyes.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(norms) == 20 and all(m.num_channels == 16 * m.num_groups for m in norms)
    assert eyes.config["backbone"] is None and "folder" not in eyes.config


def test_a_missing_folder_says_how_to_get_one(tmp_path):
    for encoder in ("backbone", "resnet18"):
        with pytest.raises(InputError, match=r"no such folder[\s\S]*Nothing is downloaded here[\s\S]*hf download"):
            Eyes(cameras=["top"], encoder=encoder, folder=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"without config\.json"):
        describe(tmp_path / "empty")
    for torn, said in (('{"torchvision": ', "broken JSON"), ("[1]", "wanted a JSON object")):
        (tmp_path / "empty/config.json").write_text(torn)
        with pytest.raises(InputError, match=said):
            describe(tmp_path / "empty")
    (tmp_path / "empty/config.json").write_text("{}")
    with pytest.raises(InputError, match="whose model is it"):
        describe(tmp_path / "empty")
    (tmp_path / "empty/config.json").write_text('{"torchvision": "resnet18"}')
    with pytest.raises(InputError, match=r"without model\.safetensors"):
        Backbone(describe(tmp_path / "empty"), tmp_path / "empty")
