#!/usr/bin/env python3
"""From Friday to Monday: a stopped program, a hub that is down and a clock that jumps end no
connection. A shell without keep-alives, a client with its state in the connection and a request
whose answer takes long all continue soon.

An outage takes half a minute, and ten minutes with the full volumes.

A clock that counts on while the machine sleeps, as Windows' does, only ever moves forwards; the
system's clock is set back, too.
"""

import os
import pathlib
import signal
import socket
import threading
import time

import harness
import sessions
from harness import FULL, check, equal

# Longer than the silence of a session, and than the ping interval of a leg.
OUTAGE_SECONDS = 600 if FULL else 25
# Time to recover after a program wakes or a hub is back. A few seconds are usual.
BACK_SECONDS = 15
JUMP = "+60h"


def main(lab):
    released = threading.Event()
    state = harness.TcpServer(add_up)
    poll = harness.TcpServer(lambda connection: answer_late(connection, released))
    targets = {"state": state.port, "poll": poll.port}
    tunnels = [sessions.Tunnel(lab, name=name, targets=targets, log_level="debug") for name in ("service", "device", "hub")]
    by_service, by_device, by_hub = users = [User(tunnel) for tunnel in tunnels]
    try:
        with lab.step(f"both proxies stand still and a hub is away for {OUTAGE_SECONDS} s, beside each other"):
            by_service.tunnel.service.signal(signal.SIGSTOP)
            by_device.tunnel.device.signal(signal.SIGSTOP)
            by_hub.tunnel.hub.process.kill()
            for user in users:
                user.type_in_the_dark()
            time.sleep(OUTAGE_SECONDS)
            check(all(user.shell.process.poll() is None for user in users), "a shell has ended meanwhile")
            released.set()
        with lab.step("service-proxy goes on after it stood still"):
            by_service.tunnel.service.signal(signal.SIGCONT)
            by_service.check_all()
        with lab.step("device-proxy goes on after it stood still"):
            by_device.tunnel.device.signal(signal.SIGCONT)
            by_device.check_all()
        with lab.step("connections go on after the hub was away"):
            by_hub.tunnel.hub.start(log_level="debug")
            by_hub.check_all()
        with lab.step("one interruption each, and no burst of attempts after it"):
            for user in users:
                user.check_quiet()
    finally:
        # A stopped process does not handle SIGTERM.
        for tunnel in tunnels:
            for process in (tunnel.service, tunnel.device):
                process.signal(signal.SIGCONT)
        for user in users:
            user.close()
    for with_timers in (False, True):
        which = f"all clocks: {JUMP}, as after a sleep" if with_timers else f"the clock on the wall: {JUMP} and back"
        with lab.step(f"{which}, at either proxy"):
            clocks(lab, with_timers)
    for tunnel in tunnels:
        tunnel.close()
    for server in (state, poll):
        server.close()


def add_up(connection):
    """A target with its state in the connection: adds up the numbers that it receives."""
    total = 0
    for line in connection.makefile("r"):
        total += int(line)
        connection.sendall(f"{total}\n".encode())


def answer_late(connection, released):
    """A request that is answered when a result is available."""
    connection.recv(4096)
    released.wait()
    connection.sendall(b"an event\n")


class User:
    """A user's shell, a client that keeps its state in the connection, and a request that waits for
    its answer."""

    def __init__(self, tunnel):
        self.tunnel = tunnel
        self.shell = tunnel.shell()
        equal(self.shell.ask("state=kept && echo $state"), "kept", "the state before")
        self.state = tunnel.connect("state").makefile("rw")
        equal(self.add(40), 40, "the sum before")
        self.poll = tunnel.connect("poll")
        self.poll.sendall(b"anything new?\n")
        time.sleep(0.3)

    def add(self, number):
        self.state.write(f"{number}\n")
        self.state.flush()
        return int(self.state.readline())

    def type_in_the_dark(self):
        self.shell.type("echo $state after all")

    def check_all(self):
        back = time.monotonic()
        equal(self.shell.answer(BACK_SECONDS), "kept after all", "the state after")
        print(f"        the shell answers {time.monotonic() - back:.2f} s later")
        equal(self.add(2), 42, "the sum after")
        self.poll.settimeout(BACK_SECONDS)
        equal(self.poll.recv(100), b"an event\n", "the answer to the request that waited")
        check(time.monotonic() - back < BACK_SECONDS, "that took too long")
        # Everything else works, too.
        equal(self.tunnel.run_ssh("echo next").stdout, "next\n", "the next ssh")

    def check_quiet(self):
        def logged():
            return [text for _, _, text in sessions.log_lines(self.tunnel.service)]

        if sessions.events(logged(), "session interrupted") >= 5:
            # More lines than these would be summed up, and reported after a minute.
            time.sleep(61)
        lines = logged()
        interruptions = sessions.events(lines, "session interrupted")
        # One for each target, and once more for one that reaches the device before it runs again.
        check(interruptions <= 8, f"{interruptions} interruptions")
        attempts = sessions.events(lines, "still interrupted")
        print(f"        {self.tunnel.name}: {interruptions} interruptions, {attempts} attempts that failed")
        lost = [text for text in lines if "session lost" in text]
        check(not lost, f"{lost[:1]}")

    def close(self):
        self.shell.__exit__()
        self.poll.close()


def clocks(lab, with_timers):
    faketime = harness.need("faketime")
    library = lab.run([faketime, "-f", "+0", "env"]).stdout
    library = next(line.split("=", 1)[1] for line in library.splitlines() if line.startswith("LD_PRELOAD="))
    for who in ("service", "device"):
        clock = pathlib.Path(lab.folder / f"clock-{who}")
        clock.write_text("+0\n")
        environment = {
            "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "0" if with_timers else "1",
        }  # fmt: skip
        name = f"{who}-{'all' if with_timers else 'wall'}"
        tunnel = sessions.Tunnel(lab, name=name, log_level="debug", **{f"{who}_env": environment})
        with tunnel.shell() as shell:
            equal(shell.ask("state=kept && echo $state"), "kept", "the state before")
            for jump in (JUMP,) if with_timers else (JUMP, "+0"):
                clock.write_text(f"{jump}\n")
                equal(shell.ask("echo $state"), "kept", f"the state after {jump}")
                # New tokens are needed now.
                began = tunnel.kill_hub(1)
                equal(shell.ask("echo $state"), "kept", f"the state after {jump} and another hub")
                print(f"        {who}, {jump}: the shell answers {time.monotonic() - began:.2f} s after the hub's return")
                check(time.monotonic() - began < BACK_SECONDS, "that took too long")
        tunnel.close()


if __name__ == "__main__":
    harness.run(main)
