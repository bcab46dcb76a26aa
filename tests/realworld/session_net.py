#!/usr/bin/env python3
"""Session mode over long links: 50 ms of round trip on either side of the hub. Copies and shells
survive a link that is cut or frozen. Measures how soon that is detected, how soon bytes flow again,
and how long opening a connection takes."""

import contextlib
import itertools
import statistics
import threading
import time

import harness
import network
import sessions
from harness import FULL, VOLUME_MIB, check, equal

DELAY_MS = 25
LEG = 2 * DELAY_MS / 1000  # a round trip on one side of the hub
END_TO_END = 2 * LEG

CUT_SECONDS = 30 if FULL else 6
# The other end's silence must be detected meanwhile, which takes up to 20 s.
FREEZE_SECONDS = 30 if FULL else 25
NOTICED_SECONDS = 20

LATER_SLACK = 0.005  # of a later connection, beyond one round trip from end to end
BACK_SLACK = 0.1  # and this many round trips of one side:
BACK_TRIPS = {"service": 8, "device": 12}  # the device's hub session is lost with its link
CUT_ROUNDS = 8 if FULL else 4
FREEZE_ROUNDS = 3 if FULL else 1
CONNECTIONS = 30


def main(lab):
    harness.need("ss")
    with network.World(lab, delay_ms=DELAY_MS) as world:
        opening(lab, world)
    with network.World(lab, delay_ms=DELAY_MS) as world:
        plain_opening(lab, world)

    original = harness.random_file(lab.folder / "original", VOLUME_MIB)
    with contextlib.ExitStack() as stack:
        cases = []
        # The networks are created one after the other, since names are given in that order.
        for line, fault in itertools.product(("service", "device"), ("cut", "freeze")):
            world = stack.enter_context(network.World(lab, delay_ms=DELAY_MS))
            cases.append(Case(lab, world, line, fault, original))
        threads = [threading.Thread(target=case.run, name=case.name) for case in cases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for case in cases:
            case.tunnel.close()


# --- Opening


def opening(lab, world):
    tunnel = sessions.Tunnel(lab, world, "opening", with_ssh=False)
    time.sleep(1)  # service-proxy has asked for the device's twin
    with lab.step("the first connection, to its first echoed byte"):
        began = time.time()
        first = sessions.first_echo(tunnel)
        print(f"        {first * 1000:.1f} ms, {first / LEG:.1f} round trips of {LEG * 1000:.0f} ms")
        sessions.timeline(tunnel, began, began + first, "what happened meanwhile")

    with lab.step(f"{CONNECTIONS} later ones: one round trip from end to end, and nothing to the hub's REST endpoint"):
        connections = world.service_link.stats()["connections"]
        with sessions.nothing_to_rest(tunnel):
            later = [sessions.first_echo(tunnel) for _ in range(CONNECTIONS)]
        equal(world.service_link.stats()["connections"], connections, "TCP connections on the line")
        later.sort()
        median = statistics.median(later)
        print(
            f"        median {median * 1000:.1f} ms, {later[0] * 1000:.1f} to {later[-1] * 1000:.1f};"
            f" the line takes {END_TO_END * 1000:.0f} ms"
        )
        check(later[0] >= END_TO_END - 0.001, "a byte was faster than the line")
        check(median <= END_TO_END + LATER_SLACK or not FULL, "a later connection takes more than a round trip and 5 ms")
    tunnel.close()


def plain_opening(lab, world):
    tunnel = sessions.Tunnel(lab, world, "plain", with_ssh=False, arguments=["--session", "never"])
    with lab.step("plain streams, each opened through the hub, to their first echoed bytes"):
        for which in ("the first", "the second"):
            began = time.time()
            took = sessions.first_echo(tunnel)
            print(f"        {which}: {took * 1000:.1f} ms, {took / LEG:.1f} round trips of {LEG * 1000:.0f} ms")
            sessions.timeline(tunnel, began, began + took, "what happened meanwhile")
        check(took >= END_TO_END - 0.001, "a byte was faster than the line")
    tunnel.close()


# --- Links that fail


class Case:
    """One simulated network, one of its links, and what happens to that link."""

    def __init__(self, lab, world, line, fault, original):
        self.lab, self.line, self.fault, self.original = lab, line, fault, original
        self.name = f"{line}-{fault}"
        self.link = getattr(world, f"{line}_link")
        self.tunnel = sessions.Tunnel(lab, world, self.name)

    def run(self):
        seconds = CUT_SECONDS if self.fault == "cut" else FREEZE_SECONDS
        done = {"cut": "cut", "freeze": "frozen"}[self.fault]
        title = f"the line between {self.line} and hub {done}"
        with self.lab.step(f"{title} for {seconds} s: scp both ways ({VOLUME_MIB} MiB) and a shell go on"):
            self.survive(seconds)
        with self.lab.step(f"{title}: how soon bytes flow again"):
            self.recover()

    def survive(self, seconds):
        tunnel = self.tunnel
        copies = [
            tunnel.copy(self.original, to_device, f"{way}-device") for way, to_device in (("to", True), ("from", False))
        ]
        with tunnel.shell() as shell:
            equal(shell.ask("cd /usr/lib && state=kept && echo $state"), "kept", "the state before")
            for copy in copies:
                copy.wait_for_middle(16)
            with self.broken():
                for copy in copies:
                    copy.check_middle()
                shell.type("echo $state in $PWD")
                began = time.time()
                time.sleep(seconds)
            mended = time.monotonic()
            equal(shell.answer(), "kept in /usr/lib", "the state after")
            print(f"        {self.name}: the shell answers {time.monotonic() - mended:.2f} s after the line is back")
            self.print_noticed(began)
            for copy in copies:
                copy.check_end()
            equal(shell.ask("echo $((6 * 7))"), "42", "what the shell is asked then")

    def recover(self):
        tunnel, back, fresh = self.tunnel, [], []
        with tunnel.pulse() as pulse:
            for number in range(CUT_ROUNDS if self.fault == "cut" else FREEZE_ROUNDS):
                time.sleep(2)
                check(pulse.usual() < END_TO_END + 0.05, f"an echo takes {pulse.usual():.3f} s before the fault")
                began = time.time()
                with self.broken():
                    time.sleep(1 + number / 2 if self.fault == "cut" else NOTICED_SECONDS + 1 + number)
                    mended, mended_at = time.monotonic(), time.time()
                first, of_later = pulse.after(mended)
                back.append(first)
                fresh.append(of_later)
                self.print_noticed(began)
                if number == 0 or first > self.allowed:
                    sessions.timeline(
                        tunnel, mended_at - 0.1, mended_at + first + 0.05, f"{self.name}, the line is back after 100 ms"
                    )
        print(f"        {self.name}: first byte, {sessions.milliseconds(back)}; at most {self.allowed * 1000:.0f} ms")
        print(f"        {self.name}: echo of a byte sent after the line was back, {sessions.milliseconds(fresh)}")
        check(max(back) <= self.allowed or not FULL, f"it took {max(back) * 1000:.0f} ms, more than {self.allowed * 1000:.0f}")

    @property
    def allowed(self):
        return BACK_TRIPS[self.line] * LEG + BACK_SLACK

    @contextlib.contextmanager
    def broken(self):
        break_it, mend = (self.link.cut, self.link.mend) if self.fault == "cut" else (self.link.freeze, self.link.thaw)
        break_it()
        try:
            yield
        finally:
            mend()

    def print_noticed(self, began):
        """How soon either end detected it; both must do so within 20 s."""
        said = []
        for program, words in (("service-proxy", "session interrupted"), ("device-proxy", "session detached")):
            at = sessions.when(self.tunnel.processes(program), words, began - 0.1)
            check(at, f"{program} noticed nothing")
            said.append(f"{program} after {at - began:.2f} s")
            check(at - began <= NOTICED_SECONDS, f"{program} noticed after {at - began:.1f} s")
        print(f"        {self.name}: noticed by {', by '.join(said)}")


if __name__ == "__main__":
    harness.run(main)
