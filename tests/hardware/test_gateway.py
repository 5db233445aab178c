"""The gateway: nobody without the token, nothing that is not on the list, nothing too large or too often; and the operator's page."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from robopref.hardware.gateway import Gateway, Rules
from robopref.hardware.gateway import main as gateway_main
from robopref.hardware.operator_view import OperatorView
from robopref.hardware.periods import Tally
from robopref.hardware.request import request_of
from robopref.hardware.rosbridge import BridgeError, Mailbox, RosBridge
from robopref.hardware.testing.bridge_server import BridgeServer
from robopref.hardware.topics import Topics, driver

from robopref.arrays import InputError

TOKEN = "a-long-enough-token"
COMMAND = Topics().command


def guarded(test, **options):
    async def run():
        async with BridgeServer() as server, Gateway(server.url, TOKEN, **options) as gateway:
            await asyncio.wait_for(test(server, gateway), 30)

    asyncio.run(run())


def connect(url, **options):
    from websockets.asyncio.client import connect

    return connect(url, compression=None, additional_headers={"Authorization": f"Bearer {TOKEN}"}, **options)


def test_our_client_works_through_the_gateway():
    async def test(server, gateway):
        async with RosBridge(gateway.url, token=TOKEN) as outside, RosBridge(server.url) as inside:
            await outside.wait()
            await inside.wait()
            box = Mailbox()
            inside.subscribe(COMMAND, "std_msgs/String", box)
            outside.advertise(COMMAND, "std_msgs/String")
            await asyncio.sleep(0.1)
            outside.publish(COMMAND, {"data": "x"})
            assert await box.next(5) == {"data": "x"}

    guarded(test)


def test_every_unauthorised_connection_is_refused():
    from websockets.asyncio.client import connect as plain
    from websockets.exceptions import InvalidStatus

    async def test(server, gateway):
        for said in (None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"bearer {TOKEN}"):
            headers = {} if said is None else {"Authorization": said}
            with pytest.raises(InvalidStatus):
                await plain(gateway.url, additional_headers=headers)
        assert gateway.passed.unauthorised == 7

    guarded(test)


FORBIDDEN = [
    {"op": "publish", "topic": "/joint_states", "msg": {}},
    {"op": "advertise", "topic": "/other", "type": "x"},
    {"op": "subscribe", "topic": "/secret"},
    {"op": "call_service", "service": "/set_load"},
    {"op": "advertise_service", "service": "/robopref/estop", "type": "x"},
    {"op": "send_action_goal", "action": "/a"},
    {"op": "fragment", "id": "1", "num": 0, "total": 2, "data": "x"},
    {"op": "publish", "topic": ["/robopref/command"], "msg": {}},
    {"op": "publish", "topic": COMMAND + "/x", "msg": {}},
    {"op": "unknown"},
]


def test_what_is_not_on_the_list_does_not_pass():
    async def test(server, gateway):
        async with connect(gateway.url) as socket:
            for message in [*FORBIDDEN, "no json"]:
                await socket.send(message if isinstance(message, str) else json.dumps(message))
                assert json.loads(await socket.recv())["op"] == "status"
        assert gateway.passed.refused == len(FORBIDDEN) + 1 and gateway.passed.inward == 0 and not server.published

    guarded(test)


def test_large_frames_end_the_connection_and_many_are_dropped():
    from websockets.exceptions import ConnectionClosed

    async def test(server, gateway):
        async with connect(gateway.url) as socket:
            await socket.send(json.dumps({"op": "publish", "topic": COMMAND, "msg": {"data": "x" * 70000}}))
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        async with connect(gateway.url) as socket:
            for _ in range(60):
                await socket.send(json.dumps({"op": "advertise", "topic": COMMAND, "type": "std_msgs/msg/String"}))
            await asyncio.sleep(0.3)
        assert gateway.passed.oversized == 1 and gateway.passed.throttled > 0

    guarded(test, rules=Rules(rate=20))


def certificate(folder):
    """Paths of a certificate of 127.0.0.1 that signed itself, and of its key."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "k"), "-out", str(folder / "c")]
    subprocess.run(made, check=True, capture_output=True)
    return folder / "c", folder / "k"


def test_the_gateway_starts_from_the_command_line_and_deploy_trusts_its_certificate(tmp_path):
    cert, key = certificate(tmp_path)
    words = [sys.executable, "-m", "robopref.hardware.gateway", "--cert", str(cert), "--key", str(key), "--port", "0"]

    async def run():
        async with BridgeServer() as server:
            process = await asyncio.create_subprocess_exec(
                *words,
                "--bridge",
                server.url,
                env=os.environ | {"ROBOPREF_TOKEN": TOKEN},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            try:
                line = (await asyncio.wait_for(process.stdout.readline(), 100)).decode()
                assert line.startswith("gateway at wss://127.0.0.1:"), (line, await process.stderr.read())
                words_of_deploy = {"bridge": line.split()[2].rstrip(","), "policy": "ws://127.0.0.1:1"}
                trusting = request_of(words_of_deploy | {"ca": str(cert)})
                async with RosBridge(trusting.bridge, token=TOKEN, ssl=trusting.ssl) as outside:
                    await outside.wait(60)
                    outside.advertise(COMMAND, "std_msgs/String")
                    outside.publish(COMMAND, {"data": "x"})
                    outside.publish("/joint_states", {})
                    while not outside.counters.statuses:
                        await asyncio.sleep(0.02)
                    assert server.published == [(COMMAND, {"data": "x"})]
                strange = request_of(words_of_deploy)
                async with RosBridge(strange.bridge, token=TOKEN, ssl=strange.ssl) as outside:
                    with pytest.raises(BridgeError, match="no connection"):
                        await outside.wait(2)
                process.send_signal(signal.SIGTERM)
                told = json.loads(await asyncio.wait_for(process.stdout.read(), 20))
                assert await process.wait() == 0 and told["refused"] == 1 and told["inward"] == 2
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    asyncio.run(asyncio.wait_for(run(), 300))


def test_a_gateway_that_cannot_be_is_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBOPREF_TOKEN", TOKEN)
    for words, told in [
        (["--cert", "c"], "both or neither"),
        (["--cert", str(tmp_path / "no"), "--key", str(tmp_path / "no")], "wanted a certificate"),
        (["--host", "0.0.0.0"], "without TLS"),
        (
            ["--host", "192.0.2.1", "--cert", *map(str, (certificate(tmp_path)[0],)), "--key", str(tmp_path / "k")],
            "listened on",
        ),
    ]:
        assert gateway_main(words) == 2 and told in capsys.readouterr().err
    monkeypatch.delenv("ROBOPREF_TOKEN")
    assert gateway_main([]) == 2 and "token of 0" in capsys.readouterr().err


def test_tls_is_spoken_and_its_absence_beyond_loopback_refused(tmp_path):
    certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "c"))

    async def test(server, gateway):
        async with RosBridge(gateway.url, token=TOKEN, ssl=trusting) as outside:
            await outside.wait()

    guarded(test, ssl=context)
    with pytest.raises(InputError, match="TLS"):
        Gateway("ws://127.0.0.1:1", TOKEN, host="0.0.0.0")
    with pytest.raises(InputError, match="16"):
        Gateway("ws://127.0.0.1:1", "short")


class QuietAgent:
    """What the page asks of an agent."""

    def __init__(self):
        self.status, self.tally, self.paused, self.orders = {"state": "HOLD", "why": ["WATCHDOG"]}, Tally(), False, []
        self.ages = (0.1, 0.1)
        self.bridge = self.client = type("Link", (), {"connected": True, "metadata": {}})()

    def control(self, op):
        self.orders.append(op)

    def rearm(self):
        self.orders.append("rearm")

    def press(self, held):
        self.orders.append(held)

    def picture(self):
        return b"jpeg"

    def picture_ages(self):
        return self.ages


def test_the_page_shows_the_state_and_takes_orders_from_its_own_origin_only():
    from websockets.asyncio.client import connect as plain
    from websockets.exceptions import InvalidStatus

    async def run():
        agent = QuietAgent()
        async with OperatorView(agent) as view:
            page = await asyncio.to_thread(lambda: urllib.request.urlopen(view.url, timeout=5).read().decode())
            assert "STOP" in page and "Content-Security-Policy" in page

            def code(address):
                try:
                    return urllib.request.urlopen(address, timeout=5).status
                except urllib.error.HTTPError as error:
                    error.close()
                    return error.code

            assert await asyncio.to_thread(code, view.url[:-1] + "x") == 403
            live = view.url.replace("http", "ws").replace("/?", "/live?")
            with pytest.raises(InvalidStatus):
                await plain(live, origin="http://evil.example")
            async with plain(live, origin=f"http://127.0.0.1:{view.port}") as socket:
                told = json.loads(await socket.recv())
                assert told["state"] == "HOLD" and told["why"] == ["WATCHDOG"] and told["picture"]
                for frame in ('{"op": "estop"}', "junk", "[]", '{"op": "rm"}', '{"op": "pause"}', '{"op": "arm"}'):
                    await socket.send(frame)
                while "rearm" not in agent.orders:
                    await asyncio.sleep(0.01)
            while False not in agent.orders:
                await asyncio.sleep(0.01)
            assert agent.orders == ["estop", "rearm", False] and agent.paused, "a page that is gone holds nothing down"

    asyncio.run(run())


def test_the_page_passes_on_each_beat_of_the_button_and_makes_none_up():
    agent = QuietAgent()
    view = OperatorView(agent)
    for op in ("press", "press", "letgo"):
        view.order(json.dumps({"op": op}))
    assert agent.orders == [True, True, False]


def test_the_page_counts_reasons_and_says_how_old_its_picture_is(monkeypatch):
    from robopref.hardware import operator_view

    agent, clock = QuietAgent(), [100.0]
    monkeypatch.setattr(operator_view.time, "monotonic", lambda: clock[0])
    view = OperatorView(agent)
    agent.status |= {"bits": {"SEQ": 5, "DELTA": 2}, "held": {"JERK": 900}, "width": 0.0412, "gripper": 0.04}
    view.state()
    clock[0] += 1.0
    agent.status |= {"bits": {"SEQ": 8, "DELTA": 3, "STALE": 1}, "held": {"JERK": 950, "FLOOR": 20, "WATCHDOG": 400}}
    numbers = view.state()["numbers"]
    assert numbers["refused commands, last 2 s"] == "SEQ 3, STALE 1"
    assert numbers["changed commands, last 2 s"] == "DELTA 1"
    assert numbers["held back, last 2 s"] == "JERK 50 ms, FLOOR 20 ms"
    assert numbers["gripper measured / told"] == "41.2 mm / 40.0 mm"
    clock[0] += 5.0
    view.state()
    assert view.state()["numbers"]["refused commands, last 2 s"] == "-"
    for ages, state, old, said in (
        ((0.1, 0.1), "RUNNING", False, "0.1 s old"),
        ((3.0, 3.0), "HOLD", True, "NO NEW PICTURE"),
        ((0.1, 9.0), "RUNNING", True, "the same for 9 s"),
        ((0.1, 9.0), "HOLD", False, "the same for 9 s"),
        ((float("inf"),) * 2, "HOLD", True, "no picture"),
    ):
        agent.ages, agent.status["state"] = ages, state
        told = view.state()
        assert told["camera_old"] is old and said in told["camera"]


def test_the_page_says_that_it_waits_for_a_person():
    agent = QuietAgent()
    view = OperatorView(agent)
    assert not view.state()["waits"]
    for why in (["OPERATOR"], ["LINK", "OPERATOR"], ["ESTOP"], ["SOMETHING_NEW"]):
        agent.status["why"] = why
        assert view.state()["waits"] and "waits for Re-arm" in view.state()["why"]


def test_topic_maps_know_their_drivers():
    assert driver("franka_ros2").dialect == "ros2" and driver("franka_ros").dialect == "ros1"
    with pytest.raises(InputError, match="crisp"):
        driver("unknown")
