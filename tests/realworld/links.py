#!/usr/bin/env python3
"""Checks the links that other suites rely on: delay and rate are as configured, a frozen link
delivers nothing and a cut one resets; and hub and proxies work across them."""

import contextlib
import errno
import queue
import statistics
import threading
import time

import harness
import network
from harness import DEVICE, check, equal

DELAY_MS = 25
FREEZE_SECONDS = 3
CUT_SECONDS = 1  # the documented limit, for both ends
ECHO_SECONDS = 20


def main(lab):
    with network.World(lab, delay_ms=DELAY_MS) as world:
        for name, namespace, link in (
            ("service", world.service, world.service_link),
            ("device", world.device, world.device_link),
        ):
            with lab.step(f"the line between {name} and hub takes {DELAY_MS} ms each way, and what it is told then"):
                takes(namespace, world, 2 * DELAY_MS)
                link.set_delay(5)
                takes(namespace, world, 10)
                link.set_delay(40, "forward")
                takes(namespace, world, 45)
                link.set_delay(DELAY_MS)

        with lab.step("a line of 20 Mbit/s carries that much, each way"):
            limited(world)

        with lab.step(f"a line frozen for {FREEZE_SECONDS} s says nothing; TCP survives and goes on"):
            frozen(world)

        with lab.step("a cut line resets both ends of every connection, and refuses new ones until it is mended"):
            cut(world)

        with lab.step("the service and the device do not reach each other"):
            for sender, other in ((world.service, world.device), (world.device, world.service)):
                try:
                    equal(sender.ping(other.address, 1, 0.5), [None], f"a ping to {other.name}")
                except OSError as error:
                    equal(error.errno, errno.ENETUNREACH, f"the error of a ping to {other.name}")

        with lab.step("names lead to the hub in every namespace, and to the right one"):
            for namespace in (world.service, world.hub, world.device):
                found = namespace.run(["getent", "hosts", world.hub_name]).stdout.split()
                equal(found[:1], [world.hub_address], f"the hub's address in {namespace.name}")

        across(lab, world)
    with lab.step("nothing of it is left"):
        check(not list(network.pathlib.Path("/run/netns").glob(f"streams-{network.os.getpid()}-*")), "a namespace")
        names = lab.run([harness.need("ip"), "-brief", "link"]).stdout
        check(f"l{network.os.getpid()}n" not in names, f"an interface: {names}")


def takes(namespace, world, milliseconds):
    trips = [trip for trip in namespace.ping(world.hub_address) if trip is not None]
    check(len(trips) == 20, f"{20 - len(trips)} of 20 pings were lost")
    # A busy machine is late occasionally; a wrong delay is late always.
    median = statistics.median(trips) * 1000
    print(f"        round trip {median:.2f} ms, {min(trips) * 1000:.2f} to {max(trips) * 1000:.2f}")
    check(abs(median - milliseconds) <= 1.5, f"a round trip takes {median:.2f} ms instead of {milliseconds}")
    check(min(trips) * 1000 >= milliseconds - 0.1, f"a packet came early, after {min(trips) * 1000:.2f} ms")


def limited(world):
    world.service_link.set_rate("20mbit")
    try:
        for sender, receiver, address in (
            (world.service, world.hub, world.hub_address),
            (world.hub, world.service, world.service.address),
        ):
            mbit = network.throughput(sender, receiver, address) / 1e6
            print(f"        {mbit:.2f} Mbit/s")
            check(18 <= mbit <= 20, f"{mbit:.2f} Mbit/s of payload instead of 18 to 20")
    finally:
        world.service_link.set_rate(None)


def frozen(world):
    server = world.hub.serve(harness.echo_back, world.hub_address)
    link = world.service_link
    with world.service.connect(server.port, world.hub_address) as connection:
        connection.sendall(b"before")
        harness.receive_exactly(connection, 6)
        link.freeze()
        try:
            before = link.stats()
            connection.sendall(b"during")
            equal(world.service.ping(world.hub_address, 2, FREEZE_SECONDS / 2), [None, None], "pings meanwhile")
            after = link.stats()
            equal(after["forward_packets"], before["forward_packets"], "packets that got through")
            check(after["forward_vanished"] > before["forward_vanished"] + 2, "the line saw no packet at all")
            connection.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                check(False, f"{connection.recv(6)!r} came through a frozen line")
        finally:
            link.thaw()
        connection.settimeout(ECHO_SECONDS)
        began = time.monotonic()
        equal(harness.receive_exactly(connection, 6), b"during", "the echo after the freeze")
        print(f"        it goes on {time.monotonic() - began:.2f} s after the thaw")
    server.close()


def cut(world):
    ends = queue.Queue()

    def watch(connection, name):
        """Waits for the end of a connection; returns its kind and its time."""
        try:
            while connection.recv(65536):
                pass
            ending = "closed"
        except OSError as error:
            ending = errno.errorcode.get(error.errno, str(error))
        ends.put((name, ending, time.monotonic()))

    servers, connections = [], []
    link = world.device_link

    def connect(name, serve):
        server = world.hub.serve(serve, world.hub_address)
        servers.append(server)
        connection = world.device.connect(server.port, world.hub_address)
        connections.append(connection)
        threading.Thread(target=watch, args=(connection, f"{name}'s client"), daemon=True).start()
        return connection

    arrived = [0]

    def flood(connection):
        threading.Thread(target=watch, args=(connection, "the busy one's server"), daemon=True).start()
        with contextlib.suppress(OSError):
            while True:
                arrived[0] += connection.send(b"x" * 65536)

    try:
        connect("the idle one", lambda connection: watch(connection, "the idle one's server")).sendall(b"x")
        connect("the busy one", flood)
        harness.wait_until(lambda: arrived[0] > 4 * harness.MIB, 20, "data flows")
        began = time.monotonic()
        link.cut()
        try:
            for _ in range(4):
                try:
                    name, ending, at = ends.get(timeout=10)
                except queue.Empty:
                    raise harness.Failure("an end of a connection noticed nothing for 10 s") from None
                print(f"        {name}: {ending} after {(at - began) * 1000:.0f} ms")
                # The flooding server may learn it as a writer; its reader then sees the end.
                check(ending == "ECONNRESET" or "busy" in name, f"{name} saw {ending}")
                check(at - began <= CUT_SECONDS, f"{name} noticed after {at - began:.2f} s")
            for server in servers:
                try:
                    world.device.connect(server.port, world.hub_address, timeout=5).close()
                    check(False, "a new connection was made over a cut line")
                except ConnectionRefusedError:
                    pass
            equal(world.device.ping(world.hub_address, 1, 0.3), [None], "a ping over a cut line")
            check(world.service.ping(world.hub_address, 1)[0], "the other line is cut too")
        finally:
            link.mend()
        world.device.connect(servers[0].port, world.hub_address, timeout=5).close()
    finally:
        for one in (*connections, *servers):
            one.close()


def across(lab, world):
    with lab.step("hub and proxies across both lines"):
        hub = harness.Hub(lab, **world.hub_options).start()
        target = world.device.serve(harness.echo_back)
        options = ["--target", f"127.0.0.1:{target.port}"]
        device = hub.device_proxy(hub.create_device(), *options, under=world.device.exec_prefix)
        service, [port] = hub.listen("", under=world.service.exec_prefix)
        device.wait_for(r"(?i)connected|ready|session")
        first = []
        for _ in range(3):
            began = time.monotonic()
            with world.service.connect(port) as connection:
                connection.sendall(b"ping")
                equal(harness.receive_exactly(connection, 4), b"ping", "the echo")
                first.append(time.monotonic() - began)
                began = time.monotonic()
                connection.sendall(b"pong")
                equal(harness.receive_exactly(connection, 4), b"pong", "the second echo")
                second = time.monotonic() - began
        shown = ", ".join(f"{seconds * 1000:.0f}" for seconds in first)
        print(f"        first echoed byte after {shown} ms; a round trip then {second * 1000:.1f} ms")
        # Four times 25 ms is the minimum for two links.
        check(second * 1000 >= 4 * DELAY_MS - 1, "a byte was faster than the lines")

    with lab.step("a cut between hub and device ends a plain tunnel, and a new one works when it is mended"):
        # In a session the connection would wait for the link.
        plain, [port] = hub.listen(
            "", arguments=["--session", "never"], name="service-proxy-plain", under=world.service.exec_prefix
        )
        with world.service.connect(port) as connection:
            connection.sendall(b"ping")
            harness.receive_exactly(connection, 4)
            world.device_link.cut()
            try:
                connection.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    check(not connection.recv(1), "bytes from a device that is cut off")
            finally:
                world.device_link.mend()

        def echoes():
            with contextlib.suppress(OSError, harness.Failure), world.service.connect(port, timeout=5) as connection:
                connection.sendall(b"ping")
                return harness.receive_exactly(connection, 4) == b"ping"

        harness.wait_until(echoes, 60, f"an echo from {DEVICE}")
        programs = (device, service, plain, hub.process)
        check(all(program.running() for program in programs), "a program ended")
        target.close()


if __name__ == "__main__":
    harness.run(main)
