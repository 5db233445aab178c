"""One suite for the client against our own server and against rosbridge-server-rs; broken frames; reconnects."""

import asyncio
import contextlib
import json
import time

import numpy as np
import pytest
from robopref.hardware import command as wire
from robopref.hardware import frames
from robopref.hardware.frames import Decoder, FrameError
from robopref.hardware.rosbridge import ABORTED, CANCELED, SUCCEEDED, BridgeError, Mailbox, Result, RosBridge
from robopref.hardware.testing import processes
from robopref.hardware.testing.bridge_server import BridgeServer

STRING, ARRAY = "std_msgs/String", "std_msgs/Float64MultiArray"


@pytest.fixture(scope="module")
def real_bridge(environments, private_network, tmp_path_factory):
    """rosbridge-server-rs on a free port."""
    port = processes.free_port()
    with processes.bridge(environments, tmp_path_factory.mktemp("bridge"), port) as process:
        process.wait_for_port(port)
        yield f"ws://127.0.0.1:{port}"


def own(dialect):
    @contextlib.asynccontextmanager
    async def ours():
        async with BridgeServer(dialect=dialect) as running:
            yield running.url

    ours.dialect = dialect
    return ours


@pytest.fixture(params=["ours", "ours-ros1", "rosbridge-server-rs"])
def server(request):
    """A context that gives a url inside a running loop."""
    if request.param.startswith("ours"):
        return own("ros1" if request.param == "ours-ros1" else "ros2")
    url = request.getfixturevalue("real_bridge")

    @contextlib.asynccontextmanager
    async def theirs():
        yield url

    return theirs


def talk(server, test):
    """Run `test(first, second)` with two connected clients of one server, in its dialect."""
    dialect = getattr(server, "dialect", "ros2")

    async def run():
        async with server() as url, RosBridge(url, dialect) as first, RosBridge(url, dialect) as second:
            await first.wait()
            await second.wait()
            await asyncio.wait_for(test(first, second), 60)

    asyncio.run(run())


async def delivered(first, topic, message, box, tries=50):
    """Publish until it arrives: discovery of a new topic takes a moment."""
    for _ in range(tries):
        first.publish(topic, message)
        with contextlib.suppress(TimeoutError):
            return await box.next(0.1)
    raise AssertionError(f"{topic}: nothing arrived; {first.counters}")


def test_a_topic_arrives_as_it_was_sent(server):
    async def test(first, second):
        box = Mailbox()
        first.advertise("/echo", STRING)
        second.subscribe("/echo", STRING, box)
        told = {"data": 'Grüße / \\ " \n'}
        assert await delivered(first, "/echo", told, box) == told
        second.unsubscribe("/echo")
        await asyncio.sleep(0.1)
        count = box.count
        first.publish("/echo", told)
        await asyncio.sleep(0.2)
        assert box.count == count

    talk(server, test)


@pytest.mark.parametrize("dressed", [True, False])
def test_every_command_arrives_whole_whatever_its_numbers(server, dressed):
    """A server may read a decimal as the float64 beside the nearest one, which must not look like damage."""
    targets, names = np.random.default_rng(0).uniform(-3, 3, (200, 7)), wire.joint_names("fr3")

    async def test(first, second):
        box = Mailbox()
        first.advertise("/whole", "trajectory_msgs/JointTrajectory")
        second.subscribe("/whole", "trajectory_msgs/JointTrajectory", box)
        for number, target in enumerate(targets):
            sent = wire.message(wire.Command(1, number, 1.0, 1.0, target=target, duration=1 / 15))
            if not dressed:
                sent["points"][0]["positions"] = target.tolist()  # as long as they come
            came = await delivered(first, "/whole", sent, box)
            read = wire.read(came["header"]["frame_id"], names, came["points"])
            assert read.fault == wire.Reason.NONE and np.abs(read.target - target).max() < 1e-9

    talk(server, test)


@pytest.mark.parametrize("compression", ["none", "png", "cbor"])
def test_every_compression_carries_the_same_numbers(server, compression):
    numbers = [0.0, -1.5, 1e300, 2.5e-7]

    async def test(first, second):
        box = Mailbox()
        first.advertise(f"/numbers_{compression}", ARRAY)
        second.subscribe(f"/numbers_{compression}", ARRAY, box, compression=compression)
        message = {"layout": {"dim": [], "data_offset": 0}, "data": numbers}
        heard = await delivered(first, f"/numbers_{compression}", message, box)
        assert np.array_equal(np.asarray(heard["data"], dtype=float), numbers)

    talk(server, test)


def test_cbor_raw_says_when_and_gives_bytes(real_bridge):
    @contextlib.asynccontextmanager
    async def server():
        yield real_bridge

    async def test(first, second):
        box = Mailbox()
        first.advertise("/raw", STRING)
        second.subscribe("/raw", STRING, box, compression="cbor-raw")
        heard = await delivered(first, "/raw", {"data": "abc"}, box)
        assert heard.keys() == {"secs", "nsecs", "bytes"} and b"abc" in heard["bytes"]

    talk(server, test)


def test_fragments_are_put_together(server):
    async def test(first, second):
        box = Mailbox()
        first.advertise("/long", STRING)
        second.subscribe("/long", STRING, box, fragment_size=200)
        told = {"data": "0123456789" * 200}
        assert await delivered(first, "/long", told, box) == told

    talk(server, test)


def test_a_throttled_topic_keeps_its_pace(server):
    async def test(first, second):
        box = Mailbox()
        first.advertise("/fast", STRING)
        second.subscribe("/fast", STRING, box, throttle_rate=100, queue_length=1)
        await delivered(first, "/fast", {"data": "0"}, box)
        before, begin = box.count, time.monotonic()
        while time.monotonic() - begin < 1.0:
            first.publish("/fast", {"data": "x"})
            await asyncio.sleep(0.01)
        assert 3 <= box.count - before <= 12

    talk(server, test)


def test_a_service_answers_and_an_unknown_one_fails(server):
    async def test(first, second):
        first.serve("/switch", "std_srvs/SetBool", lambda args: {"success": args["data"], "message": "done"})
        for attempt in range(50):
            try:
                answer = await second.call("/switch", "std_srvs/SetBool", {"data": True}, timeout=1)
                break
            except BridgeError:
                assert attempt < 49
                await asyncio.sleep(0.1)
        assert answer == {"success": True, "message": "done"}
        with pytest.raises(BridgeError, match="nowhere"):
            await second.call("/nowhere", "std_srvs/SetBool", {"data": True}, timeout=1)

    talk(server, test)


def test_an_action_reports_succeeds_and_can_be_cancelled(server):
    if getattr(server, "dialect", "ros2") == "ros1":
        pytest.skip("an action is five topics in ROS 1: the test below")
    kind = "test_msgs/Fibonacci"
    ended = asyncio.Event()

    async def fibonacci(args, feedback):
        numbers = [0, 1]
        try:
            for _ in range(args["order"] - 1):
                numbers.append(numbers[-1] + numbers[-2])
                feedback({"sequence": numbers})
                await asyncio.sleep(0.02 if args["order"] < 20 else 0.5)
        except asyncio.CancelledError:
            ended.set()
            raise
        return Result(SUCCEEDED, {"sequence": numbers})

    async def test(first, second):
        first.offer_action("/fibonacci", kind, fibonacci)
        heard = []
        for attempt in range(50):
            try:
                result = await second.send_goal("/fibonacci", kind, {"order": 6}, feedback=heard.append, timeout=3)
                if result.status == SUCCEEDED:
                    break
            except BridgeError:
                assert attempt < 10
            await asyncio.sleep(0.1)
        assert result.status == SUCCEEDED and result.values["sequence"][-1] == 8 and heard
        job = asyncio.create_task(second.send_goal("/fibonacci", kind, {"order": 40}, timeout=20))
        await asyncio.sleep(0.7)
        answers = []
        dispatch = second._link._heard
        second._link._heard = lambda message: (answers.append(message), dispatch(message))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await asyncio.wait_for(ended.wait(), 10)  # the provider's own task was cancelled, not just our waiting
        for _ in range(100):
            results = [m for m in answers if m["op"] == "action_result"]
            if results:
                break
            await asyncio.sleep(0.05)
        assert [m["status"] for m in results] == [CANCELED], "and its end is told as cancelled, whatever `result` says"

    talk(server, test)


def test_times_are_spelled_as_the_server_wants_them_and_read_as_here(server):
    async def test(first, second):
        box = Mailbox()
        first.advertise("/timed", "trajectory_msgs/JointTrajectory")
        second.subscribe("/timed", "trajectory_msgs/JointTrajectory", box)
        stamp, duration = {"sec": 12, "nanosec": 5}, {"sec": 1, "nanosec": 500}
        point = {"positions": [0.5], "time_from_start": duration}
        told = {"header": {"stamp": stamp, "frame_id": "x"}, "joint_names": ["a"], "points": [point]}
        heard = await delivered(first, "/timed", told, box)
        assert heard["header"]["stamp"] == stamp and heard["points"][0]["time_from_start"] == duration
        assert told["points"][0]["time_from_start"] == {"sec": 1, "nanosec": 500}, "the sender's message stays as it is"

    talk(server, test)


def test_a_ros1_server_loses_times_in_the_other_spelling():
    """Why they are converted: what such a server makes of a command from a client that speaks ROS 2 is refused."""

    async def run():
        async with (
            BridgeServer(dialect="ros1") as server,
            RosBridge(server.url) as wrong,
            RosBridge(server.url, "ros1") as right,
        ):
            await wrong.wait()
            await right.wait()
            box, kind = Mailbox(), "trajectory_msgs/JointTrajectory"
            right.subscribe("/c", kind, box)
            right.advertise("/c", kind)
            sent = wire.message(wire.Command(1, 1, 1.0, 1.0, target=np.zeros(7), duration=1 / 15))
            for client, fault in ((wrong, wire.Reason.DAMAGED), (right, wire.Reason.NONE)):
                came = await delivered(client, "/c", sent, box)
                assert wire.read(came["header"]["frame_id"], came["joint_names"], came["points"]).fault == fault
            wrong.advertise("/d", kind)
            await asyncio.sleep(0.2)
            assert any("no type" in text for text in wrong.counters.statuses), "it knows pkg/Name only"

    asyncio.run(run())


def test_ros1_actions_are_five_topics():
    async def test(first, second):
        seen = Mailbox()
        second.subscribe("/move/goal", "test/MoveActionGoal", seen)
        second.advertise("/move/result", "test/MoveActionResult")
        await asyncio.sleep(0.1)
        job = asyncio.create_task(first.send_goal("/move", "test/Move", {"width": 0.04}))
        goal = await seen.next(2)
        assert goal["goal"] == {"width": 0.04}
        status = {"goal_id": goal["goal_id"], "status": 3}
        second.publish("/move/result", {"status": status, "result": {"success": True}})
        assert await job == Result(SUCCEEDED, {"success": True})
        job = asyncio.create_task(first.send_goal("/move", "test/Move", {"width": 0.01}))
        goal = await seen.next(2)
        second.publish("/move/result", {"status": {"goal_id": goal["goal_id"], "status": 8}, "result": {}})
        assert (await job).status == CANCELED
        job = asyncio.create_task(first.send_goal("/move", "test/Move", {"width": 0.02}))
        goal = await seen.next(2)
        second.publish("/move/result", {"status": {"goal_id": goal["goal_id"], "status": 4}, "result": {}})
        assert (await job).status == ABORTED
        assert first.spelled("sensor_msgs/msg/JointState") == "sensor_msgs/JointState"

    talk(own("ros1"), test)


def test_nan_never_leaves_and_a_bad_publish_never_kills(server):
    async def test(first, second):
        first.advertise("/echo2", STRING)
        with pytest.raises(FrameError, match="JSON"):
            first.publish("/echo2", {"data": float("nan")})
        first.publish("/echo2", {"wrong": 1})
        first.publish("/unadvertised", {"data": "x"})
        first._send({"op": "no_such_operation"})
        box = Mailbox()
        second.subscribe("/echo2", STRING, box)
        await delivered(first, "/echo2", {"data": "still here"}, box)
        assert first.counters.connects == 1

    talk(server, test)


def test_a_lost_connection_comes_back_with_its_subscriptions():
    async def run():
        async with BridgeServer() as server:
            port = server.port
            async with RosBridge(server.url, backoff=(0.05, 0.2)) as first:
                came = []
                first.on_connect.append(lambda: came.append(time.monotonic()))
                await first.wait()
                box = Mailbox()
                first.subscribe("/state", STRING, box)
                first.advertise("/state", STRING)
                await delivered(first, "/state", {"data": "1"}, box)
                server._server.close()
                await server._server.wait_closed()
                while first.connected:
                    await asyncio.sleep(0.01)
                assert not first.publish("/state", {"data": "lost"}) and first.counters.dropped == 1
                with pytest.raises(BridgeError, match="not connected"):
                    await first.call("/x", "std_srvs/Trigger")
                async with BridgeServer(port):
                    await first.wait(5)
                    assert (await delivered(first, "/state", {"data": "2"}, box)) == {"data": "2"}
                    assert len(came) == 2

    asyncio.run(run())


def test_a_mailbox_keeps_only_the_newest():
    async def run():
        box = Mailbox()
        assert box.age == float("inf")
        for i in range(5):
            box(i)
        assert box.message == 4 and box.count == 5 and box.age < 1.0
        with pytest.raises(TimeoutError):
            await box.next(0.01)

    asyncio.run(run())


def test_a_picture_carries_any_text_through_every_filter():
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 3, 100, 5000):
        text = json.dumps({"op": "publish", "x": "".join(map(chr, rng.integers(32, 900, size)))})
        assert frames.from_png(frames.to_png(text)) == text
    av = pytest.importorskip("av")
    import base64
    import io

    text = json.dumps({"numbers": rng.integers(0, 9, 400).tolist()})
    raw = text.encode().ljust(60 * 3 * 8, b"\n")
    assert len(raw) == 60 * 3 * 8, "the picture must hold the text"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as file:
        stream = file.add_stream("png", rate=1, options={"pred": "mixed"})
        stream.width, stream.height, stream.pix_fmt = 60, 8, "rgb24"
        picture = av.VideoFrame.from_ndarray(np.frombuffer(raw, np.uint8).reshape(8, 60, 3), format="rgb24")
        for packet in [*stream.encode(picture), *stream.encode(None)]:
            file.mux(packet)
    assert frames.from_png(base64.b64encode(buffer.getvalue()).decode()) == text


BAD = [
    "",
    "[]",
    "7",
    '{"op": 3}',
    '{"op": "fragment"}',
    '{"op": "png", "data": "!"}',
    '{"op": "png", "data": 3}',
    b"",
    b"\xff",
    b"\x80",
]


@pytest.mark.parametrize("frame", BAD, ids=repr)
def test_a_frame_that_is_no_message_is_refused(frame):
    with pytest.raises(FrameError):
        Decoder().decode(frame)


def test_sizes_are_bounded():
    with pytest.raises(FrameError, match="at most"):
        Decoder(limit=100).decode("x" * 101)
    decoder = Decoder(limit=1000)
    parts = [json.dumps({"op": "fragment", "id": "a", "num": i, "total": 101, "data": "x" * 50}) for i in range(21)]
    assert [decoder.decode(part) for part in parts[:20]] == [None] * 20
    with pytest.raises(FrameError, match="size"):
        decoder.decode(parts[20])
    for i in range(100):
        decoder.decode(json.dumps({"op": "fragment", "id": str(i), "num": 0, "total": 2, "data": "x"}))
    assert len(decoder._open) <= frames.MAX_OPEN
    with pytest.raises(FrameError, match="small"):
        frames.from_png(frames.to_png("x" * 5000), limit=1000)


def test_nan_of_lax_servers_becomes_null():
    assert frames.from_json('{"op": "publish", "x": [NaN, Infinity, 1]}')["x"] == [None, None, 1]


def test_fuzzed_frames_neither_crash_nor_command():
    from robopref.hardware.testing.fuzz import fuzz_frames

    found = fuzz_frames(3000, seed=1)
    assert found.commands == 0 and found.taken > 100


def test_without_their_checksum_damaged_commands_would_be_taken(monkeypatch):
    from robopref.hardware import command
    from robopref.hardware.testing.fuzz import fuzz_frames

    monkeypatch.setattr(command, "checksum", lambda *_: "00000000")
    assert fuzz_frames(1000, seed=1).commands > 0
