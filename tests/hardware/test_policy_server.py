"""The policy server with a real diffusion policy: openpi's protocol, mailboxes, batches, refusals."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from robopref.hardware.inference import Inference, Request, inference_of, read_request
from robopref.hardware.packing import PackingError, pack, unpack
from robopref.hardware.policy_server import PolicyServer

from robopref.arrays import InputError
from robopref.checkpoint import save
from robopref.policies.diffusion import Diffusion
from robopref.policies.flow import Flow
from robopref.policies.vla import FlowVLA
from robopref.types import Dims

D, A, H = 6, 3, 16


def policy():
    torch.manual_seed(0)
    made = Diffusion(Dims(D, A), horizon=H, execute=8, history=2, width=64, depth=2)
    made.normalizer.fit(torch.randn(50, D), torch.rand(50, A) * 2 - 1)
    return made.eval()


def looking():
    """A policy that looks and reads."""
    torch.manual_seed(0)
    eyes = {"cameras": ["side"], "size": 16, "state": [0, 1]}
    made = FlowVLA(
        Dims(D, A), eyes, horizon=H, execute=8, history=2, words=4, width=16, depth=1, heads=2, sample_steps=2
    )
    made.normalizer.fit(torch.randn(50, D), torch.rand(50, A) * 2 - 1)
    return made.eval()


def serving(test, token=None, make=policy):
    async def run():
        async with PolicyServer(Inference(make(), "abc"), token=token) as server:
            while not server.ready:
                await asyncio.sleep(0.02)
            await asyncio.wait_for(test(server), 60)

    asyncio.run(run())


def connect(url, **options):
    from websockets.asyncio.client import connect

    return connect(url, compression=None, **options)


def ask(**more):
    return pack({"state": np.zeros((2, D), np.float32), **more})


def test_an_openpi_style_client_gets_metadata_then_chunks():
    async def test(server):
        async with connect(server.url) as socket:
            metadata = unpack(await socket.recv())
            assert metadata["horizon"] == H and metadata["robopref/policy_hash"] == "abc"
            await socket.send(pack({"observation/state": np.zeros(D, np.float32), "prompt": "reach"}))
            reply = unpack(await socket.recv())
            assert reply["actions"].shape == (H, A) and np.abs(reply["actions"]).max() <= 1
            assert reply["server_timing"]["infer_ms"] > 0

    serving(test)


OPENPI = """
import json, sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
robot = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="secret")
reply = robot.infer({"state": np.zeros((2, 6), np.float32), "prompt": "reach"})
print(json.dumps([robot.get_server_metadata()["horizon"], list(reply["actions"].shape), str(reply["actions"].dtype)]))
"""


def test_the_real_openpi_client_works_unchanged(environments):
    async def test(server):
        asked = [environments.franka / "bin/python", "-c", OPENPI, str(server.port)]
        child = await asyncio.create_subprocess_exec(
            *asked, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, error = await child.communicate()
        assert child.returncode == 0, error.decode()[-2000:]
        assert json.loads(out) == [H, [H, A], "float32"]

    serving(test, token="secret")


def test_a_reply_names_its_request_and_continues_the_old_chunk():
    async def test(server):
        previous = np.linspace(-0.5, 0.5, 10 * A, dtype=np.float32).reshape(10, A)
        async with connect(server.url) as socket:
            await socket.recv()
            await socket.send(ask(**{"robopref/obs_id": 41, "robopref/previous": previous, "robopref/delay": 4}))
            reply = unpack(await socket.recv())
            assert reply["robopref/obs_id"] == 41
            assert np.array_equal(reply["actions"][:4], previous[:4])

    serving(test)


def test_of_many_requests_the_newest_is_answered():
    async def test(server):
        async with connect(server.url) as socket:
            await socket.recv()
            for number in range(60):
                await socket.send(ask(**{"robopref/obs_id": number}))
            got = []
            while not got or got[-1] != 59:
                got.append(unpack(await asyncio.wait_for(socket.recv(), 10))["robopref/obs_id"])
            assert got == sorted(got)
            assert server.metrics.superseded == 60 - len(got)

    serving(test)


def test_robots_that_wait_together_share_a_batch():
    async def test(server):
        sockets = [await connect(server.url) for _ in range(4)]
        for socket in sockets:
            await socket.recv()
        for _ in range(5):
            for socket in sockets:
                await socket.send(ask())
            for socket in sockets:
                assert unpack(await socket.recv())["actions"].shape == (H, A)
        for socket in sockets:
            await socket.close()
        assert server.metrics.replies == 20 and server.metrics.batches < 20

    serving(test)


BAD = {
    "no state": {"x": 1},
    "short": {"state": np.zeros(D - 1, np.float32)},
    "text": {"state": "zeros"},
    "nan": {"state": np.full((2, D), np.nan, np.float32)},
    "other protocol": {"state": np.zeros(D, np.float32), "robopref/proto": 9},
    "wide tail": {"state": np.zeros(D, np.float32), "robopref/previous": np.zeros((3, A + 1), np.float32)},
}


def test_bad_requests_get_a_sentence_and_the_connection_stays():
    async def test(server):
        async with connect(server.url) as socket:
            await socket.recv()
            for message in BAD.values():
                await socket.send(pack(message))
                said = await socket.recv()
                assert isinstance(said, str) and "wanted" in said and "Traceback" not in said
            for frame in (b"", b"\xc1", b"\x93\x01\x02\x03", "text"):
                await socket.send(frame)
                assert isinstance(await socket.recv(), str)
            await socket.send(ask())
            assert unpack(await socket.recv())["actions"].shape == (H, A)
        assert server.metrics.refused == len(BAD) + 4

    serving(test)


def test_pictures_and_a_sentence_reach_a_policy_that_wants_them():
    black, white = (np.full((2, 16, 16, 3), shade, np.uint8) for shade in (0, 255))

    async def test(server):
        async with connect(server.url) as socket:
            told = unpack(await socket.recv())
            assert (told["cameras"], told["size"], told["words"]) == (["side"], [16, 16], 4)
            answers = []
            for more in (
                {"images": {"side": black}, "prompt": "open"},
                {"images": {"side": white}, "prompt": "open"},
                {"observation/side": white[0], "prompt": "close it"},
            ):
                server.inference._generator.manual_seed(0)
                await socket.send(ask(**more))
                answers.append(unpack(await socket.recv())["actions"])
            assert all(one.shape == (H, A) for one in answers)
            assert np.abs(answers[0] - answers[1]).max() > 1e-6 and np.abs(answers[1] - answers[2]).max() > 1e-6
            for more in (
                {"prompt": "open"},
                {"images": {"side": black}},
                {"images": {"side": black[:, :8]}, "prompt": "open"},
                {"images": {"side": black / 255}, "prompt": "open"},
                {"images": {"side": black}, "prompt": "one two three four five"},
                {"images": {"side": black}, "prompt": 3},
            ):
                await socket.send(ask(**more))
                said = await socket.recv()
                assert isinstance(said, str) and "wanted" in said
            await socket.send(ask(**{"images": {"side": black}, "prompt": "open", "robopref/obs_id": 7}))
            assert unpack(await socket.recv())["robopref/obs_id"] == 7

    serving(test, make=looking)


def test_a_flow_is_served_and_continues_its_chunks():
    torch.manual_seed(0)
    made = Flow(Dims(D, A), horizon=H, execute=8, width=32, depth=1, sample_steps=3)
    made.normalizer.fit(torch.randn(50, D), torch.rand(50, A) * 2 - 1)
    previous = np.full((8, A), 0.25, np.float32)
    chunk = Inference(made.eval()).answer([Request(np.zeros((1, D), np.float32), previous=previous, delay=3)])[0]
    assert np.array_equal(chunk[:3], previous[:3])


def test_a_request_past_its_deadline_is_not_answered():
    async def test(server):
        async with connect(server.url) as socket:
            await socket.recv()
            await socket.send(ask(**{"robopref/deadline_ms": -1.0, "robopref/obs_id": 1}))
            await socket.send(ask(**{"robopref/obs_id": 2}))
            assert unpack(await socket.recv())["robopref/obs_id"] == 2

    serving(test)


def test_only_the_token_opens_the_door_and_health_needs_none():
    from websockets.exceptions import InvalidStatus

    async def test(server):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": ""}):
            with pytest.raises(InvalidStatus):
                await connect(server.url, additional_headers=headers)
        for headers in ({"Authorization": "Bearer secret"}, {"Authorization": "Api-Key secret"}):
            async with connect(server.url, additional_headers=headers) as socket:
                assert unpack(await socket.recv())["action"] == A

        def get(path, token=None):
            asked = urllib.request.Request(server.url.replace("ws", "http") + path)
            if token:
                asked.add_header("Authorization", f"Bearer {token}")
            try:
                with urllib.request.urlopen(asked, timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                error.close()
                return error.code, ""

        assert (await asyncio.to_thread(get, "/healthz"))[0] == 200
        assert (await asyncio.to_thread(get, "/metrics"))[0] == 401
        status, text = await asyncio.to_thread(get, "/metrics", "secret")
        assert status == 200 and "robopref_refused_total 4" in text

    serving(test, token="secret")


class SlowToWarm(Inference):
    """Warms up only when the test lets it, in the server's own thread, as a compiled policy does for a minute."""

    def __init__(self, made, name):
        super().__init__(made, name)
        self.go, self.warmed_at = threading.Event(), float("inf")

    def warm_up(self):
        assert self.go.wait(30)
        super().warm_up()
        self.warmed_at = time.monotonic()


def test_until_it_is_warm_the_server_says_so_and_answers_nothing():
    slow = SlowToWarm(policy(), "abc")

    def health(url):
        try:
            with urllib.request.urlopen(url.replace("ws", "http") + "/healthz", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    async def run():
        async with PolicyServer(slow) as server, connect(server.url) as socket:
            try:
                assert unpack(await socket.recv())["action"] == A, "its clients are told at once what it serves"
                assert await asyncio.to_thread(health, server.url) == 503 and not server.ready
                await socket.send(ask(**{"robopref/obs_id": 7}))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(socket.recv(), 0.5)
                assert await asyncio.to_thread(health, server.url) == 503
            finally:
                slow.go.set()
            reply = unpack(await asyncio.wait_for(socket.recv(), 30))
            assert reply["robopref/obs_id"] == 7 and time.monotonic() >= slow.warmed_at
            assert await asyncio.to_thread(health, server.url) == 200

    asyncio.run(run())


def test_nothing_listens_beyond_loopback_without_a_token():
    with pytest.raises(InputError, match="token"):
        PolicyServer(Inference(policy()), host="0.0.0.0")


def test_arrays_survive_packing_and_dangerous_ones_do_not():
    for array in (np.zeros((0, 3), np.float32), np.arange(6).reshape(2, 3), np.array(True), np.float32(3)):
        back = unpack(pack({"x": array}))["x"]
        assert np.array_equal(back, array) and back.dtype == array.dtype
    for bad in (np.array([object()]), np.zeros(2, "c16"), object()):
        with pytest.raises(PackingError):
            pack({"x": bad})
    import msgpack

    for kind, shape, data in (
        ("|O", [1], b"x" * 8),
        ("<f4", [4], b"x" * 8),
        ("<f4", [-2], b"x" * 8),
        (3, [2], b""),
        ("zz", [2], b""),
    ):
        told = {b"__ndarray__": True, b"data": data, b"dtype": kind, b"shape": shape}
        with pytest.raises(PackingError):
            unpack(msgpack.packb({"x": told}))


def test_batched_answers_do_not_depend_on_who_else_asks():
    inference = Inference(policy())
    spec = inference.spec
    request = read_request({"state": np.ones((2, D), np.float32)}, spec, 0.0)
    previous = np.zeros((8, A), np.float32)
    both = inference.answer([request, Request(request.state, previous=previous, delay=3)])
    assert np.array_equal(both[1][:3], previous[:3]) and np.abs(both[0][:3]).max() > 0


def test_a_folder_becomes_a_server_by_its_fingerprint(tmp_path):
    from robopref.checkpoint import fingerprint

    save(policy(), tmp_path / "model")
    assert inference_of(tmp_path / "model").policy_hash == fingerprint(tmp_path / "model")
    with pytest.raises(InputError):
        inference_of(tmp_path / "nothing")
    with pytest.raises(InputError, match="precision"):
        Inference(policy(), precision="int4")


@pytest.mark.slow
def test_a_reduced_precision_chunk_is_near_the_exact_one():
    request = [Request(np.ones((2, D), np.float32))]
    exact, short = (Inference(policy(), precision=p, seed=1).answer(request)[0] for p in ("float32", "bf16"))
    assert np.abs(exact - short).mean() < 0.05
