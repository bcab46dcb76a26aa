#!/usr/bin/env python3
"""Faults: processes killed, keys and certificates that do not match, ports in use, devices
disabled, two hundred clients at once, readers that stop. Each ends in a clear error or an aborted
connection, never in a hang, and disturbs nothing else."""

import base64
import concurrent.futures
import contextlib
import errno
import os
import queue
import re
import signal
import socket
import threading
import time

import harness
from harness import DEVICE, check, echoes, equal

ABORT_SECONDS = 15  # until the other ends of a killed program's tunnels are closed
FROZEN_SECONDS = 30  # until pings have detected a lost peer
RECOVERY_SECONDS = 15  # until idle proxies are back after the hub is
REVOKE_SECONDS = 2  # the documented limit is one second; a busy machine gets another
AT_ONCE = 200
IDLE_SECONDS = 45  # until idle HTTP connections are closed


def main(lab):
    # What a fault does to a plain stream; suite `session` checks what it does to a session.
    os.environ["SERVICE_PROXY_SESSION"] = "never"
    hub = harness.Hub(lab).start()
    target = harness.TcpServer(harness.echo_back)
    device_string = hub.create_device()
    options = ["--target", f"127.0.0.1:{target.port}"]
    device = hub.device_proxy(device_string, *options)
    service, [port] = hub.listen("TestStream")
    check(echoes(port), "the first connection")

    with lab.step(f"{AT_ONCE} connections at once through one listener"):
        processes = (hub.process, device, service)
        before = [process.open_files() for process in processes]
        many_at_once(port)
        for process, files in zip(processes, before):
            lets_go(process, files)

    with lab.step("a reader that stops stops the writer, and memory stays flat"):
        backpressure(hub)

    with lab.step("a target that refuses costs one connection, not the listener"):
        refused = harness.free_port()
        hub.device_proxy(hub.create_device("Refuses"), "--target", f"127.0.0.1:{refused}", name="device-refuses")
        listener, [refusing] = hub.listen("", device="Refuses", name="service-refuses")
        for _ in range(2):
            is_ended(refusing)
        listener.wait_for(r"(?i)reject")
        check(listener.running(), "the listener ended")

    kills(lab, hub)
    frozen(lab, hub)
    idle_recovery(lab, hub)
    revocation(lab, hub)
    clocks(lab)
    wrong_input(lab, hub, device_string)

    with lab.step("after all this the first tunnel still works"):
        harness.wait_until(lambda: tries(port), RECOVERY_SECONDS, "an echo")
    target.close()


# --- Many at once, and readers that stop


def many_at_once(port):
    start = threading.Barrier(AT_ONCE, timeout=30)

    def one(number):
        payload = f"{number:08d}".encode() * 4096
        start.wait()
        return echoes(port, payload, timeout=60)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        check(all(pool.map(one, range(AT_ONCE))), "a connection got other bytes back")


def lets_go(process, files):
    harness.wait_until(
        lambda: process.open_files() <= files + 4, IDLE_SECONDS, f"{process.name} has again about {files} files open"
    )


def backpressure(hub):
    sent = [0]

    def flood(connection):
        block = b"x" * 65536
        while True:
            sent[0] += connection.send(block)

    flooding = harness.TcpServer(flood)
    string = hub.create_device("Floods")
    device = hub.device_proxy(string, "--target", f"127.0.0.1:{flooding.port}", name="device-floods")
    service, [port] = hub.listen("", device="Floods", name="service-floods")
    processes = [hub.process, device, service]
    before = [process.resident_mib() for process in processes]
    with harness.connect(port) as connection:
        quiet_since, last = time.monotonic(), -1

        def stalled():
            nonlocal quiet_since, last
            if sent[0] != last:
                quiet_since, last = time.monotonic(), sent[0]
            check(sent[0] < 256 * harness.MIB, f"{sent[0] / harness.MIB:.0f} MiB were taken though nobody reads")
            return sent[0] and time.monotonic() - quiet_since > 2

        harness.wait_until(stalled, 60, "the writer is stopped")
        for process, earlier in zip(processes, before):
            grown = process.resident_mib() - earlier
            check(grown < 32, f"{process.name} grew by {grown:.0f} MiB for one connection")
        stopped_at = sent[0]
        harness.receive_exactly(connection, stopped_at + 4 * harness.MIB)
    flooding.close()


# --- Kills while data flows


class Flow:
    """One tunnel with endless data in both directions, which records how each side ended."""

    def __init__(self, hub, device, device_string):
        self.at_target = queue.Queue()
        self.server = harness.TcpServer(lambda connection: self.at_target.put(flow_until_end(connection)))
        self.device = hub.device_proxy(device_string, "--target", f"127.0.0.1:{self.server.port}", name="device-flow")
        self.service, [port] = hub.listen("", device=device, name="service-flow")
        self.at_client = queue.Queue()
        client, received = harness.connect(port), [0]
        threading.Thread(target=lambda: self.at_client.put(flow_until_end(client, received)), daemon=True).start()
        harness.wait_until(lambda: received[0] > 4 * harness.MIB, 30, "data flows")

    def ending(self, side):
        ends = {"client": self.at_client, "target": self.at_target}[side]
        try:
            return ends.get(timeout=ABORT_SECONDS)
        except queue.Empty:
            raise harness.Failure(f"the {side}'s connection still hangs after {ABORT_SECONDS} s") from None

    def close(self):
        self.server.close()
        self.device.stop()
        self.service.stop()


def flow_until_end(connection, received=None):
    """Writes and reads until the end. The kernel reports an abort once, to the writer or to the
    reader, and distinguishes it from writing into a closed connection (EPIPE)."""
    seen = []

    def write():
        try:
            while True:
                connection.send(b"y" * 65536)
        except OSError as error:
            seen.append(error.errno)

    connection.settimeout(60)
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    ending = how_it_ends(connection, received)
    if ending == "closed":
        writer.join(2)
        return "reset" if errno.ECONNRESET in seen else "closed"
    return ending


def how_it_ends(connection, received=None):
    """`reset` or `closed`: to the reader of a file, the difference between a failed and a complete
    transfer."""
    try:
        while data := connection.recv(65536):
            if received is not None:
                received[0] += len(data)
        return "closed"
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return "reset" if error.errno == errno.ECONNRESET else "closed"


def is_ended(port):
    """A new connection is not left hanging; it may be gone before `connect` has returned."""
    try:
        with harness.connect(port) as connection:
            check(how_it_ends(connection) != "nothing", "the connection hangs")
    except ConnectionResetError:
        pass


def kills(lab, hub):
    # Two device-proxies of one identity would displace each other: this one has its own.
    device_string = hub.create_device("Killed")
    for victim, aborted in (
        ("device-proxy", ["client"]),
        ("service-proxy", ["target"]),
        ("hub", ["client", "target"]),
    ):
        with lab.step(f"kill -9 of {victim} while data flows: the other ends are aborted"):
            flow = Flow(hub, "Killed", device_string)
            try:
                {"device-proxy": flow.device, "service-proxy": flow.service, "hub": hub.process}[victim].kill()
                for side in aborted:
                    equal(flow.ending(side), "reset", f"end of the {side}'s connection")
            finally:
                flow.close()
                if victim == "hub":
                    hub.start()
    with lab.step("what was acknowledged before the kill is still there"):
        hub.create_device("Durable")
        hub.process.kill()
        hub.start()
        names = hub.cli("device", "list")
        for name in (DEVICE, "Killed", "Durable"):
            check(name in names, f"{name} is not in the list: {names}")


# --- Processes that hang, and links that are dead: connections that neither side ends


def frozen(lab, hub):
    ends = queue.Queue()
    target = harness.TcpServer(lambda connection: ends.put(flow_of_echoes(connection)))

    def tunnel(name):
        string = hub.create_device(name)
        device = hub.device_proxy(string, "--target", f"127.0.0.1:{target.port}", name=f"device-{name}")
        service, [port] = hub.listen("", device=name, name=f"service-{name}")
        connection = harness.connect(port, FROZEN_SECONDS)
        connection.sendall(b"ping")
        harness.receive_exactly(connection, 4)
        return device, service, port, connection

    def ends_at_target():
        try:
            return ends.get(timeout=FROZEN_SECONDS)
        except queue.Empty:
            raise harness.Failure("the target's connection hangs") from None

    with lab.step("a frozen proxy: the other end of an idle tunnel is aborted"):
        device, *_, at_client = tunnel("Frozen-device")
        _, service, _, kept = tunnel("Frozen-service")
        for process in (device, service):
            process.signal(signal.SIGSTOP)
        equal(how_it_ends(at_client), "reset", "end of the client's connection to a frozen device-proxy")
        equal(ends_at_target(), "reset", "end of the target's connection from a frozen service-proxy")
        kept.close()
        for process in (device, service):
            process.kill()

    with lab.step("a frozen hub: both ends of an idle tunnel are aborted, and all is well when it thaws"):
        _, _, port, at_client = tunnel("Frozen-hub")
        while not ends.empty():
            ends.get()
        hub.process.signal(signal.SIGSTOP)
        try:
            equal(how_it_ends(at_client), "reset", "end of the client's connection")
            equal(ends_at_target(), "reset", "end of the target's connection")
        finally:
            hub.process.signal(signal.SIGCONT)
        harness.wait_until(lambda: tries(port), RECOVERY_SECONDS, "a new connection")
    target.close()


def flow_of_echoes(connection):
    with contextlib.suppress(OSError):
        connection.settimeout(60)
        while data := connection.recv(65536):
            connection.sendall(data)
        return "closed"
    return "reset"


# --- The hub comes back


def tries(port, timeout=5):
    with contextlib.suppress(OSError, harness.Failure):
        return echoes(port, timeout=timeout)
    return False


def idle_recovery(lab, hub):
    echo = harness.TcpServer(harness.echo_back)
    ports = {}
    for transport in ("mqtt-ws", "mqtt"):
        name = f"Idle-{transport}"
        arguments = ["--target", f"127.0.0.1:{echo.port}", "--transport", transport]
        if transport == "mqtt":
            arguments += ["--mqtts-port", hub.mqtts]
        device = hub.device_proxy(hub.create_device(name), *arguments, name=f"device-{transport}")
        service, [port] = hub.listen("", device=name, name=f"service-{transport}")
        ports[transport] = (port, device, service)

    with lab.step("a hub killed and restarted under idle proxies: both recover"):
        for transport, (port, *_) in ports.items():
            check(echoes(port), f"no echo over {transport} before the kill")
        hub.process.kill()
        hub.start()
        started = time.monotonic()
        for transport, (port, *_) in ports.items():
            left = RECOVERY_SECONDS - (time.monotonic() - started)
            harness.wait_until(lambda: tries(port), max(left, 0.1), f"a new connection over {transport}")

    with lab.step("a hub that stays away for a while costs connections, not the proxies"):
        hub.process.kill()
        for _, (port, _, service) in ports.items():
            is_ended(port)
        hub.start()
        started = time.monotonic()
        for transport, (port, device, service) in ports.items():
            check(device.running() and service.running(), "a proxy ended")
            left = 2 * RECOVERY_SECONDS - (time.monotonic() - started)
            harness.wait_until(lambda: tries(port), max(left, 0.1), f"a new connection over {transport}")
    for _, device, service in ports.values():
        device.stop()
        service.stop()
    echo.close()


# --- Rights revoked


def revocation(lab, hub):
    echo = harness.TcpServer(harness.echo_back)
    connection_string = hub.create_device("Revoked")
    device = hub.device_proxy(connection_string, "--target", f"127.0.0.1:{echo.port}", name="device-revoked")
    _, [port] = hub.listen("", device="Revoked", name="service-revoked")

    def tunnel_ends_on(command):
        with harness.connect(port) as connection:
            connection.sendall(b"ping")
            harness.receive_exactly(connection, 4)
            hub.cli("device", command, "Revoked")
            started = time.monotonic()
            equal(how_it_ends(connection), "reset", f"end of the tunnel after {command}")
            taken = time.monotonic() - started
            check(taken < REVOKE_SECONDS, f"the tunnel lived on for {taken:.1f} s after {command}")

    with lab.step("a disabled device loses its session and its streams at once"):
        tunnel_ends_on("disable")
        result = hub.echo("--count", "1", "--stream", "x", "--connect-timeout", "1", device="Revoked")
        check(result.returncode != 0, "a stream to a disabled device was opened")
        check(device.running(), f"device-proxy gave up: {device.tail()}")

    with lab.step("an enabled device is back by itself"):
        hub.cli("device", "enable", "Revoked")
        harness.wait_until(lambda: tries(port, 40), 120, "an echo")

    with lab.step("a deleted device loses its session and its streams at once"):
        tunnel_ends_on("delete")
        result = hub.echo("--count", "1", "--stream", "x", "--connect-timeout", "1", device="Revoked")
        check(result.returncode != 0, "a stream to a deleted device was opened")
    echo.close()


# --- Clocks


def clocks(lab):
    with lab.step("a device whose clock is hours behind is told so, and goes on trying"):
        faketime = harness.need("faketime")
        hub = harness.Hub(lab, "hub-of-the-future").start()
        device_string = hub.create_device()
        hub.process.stop()
        # Seen from this hub every token of the device has expired; its certificate is older than that.
        hub.start(under=[faketime, "--exclude-monotonic", "-f", "+3h"])
        device = hub.device_proxy(device_string, "--echo", name="device-behind")
        device.wait_for(r"(?i)clock is .*behind")
        check(device.running(), f"device-proxy gave up: {device.tail()}")
        # The same device with a clock long before the certificate was made: no battery, before NTP.
        past = [faketime, "--exclude-monotonic", "-f", "-8760h"]
        early = hub.device_proxy(device_string, "--echo", name="device-unset", under=past)
        early.wait_for(r"(?i)not valid yet.*clock")
        check(early.running(), f"device-proxy gave up: {early.tail()}")
        for process in (device, early, hub.process):
            process.stop()


# --- Wrong input: one sentence and a non-zero exit code


def wrong_input(lab, hub, device_string):
    service_string = hub.service_string()
    other_key = base64.b64encode(os.urandom(32)).decode()
    lab.secrets.add(other_key)

    def replaced(text, key, value):
        return re.sub(rf"{key}=[^;]*", f"{key}={value}", text)

    def device(string, *arguments, ca=hub.ca):
        file = lab.secret_file("wrong-device", string)
        arguments = arguments or ("localhost", "9")
        return ["device-proxy", "--connection-string-file", file, "--ca-file", ca, *arguments]

    def service(string, *arguments, ca=hub.ca):
        file = lab.secret_file("wrong-service", string)
        arguments = arguments or ("echo", DEVICE, "--count", "1")
        return ["service-proxy", "--connection-string-file", file, "--ca-file", ca, *arguments]

    def refused(title, argv, *words):
        with lab.step(title):
            result = harness.output_of(*argv, timeout=40)
            said = result.stderr + result.stdout
            check(result.returncode != 0, f"exit code 0; it said {said!r}")
            lines = [line for line in result.stderr.splitlines() if line.strip()]
            check(0 < len(lines) <= 4, f"{len(lines)} lines instead of a sentence: {result.stderr[-600:]!r}")
            check("panicked" not in said, f"a panic: {said!r}")
            for word in words:
                check(re.search(word, said, re.IGNORECASE), f"no word of {word!r} in {said!r}")
            for secret in lab.secrets:
                check(secret not in said, "a key is in the message")

    other_hub = harness.Hub(lab, "other-hub").start()
    taken = socket.create_server(("127.0.0.1", 0))
    taken_port = taken.getsockname()[1]

    refused("device-proxy with a wrong key", device(replaced(device_string, "SharedAccessKey", other_key)), "key|refus")
    refused(
        "device-proxy for an unknown device", device(replaced(device_string, "DeviceId", "Nobody")), "refus|unknown"
    )
    hub.create_device("Off")
    hub.cli("device", "disable", "Off")
    off = hub.cli("device", "connection-string", "Off")
    refused("device-proxy for a disabled device", device(off), "disabled")
    refused("device-proxy with a service's string", device(service_string), "service|DeviceId")
    refused("service-proxy with a device's string", service(device_string), "device|SharedAccessKeyName")
    wrong = replaced(service_string, "SharedAccessKey", other_key)
    refused("service-proxy with a wrong key", service(wrong), "key|401|unauthori[sz]ed|refus")
    refused("device-proxy with another CA", device(device_string, ca=other_hub.ca), "certificate")
    refused("service-proxy with another CA", service(service_string, ca=other_hub.ca), "certificate")
    refused("device-proxy with a CA file that is none", device(device_string, ca=os.devnull), "ca|certificate")
    unknown = service(service_string, "echo", "Nobody", "--count", "1")
    refused("service-proxy for an unknown device", unknown, "unknown|not found|no device")
    offline = service(service_string, "echo", "Off", "--count", "1", "--connect-timeout", "1")
    refused("service-proxy for a device that is offline", offline, "online|offline|connect")
    listen = service(service_string, "listen", DEVICE, str(taken_port))
    refused("service-proxy on a port in use", listen, str(taken_port))
    serve = ["stream-hub", "serve", "--data-dir", lab.folder / "third", "--https", f"127.0.0.1:{taken_port}"]
    refused("stream-hub on a port in use", [*serve, "--mqtts", "off"], str(taken_port))
    for title, string, *words in (
        ("empty", "", "connection string"),
        ("without a host", replaced(device_string, "HostName", "").replace("HostName=;", ""), "HostName"),
        ("without a key", re.sub(r";SharedAccessKey=.*", "", device_string), "SharedAccessKey"),
        ("with a key that is not base64", replaced(device_string, "SharedAccessKey", "%%%"), "SharedAccessKey"),
        ("with a key twice", f"{device_string};DeviceId=Two", "DeviceId"),
        ("of words", "this is no connection string", "connection string|HostName"),
    ):
        refused(f"a connection string {title}", device(string), *words)
    taken.close()
    other_hub.process.stop()


if __name__ == "__main__":
    harness.run(main)
