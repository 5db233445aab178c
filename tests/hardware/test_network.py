"""The network of our own in which the peers listen: nobody outside of it reaches them, and it ends with its block."""

import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest
from robopref.hardware.testing.network import own_network

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")


def interfaces():
    with open("/proc/thread-self/net/dev") as file:
        return sorted(line.split(":")[0].strip() for line in file if ":" in line)


def reached(port):
    with socket.socket() as outside:
        outside.settimeout(2)
        return outside.connect_ex(("127.0.0.1", port)) == 0


def test_what_listens_inside_is_reached_from_inside_only():
    told = {}
    begin, asked = threading.Event(), threading.Event()

    def inside():
        told["before"] = interfaces()
        with own_network() as private:
            told["private"] = private
            if private:
                told["inside"] = interfaces()
                server = http.server.HTTPServer(("0.0.0.0", 0), http.server.BaseHTTPRequestHandler)
                told["port"] = server.server_port
                told["reached"] = reached(server.server_port)
                child = (
                    f"import socket; socket.create_connection(('127.0.0.1', {server.server_port}), 2); print('there')"
                )
                done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
                told["child"] = done.stdout.strip()
                begin.set()
                asked.wait(30)
                server.server_close()
        told["after"] = interfaces()
        begin.set()

    thread = threading.Thread(target=inside)
    thread.start()
    assert begin.wait(60)
    outside = reached(told["port"]) if told["private"] else None
    asked.set()
    thread.join(30)
    if not told["private"]:
        pytest.skip("root here may not make a network namespace")
    assert told["inside"] == ["lo"], "no way out, and none in"
    assert told["reached"] and told["child"] == "there", "children started meanwhile live in it"
    assert outside is False, "a peer that listens on every address is not reached from this machine's own network"
    assert told["after"] == told["before"], "the thread is back where it was"
