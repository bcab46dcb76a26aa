"""The hub under floods: half-open connections, slow requests on every listener, readers that never
read, a device that reconnects without end, a service that posts initiations without end. Others open
streams meanwhile; the time that this takes and the hub's memory are printed, idle and under each
flood. Memory has a bound here; times are compared by `bench/floods`, on a machine without other work.
"""

import contextlib
import json
import os
import pathlib
import re
import resource
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

import harness
from harness import Skip, check, need

CLIENTS = pathlib.Path(__file__).with_name("flood_clients.py")
HALF_OPEN = 10_000
INITIATIONS = 10_000
NICE = ("nice", "-n", "19")
LIMITS = """
[limits]
handshake-seconds = 10

[limits.device.Unwilling]
initiations-per-second = 50
"""
# What the hub may take beyond its idle memory: 8,192 strangers of 16 KiB, 512 waiting requests, and
# streams whose ends do not read, of 256 KiB each.
BEYOND_MIB = 320


class Opening:
    """Opens streams, one after the other, as ssh would, each with an echo."""

    def __init__(self, port):
        self.port = port

    def one(self, timeout=20):
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(b"x")
            check(connection.recv(1) == b"x", "a stream ended without its echo")
            took = time.monotonic() - begun
            # Ends the stream at once: a plain one has no half-close.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return took

    def some(self, seconds, least):
        """The median and the 99th percentile of the times, in milliseconds."""
        times, until = [], time.monotonic() + seconds
        while time.monotonic() < until or len(times) < least:
            times.append(self.one() * 1000)
        cuts = statistics.quantiles(times, n=100)
        return {"opened": len(times), "p50": cuts[49], "p99": cuts[98]}


class Peak:
    """The hub's largest memory while the block runs."""

    def __init__(self, process):
        self.process, self.mib, self.is_over = process, process.resident_mib(), threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def look(self):
        while not self.is_over.wait(0.1):
            with contextlib.suppress(OSError, StopIteration):
                self.mib = max(self.mib, self.process.resident_mib())

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


class Floods:
    def __init__(self, lab, seconds, least):
        self.lab, self.seconds, self.least = lab, seconds, least
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.descriptors = most
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        config = lab.folder / "stream-hub.toml"
        self.amqps = harness.free_port()
        config.write_text(f'amqps = "127.0.0.1:{self.amqps}"\n{LIMITS}')
        self.hub = harness.Hub(lab)
        self.hub.start(log_level="warn", env={"STREAM_HUB_CONFIG": str(config)})
        self.start_device("MyDevice", "--echo")
        self.start_device("Unwilling", "--target", "other=127.0.0.1:9")
        self.storm = lab.secret_file("storm", self.hub.create_device("Storm"))
        self.hub.create_device("Offline")
        self.service = lab.secret_file("flooding", self.hub.service_string("iothubowner"))
        _, ports = self.hub.listen("echo", arguments=("--session", "never"), log_level="warn")
        self.opening = Opening(ports[0])
        # The proxies of another operator and device, which have their own processors, too: the flood is
        # the hub's to bear, not theirs.
        self.start_device("Greedy", "--echo", under=NICE)
        _, greedy = self.hub.listen(
            "echo", device="Greedy", name="greedy-service", arguments=("--session", "never"), log_level="warn", under=NICE
        )
        self.greedy = greedy[0]
        self.ports = (self.hub.https, self.hub.mqtts, self.amqps)
        harness.wait_until(lambda: self.opens(), 30, "the first stream opens")
        self.figures = {}

    def start_device(self, name, *arguments, under=()):
        file = self.lab.secret_file(name, self.hub.create_device(name))
        device = self.lab.start_ours(
            "device-proxy", "--connection-string-file", file, "--ca-file", self.hub.ca,
            "--mqtts-port", self.hub.mqtts, *arguments, name=name, log_level="info", under=under,
        )  # fmt: skip
        device.wait_for("connected")

    def opens(self):
        with contextlib.suppress(OSError, harness.Failure):
            return self.opening.one()

    def measure(self, title):
        with Peak(self.hub.process) as peak:
            figures = self.opening.some(self.seconds, self.least)
        figures["mib"] = peak.mib
        self.figures[title] = figures
        idle = self.figures["idle"]
        ratio = figures["p99"] / idle["p99"]
        print(
            f"        {title:28} p50 {figures['p50']:7.1f} ms  p99 {figures['p99']:7.1f} ms ({ratio:4.1f} × idle)"
            f"  {figures['opened']:5} opened  hub {figures['mib']:6.1f} MiB",
            flush=True,
        )
        beyond = figures["mib"] - idle["mib"]
        check(beyond < BEYOND_MIB, f"{title}: the hub takes {beyond:.0f} MiB more than idle")
        check(self.hub.process.running(), "the hub has ended")

    @contextlib.contextmanager
    def flood(self, name, ports, *words):
        """Others' machines have their own processors: these give way to the hub."""
        argv = [*NICE, sys.executable, CLIENTS, name, *ports, "--ca", self.hub.ca, *words]
        process = self.lab.start(f"flood-{name}", argv, stdin=subprocess.PIPE)
        counts = {}
        try:
            process.wait_for(r"^\{.*\}$", timeout=120)
            yield process, counts
            process.popen.stdin.close()
            process.wait(120)
            counts.update(json.loads(process.stdout.splitlines()[-1]))
            print(f"        {name}: {counts}", flush=True)
        finally:
            process.stop()

    def recovers(self):
        """What the hub has held is free again."""
        harness.wait_until(lambda: self.hub.process.open_files() < 400, 60, "the hub closes what the flood has left")

    def half_open(self):
        count = min(HALF_OPEN, self.descriptors - 500)
        check(count > 1_000, f"{self.descriptors} descriptors are too few")
        with self.flood("half-open", self.ports, "--count", count):
            self.measure(f"{count} half-open connections")
        self.recovers()

    def drip(self):
        with self.flood("drip", self.ports, "--count", 900) as (_, counts):
            self.measure("slow senders, all listeners")
        check(counts.get("ended by the hub", 0) + counts.get("cut by the hub", 0) > 0, "none was ended")
        self.recovers()

    def slowhttptest(self, mode, port, path, *words):
        need("slowhttptest")
        argv = [
            *NICE, "slowhttptest", mode, "-c", "400", "-r", "200", "-l", int(self.seconds) + 4,
            "-p", "5", "-u", f"https://localhost:{port}{path}", "-v", "1", *words,
        ]  # fmt: skip
        process = self.lab.start(f"slowhttptest{mode}", argv, cwd=self.lab.folder)
        time.sleep(3)  # 400 connections, 200 a second
        listener = {self.hub.https: "HTTPS", self.hub.mqtts: "MQTT", self.amqps: "AMQP"}[port]
        self.measure(f"slowhttptest {mode}, {listener}")
        process.wait(60)
        if port == self.hub.https and mode != "-R":
            seen = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", process.output)
            available = re.findall(r"service available:\s*(\w+)", seen)
            check(available and available[-1] == "YES", f"slowhttptest {mode}: {seen[-300:]!r}")
        self.recovers()

    def unread(self):
        # Each fills the buffers of six sockets first, which takes its time.
        count = 60 if self.seconds >= 20 else 6
        with self.flood("unread", (self.greedy,), "--count", count):
            self.measure(f"{count} readers that never read")
        self.recovers()

    def reconnect(self):
        words = ("--rate", "50", "--connection-string-file", self.storm)
        with self.flood("reconnect", (self.hub.mqtts,), *words) as (_, counts):
            self.measure("a device, 50 connects a second")
        check(counts.get("CONNACK 3", 0) > 0, f"none was told to come later: {counts}")
        self.recovers()

    def initiations(self, device):
        words = ("--count", INITIATIONS, "--device", device)
        words = (*words, "--connection-string-file", self.service)
        with self.flood("initiations", (self.hub.https,), *words) as (process, counts):
            self.measure(f"{INITIATIONS} initiations, {device}")
            process.wait_for(r'"done"', timeout=240)
        check(counts.get("429", 0) > 0, f"none was throttled: {counts}")
        check(not counts.get("429 without Retry-After"), f"{counts}")
        self.recovers()

    def all(self):
        with self.lab.step("streams open while nothing else happens"):
            self.opening.some(1, 20)
            self.measure_idle()
        for title, run in (
            ("10,000 half-open connections", self.half_open),
            ("slow-loris on HTTPS, MQTT and AMQP", self.drip),
            ("slowhttptest: slow headers", lambda: self.slowhttptest("-H", self.hub.https, "/devices", "-i", "2")),
            ("slowhttptest: slow body", lambda: self.slowhttptest("-B", self.hub.https, "/devices/d", "-i", "2")),
            ("slowhttptest: slow reader", lambda: self.slowhttptest("-X", self.hub.https, "/devices", "-k", "8")),
            ("slowhttptest: ranges", lambda: self.slowhttptest("-R", self.hub.https, "/devices")),
            ("slowhttptest on the MQTT listener", lambda: self.slowhttptest("-H", self.hub.mqtts, "/", "-i", "2")),
            ("slowhttptest on the AMQP listener", lambda: self.slowhttptest("-H", self.amqps, "/", "-i", "2")),
            ("readers that never read", self.unread),
            ("a device that reconnects 50 times a second", self.reconnect),
            ("10,000 initiations for a device that is offline", lambda: self.initiations("Offline")),
            ("10,000 initiations for a device that rejects them", lambda: self.initiations("Unwilling")),
        ):
            with self.lab.step(title):
                run()
        with self.lab.step("streams open as before"):
            self.measure("idle again")
            self.hub.process.resident_mib()
        return self.figures

    def measure_idle(self):
        self.figures["idle"] = {"p99": 1, "mib": self.hub.process.resident_mib()}
        figures = self.opening.some(self.seconds, self.least)
        self.figures["idle"] = figures | {"mib": self.hub.process.resident_mib()}
        self.measure("idle")


def main(lab):
    if os.name != "posix":
        raise Skip("this needs Linux")
    seconds = 20 if harness.FULL else 4
    Floods(lab, seconds, least=40).all()


if __name__ == "__main__":
    harness.run(main)
