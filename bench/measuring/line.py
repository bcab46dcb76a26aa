"""A session on a line with others: a link of 100 Mbit/s and 50 ms between network namespaces,
beside one plain TCP connection, and full in both directions. As root."""

import contextlib
import os
import pathlib
import time

import network
import session_speed

RATE = "100mbit"
DELAY_MS = 12.5  # one way, on each of its two links
SLOTS = 10  # of traffic.py, in a second
WAYS = ("up", "down")
FIRST = ("session", "plain")


def missing():
    """Why it cannot be measured here; None if it can."""
    if os.geteuid() != 0:
        return "the line between network namespaces needs root"
    if not pathlib.Path("/dev/net/tun").exists():
        return "the line between network namespaces needs /dev/net/tun"
    return None


def figures(lab, quick=False):
    """All figures of the line, with programs of its own."""
    seen = {}
    with network.World(lab, delay_ms=DELAY_MS) as world:
        world.service_link.set_rate(RATE)
        for place in (world.device, world.hub, world.service):
            set_congestion_control(lab, place, "cubic")
        there = session_speed.Place(lab, world, "line")
        for way in WAYS:
            for first in FIRST:
                rates = beside(there, world, way, first, *((1, 1, 2) if quick else ()))
                seen[f"share_{way}_{first}"] = 100 * share(rates)
        count = (50, 10, 2.0) if quick else (500, 10, 3.0)
        idle = session_speed.keystrokes(there, [], *count)["p99"]
        for name, ways in (("up", ["up"]), ("down", ["down"]), ("both", list(WAYS))):
            result = session_speed.keystrokes(there, ways, *count)
            seen[f"late_{name}"] = result["p99"] - idle
            for way in ways if name == "both" else ():
                seen[f"both_{way}"] = result["rates"][way]
    return seen


def set_congestion_control(lab, namespace, name):
    """Of connections over its routes from now on: what most plain connections have. A namespace
    may set it for its sockets only if the machine allows that."""
    ip = [*namespace.exec_prefix, "ip", "-4", "route"]
    for route in lab.run([*ip, "show"]).stdout.splitlines():
        lab.run([*ip, "change", *route.split(), "congctl", name])


def share(rates):
    """The session's part of what both have."""
    return rates["session"] / (rates["session"] + rates["plain"])


def beside(there, world, way, first, head_start=4, settling=6, measured=15):
    """Mbit/s of the session and of a plain connection, of which one begins first, in the same
    seconds."""

    def start(kind):
        seconds = head_start + settling + measured + 1
        if kind == "session":
            return there.start_bulk(way, seconds)
        return there.traffic(way, world.hub_address, there.at_hub, seconds)

    kinds = [first, "plain" if first == "session" else "session"]
    with contextlib.ExitStack() as stack:
        running = []
        for kind in kinds:
            if running:
                time.sleep(head_start)
            running.append(start(kind))
            stack.callback(running[-1].kill)
        slots = [session_speed.said(one, 90) for one in running]
    begins = [(head_start + settling) * SLOTS, settling * SLOTS]
    rates = {}
    for kind, all_slots, begin in zip(kinds, slots, begins, strict=True):
        some = all_slots[begin : begin + measured * SLOTS]
        rates[kind] = sum(some) * 8 / (len(some) / SLOTS) / 1e6
    return rates
