#!/usr/bin/env python3
"""The speed of a session: the latency of a keystroke beside a bulk copy in the same session, and
the rate of that copy against plain TCP over the same link."""

import contextlib
import json
import pathlib
import subprocess
import sys
import time

import harness
import network
import sessions
from harness import FULL, Failure, check

TRAFFIC = pathlib.Path(__file__).with_name("traffic.py")

LEG_DELAY_MS = 12.5  # one way, on each of the two links: 50 ms of round trip in all
RATE = "100mbit"
KEYS = 1000 if FULL else 300
GAP_MS = 10
KEY_SLACK_MS = 20  # the limit: how much longer the p99 beside a bulk copy may be
WARM_UP = 3.0

FAT_DELAY_MS = 60
FAT_RATE = "1gbit"
FAT_SECONDS = 12

TURN_RATE = "300mbit"
TURN_MEMORY_MIB = 64
TURN_SECONDS = 5
TURN_LEAST = 60  # Mbit/s from the second second on; it was 30


def main(lab):
    with network.World(lab, delay_ms=LEG_DELAY_MS) as world:
        world.service_link.set_rate(RATE)
        with lab.step(f"keystrokes beside a bulk copy: 50 ms, {RATE}"):
            place = Place(lab, world, "keys")
            results = {name: keystrokes(place, bulk) for name, bulk in BULKS.items()}
            show(results, plain_rates(place))
            idle = results["idle"]["p99"]
            for name, result in results.items():
                more = result["p99"] - idle
                if len(BULKS[name]) > 1:
                    # A goal without a limit: the limit is for one copy.
                    print(f"        {name}: p99 {more:.1f} ms longer than idle; the goal is {KEY_SLACK_MS}")
                    continue
                check(more <= KEY_SLACK_MS or not FULL, f"{name}: p99 is {more:.1f} ms longer than idle, not {KEY_SLACK_MS} at most")

    if not FULL:
        return
    with network.World(lab, delay_ms=0) as world:
        world.service_link.set_delay(FAT_DELAY_MS)
        world.service_link.set_rate(FAT_RATE)
        with lab.step(f"a long fat line: {2 * FAT_DELAY_MS} ms, {FAT_RATE}, the system's usual buffers"):
            place = Place(lab, world, "fat")
            for way in ("up", "down"):
                session = rate(place.bulk(way, FAT_SECONDS))
                plain = rate(place.plain(way, FAT_SECONDS))
                print(f"        {way:4}: session {session:.0f} Mbit/s, plain TCP {plain:.0f} Mbit/s")

    # A copy's queue must not end the slow start of the direction that carries its acknowledgements.
    with network.World(lab, delay_ms=0, tcp_memory_mib=TURN_MEMORY_MIB) as world:
        world.service_link.set_delay(FAT_DELAY_MS)
        world.service_link.set_rate(TURN_RATE)
        with lab.step(f"a copy after one in the other direction: {2 * FAT_DELAY_MS} ms, {TURN_RATE}"):
            place = Place(lab, world, "turn")
            for way in ("down", "up", "down"):
                session = rate(place.bulk(way, TURN_SECONDS), skipped=10)
                print(f"        {way:4}: {session:.0f} Mbit/s")
                check(session >= TURN_LEAST, f"{way}: {session:.0f} Mbit/s, not {TURN_LEAST}")


BULKS = {"idle": [], "upload": ["up"], "download": ["down"], "both": ["up", "down"]}


class Place:
    """A session to `traffic.py serve` at the device, and another `serve` at the hub for plain TCP
    over the same link."""

    def __init__(self, lab, world, name):
        self.lab, self.world = lab, world
        self.at_device = self.serve(f"traffic-device-{name}", world.device, "127.0.0.1")
        self.at_hub = self.serve(f"traffic-hub-{name}", world.hub, world.hub_address)
        targets = {"traffic": self.at_device}
        # What is logged at trace level costs time.
        self.tunnel = sessions.Tunnel(lab, world, name, targets, log_level="info", with_ssh=False)
        self.port = self.tunnel.ports["traffic"]

    def serve(self, name, namespace, host):
        process = self.lab.start(name, [*namespace.exec_prefix, sys.executable, TRAFFIC, "serve", host])
        return int(process.wait_for(r"^\d+$")[0])

    def traffic(self, kind, host, port, *words):
        argv = [*self.world.service.exec_prefix, sys.executable, TRAFFIC, kind, host, port, *words]
        return subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def start_bulk(self, way, seconds):
        return self.traffic(way, "127.0.0.1", self.port, seconds)

    def bulk(self, way, seconds):
        return said(self.start_bulk(way, seconds), seconds + 60)

    def plain(self, way, seconds):
        return said(self.traffic(way, self.world.hub_address, self.at_hub, seconds), seconds + 60)


def said(process, timeout):
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failure("traffic hangs") from None
    check(process.returncode == 0, f"traffic ended with {process.returncode}: {err.decode()[-300:]}")
    return json.loads(out)


def keystrokes(place, bulk, keys=KEYS, gap_ms=GAP_MS, warm_up=WARM_UP):
    """Echoes while these bulk copies run in the same session: p50 and p99 in ms, and the
    rate of each copy in Mbit/s."""
    seconds = warm_up + keys * gap_ms / 1000 + 1
    with contextlib.ExitStack() as stack:
        copies = {way: place.start_bulk(way, seconds) for way in bulk}
        for copy in copies.values():
            stack.callback(copy.kill)
        time.sleep(warm_up if bulk else 0.5)
        echo = place.traffic("echo", "127.0.0.1", place.port, keys, gap_ms)
        stack.callback(echo.kill)
        trips = sorted(said(echo, seconds + 60))
        rates = {way: rate(said(copy, seconds + 60)) for way, copy in copies.items()}
    return {
        "p50": trips[len(trips) // 2],
        "p99": trips[int(len(trips) * 0.99)],
        "most": trips[-1],
        "rates": rates,
    }


def rate(slots, slot=0.1, skipped=20):
    """Mbit/s after a warm-up."""
    steady = slots[skipped:-1]
    check(steady, "too little arrived to measure")
    return sum(steady) * 8 / (len(steady) * slot) / 1e6


def plain_rates(place, seconds=6):
    return {way: rate(place.plain(way, seconds)) for way in ("up", "down")}


def show(results, plain):
    for name, result in results.items():
        copies = ", ".join(
            f"{way} {mbit:.1f} Mbit/s ({mbit / plain[way]:.0%} of plain TCP)" for way, mbit in result["rates"].items()
        )
        print(
            f"        {name:9} p50 {result['p50']:6.1f}  p99 {result['p99']:6.1f}"
            f"  longest {result['most']:6.1f} ms   {copies}"
        )


if __name__ == "__main__":
    harness.run(main)
