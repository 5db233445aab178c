"""How many candidates there is time for, and a policy server that draws as many: real policies over the real wire."""

import asyncio

import numpy as np
import pytest
import torch
from robopref.hardware.inference import Inference, Request, inference_of
from robopref.hardware.pace import Pace
from robopref.hardware.packing import pack, unpack
from robopref.hardware.policy_server import PolicyServer, main

from robopref.arrays import InputError
from robopref.checkpoint import save
from robopref.policies.best_of import BestOf, ImplicitReward
from robopref.policies.diffusion import Diffusion
from robopref.policies.flow import Flow
from robopref.rewards.partial_return import PartialReturn
from robopref.types import Chunks, Dims, Observation

D, A, H, E = 6, 3, 16, 8


def test_as_many_are_drawn_as_fit_and_halving_goes_down_to_one():
    pace = Pace(8, budget=0.1)
    for rows in pace.sizes:
        pace.learn(rows, False, 0.01 + 0.005 * rows)
    assert pace.sizes == [8, 4, 2, 1]
    assert pace.choose(1, False, 10.0) == 8, "0.05 s are in the budget"
    assert pace.choose(1, False, 0.07) == 4, "half of 0.07 s holds 0.03 s"
    assert pace.choose(4, False, 10.0) == 4, "16 rows cost at most twice what 8 do"
    assert pace.choose(1, False, 0.0) == 1 and pace.choose(50, False, 10.0) == 1
    assert pace.choose(1, True, 10.0) == 8, "nothing is known of continuing yet"


def test_one_slow_answer_is_enough_to_draw_fewer_and_quick_ones_bring_them_back():
    pace = Pace(8, budget=0.1)
    for rows in pace.sizes:
        pace.learn(rows, False, 0.01 * rows)
    assert pace.choose(1, False, 1.0) == 8
    pace.took(8, False, 0.4)
    assert pace.choose(1, False, 1.0) == 2, "all sizes are believed to be five times slower, also those not tried since"
    pace.took(2, False, 2.0)
    assert pace.choose(1, False, 1.0) == 1
    for _ in range(10):
        pace.took(1, False, 0.01)
    assert pace.choose(1, False, 1.0) == 8


@pytest.mark.parametrize("wrong", [{"most": 0}, {"budget": 0.0}, {"share": 0.0}, {"share": 1.5}])
def test_a_pace_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="candidates"):
        Pace(**wrong)


def pair(head=Diffusion):
    """A policy and the reference it was tuned away from."""
    torch.manual_seed(0)
    reference = head(Dims(D, A), horizon=H, execute=E, width=32, depth=1, sample_steps=4)
    reference.normalizer.fit(torch.randn(50, D), torch.rand(50, A) * 2 - 1)
    policy = head(Dims(D, A), horizon=H, execute=E, width=32, depth=1, sample_steps=4)
    policy.load_state_dict(reference.state_dict())
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return policy.eval(), reference.eval()


def judged(inference, chunks, previous=None, delay=0):
    """What the judge says of chunks (N, H, A) at a state of zeros."""
    mask = torch.zeros(len(chunks), H, A)
    mask[:, delay : delay + E] = 1
    seen = Observation(torch.zeros(len(chunks), 1, D))
    return inference.judge(Chunks(seen, torch.from_numpy(np.stack(chunks)), mask))


@pytest.mark.parametrize("head", [Diffusion, Flow])
@pytest.mark.parametrize("delay", [None, 3])
def test_the_answer_is_the_best_of_its_candidates_also_where_a_chunk_is_continued(head, delay):
    policy, reference = pair(head)
    previous = None if delay is None else np.linspace(-0.5, 0.5, 10 * A, dtype=np.float32).reshape(10, A)
    request = Request(np.zeros((1, D), np.float32), previous=previous, delay=delay or 0)
    judge = ImplicitReward(policy, reference)
    best = Inference(policy, judge=judge, pace=Pace(8, budget=60.0), seed=3)
    (chosen,) = best.answer([request])
    assert best.drawn == 8
    drawn = Inference(policy, seed=3).answer([request] * 8)  # the same noise, one by one
    value = judged(best, drawn, delay=delay or 0)
    assert np.allclose(chosen, drawn[int(value.argmax())], atol=1e-6) and value.max() > value.min()
    if delay is not None:
        assert np.array_equal(chosen[:delay], previous[:delay]), "what runs anyway is part of every candidate"


def test_candidates_help_the_judge_as_the_maximum_of_n_does():
    policy, reference = pair()
    judge = ImplicitReward(policy, reference)
    request = [Request(np.zeros((1, D), np.float32))]
    mean = []
    for most in (1, 8):
        inference = Inference(policy, judge=judge, pace=Pace(most, budget=60.0), seed=1)
        mean.append(float(judged(inference, [inference.answer(request)[0] for _ in range(40)]).mean()))
    alone = judged(inference, Inference(policy, seed=2).answer(request * 200))
    # The expected maximum of 8 lies well above one deviation over the mean whatever the distribution nearly is.
    assert mean[1] > mean[0] + 0.7 * float(alone.std())


def test_a_policy_that_is_a_best_of_brings_its_judge_and_continues_chunks():
    policy, reference = pair()
    inference = Inference(BestOf(reference, ImplicitReward(policy, reference), candidates=4))
    assert inference.policy is reference and inference.pace.most == 4 and inference.chunking is not None


def serving(inference, test):
    async def run():
        async with PolicyServer(inference) as server:
            while not server.ready:
                await asyncio.sleep(0.02)
            await asyncio.wait_for(test(server), 60)

    asyncio.run(run())


def connect(url):
    from websockets.asyncio.client import connect

    return connect(url, compression=None)


async def asked(socket, **more):
    await socket.send(pack({"state": np.zeros(D, np.float32), **more}))
    return unpack(await socket.recv())


def test_over_the_wire_there_are_many_candidates_with_time_and_one_without():
    policy, reference = pair()
    previous = np.zeros((10, A), np.float32)

    async def test(server):
        async with connect(server.url) as socket:
            assert unpack(await socket.recv())["candidates"] == 8
            assert (await asked(socket))["robopref/candidates"] == 8
            more = {"robopref/previous": previous, "robopref/delay": 2}
            reply = await asked(socket, **more)
            assert reply["robopref/candidates"] == 8 and np.array_equal(reply["actions"][:2], previous[:2])
            server.inference.pace.took(1, False, 1e3)  # the machine got busy
            assert (await asked(socket, **more))["robopref/candidates"] == 1
            assert server.metrics.candidates == 8 + 8 + 1 and "candidates_total 17" in server.metrics.text()

    serving(Inference(policy, judge=ImplicitReward(policy, reference), pace=Pace(8, budget=60.0)), test)


def test_robots_that_wait_together_share_what_there_is_time_for():
    policy, reference = pair()
    pace = Pace(8, budget=60.0)

    async def test(server):
        sockets = [await connect(server.url) for _ in range(4)]
        for socket in sockets:
            await socket.recv()
        pace.budget = 1.5 * pace.expected(8, False)  # eight rows fit, thirty-two do not
        drawn = []
        for _ in range(5):
            drawn += [reply["robopref/candidates"] for reply in await asyncio.gather(*(asked(s) for s in sockets))]
        assert min(drawn) < 8
        for socket in sockets:
            await socket.close()

    serving(Inference(policy, judge=ImplicitReward(policy, reference), pace=pace), test)


def test_a_served_folder_finds_its_judge_or_says_which_is_missing(tmp_path):
    policy, reference = pair()
    save(policy, tmp_path / "policy", {})
    save(reference, tmp_path / "reference", {})
    torch.manual_seed(1)
    save(PartialReturn(Dims(D, A), use_action=True), tmp_path / "reward", {})
    assert inference_of(tmp_path / "policy").pace.most == 1
    assert inference_of(tmp_path / "policy", tmp_path / "reference").pace.most == 8
    assert inference_of(tmp_path / "policy", reward=tmp_path / "reward", candidates=4).pace.sizes == [4, 2, 1]
    with pytest.raises(InputError, match="without a judge"):
        inference_of(tmp_path / "policy", candidates=4)
    with pytest.raises(InputError, match="one judge"):
        inference_of(tmp_path / "policy", tmp_path / "reference", tmp_path / "reward")
    with pytest.raises(InputError, match="candidates: got 'many'"):
        main({"checkpoint": str(tmp_path / "policy"), "candidates": "many"})
