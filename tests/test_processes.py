"""Several processes that train together learn what one learns from the same batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robopref import processes, run
from robopref.arrays import InputError
from robopref.checkpoint import load

CHILD = Path(__file__).parent / "trained_together.py"


def launched(command, count):
    """Run a Python command by torch's launcher in `count` processes on this machine's CPU, or alone without it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    settings = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, *map(str, command)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("head", ["flow", "vla"])
def test_two_processes_clone_and_align_as_one_does(head, tmp_path):
    for count in (1, 2):
        launched([CHILD, tmp_path / f"{count}.safetensors", head], count)
    alone, together = (load_file(tmp_path / f"{count}.safetensors") for count in (1, 2))
    assert alone.keys() == together.keys()
    # Biases before a softmax have no gradient but rounding, which Adam makes steps of: they move and change nothing.
    compared = alone.keys() if head == "flow" else ["score"]
    for name in compared:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_command_trains_together_and_the_first_process_writes(tmp_path):
    from robopref.stages import single

    words = [
        "env=point_mass", "task=point-mass", "env.horizon=12", "policy=flow", "policy.horizon=4", "policy.execute=4", "workers=1",
        "base.clone.steps=5", "base.clone.batch=8", f"dataset={tmp_path}/data",
    ]  # fmt: skip
    single.collect({**run.compose(words), "episodes": 6}, tmp_path / "data")
    command = ["-m", "robopref.cli", "pretrain", *words]
    said = [launched([*command, f"out={tmp_path}/{count}"], count) for count in (1, 2)]
    assert said[1].replace("/2/", "/1/") == said[0]
    alone, together = (load(tmp_path / f"{count}/policy").state_dict() for count in (1, 2))
    for name, one in alone.items():
        torch.testing.assert_close(together[name], one, rtol=1e-3, atol=1e-5)


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)


def test_a_batch_is_shared_without_rest(second_of_two):
    assert processes.share(8, "batch") == slice(4, 8)
    with pytest.raises(InputError, match=r"clone\.batch: got 7 with 2 processes, wanted a multiple"):
        processes.share(7, "clone.batch")


def test_alone_a_batch_is_whole_and_gradients_stay(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    processes.average([weight])
    assert processes.share(7, "batch") == slice(None) and processes.agreed(True) and not processes.agreed(False)
    assert weight.grad.tolist() == [1.0, 2.0]


def test_a_verb_that_simulates_is_refused_to_several_processes(second_of_two, tmp_path):
    with pytest.raises(InputError, match=r"run: got 2 processes by a launcher, wanted one[\s\S]*pretrain or align"):
        run.main("run", ["experiment=quickstart", f"out={tmp_path}/run"])
    assert not (tmp_path / "run").exists()
