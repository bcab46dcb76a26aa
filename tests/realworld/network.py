#!/usr/bin/env python3
"""Simulated networks for a suite: a service, a hub and a device, each in a network namespace of its
own, and two links of known delay and rate between them that can be frozen and cut.

    with network.World(lab, delay_ms=25) as world:
        hub = harness.Hub(lab, **world.hub_options).start()
        hub.device_proxy(string, "--echo", under=world.device.exec_prefix)
        world.device_link.cut()

The links are `stream-link` processes between the TUN interfaces of two namespaces. Run by hand,
this file creates such a network and measures it:

    python3 tests/realworld/network.py --delay-ms 60 --rate 1gbit
"""

import argparse
import contextlib
import ctypes
import ipaddress
import itertools
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time

import harness
from harness import Failure, Impossible, Skip, check

HUB_ADDRESS = "10.77.0.1"
HUB_NAME = "hub.stream.test"
SERVICE_NET = ipaddress.ip_network("10.77.1.0/30")
DEVICE_NET = ipaddress.ip_network("10.77.2.0/30")

CLONE_NEWNET = 0x40000000
ANSWER_SECONDS = 10
NAME = re.compile(r"streams-(\d+)-\d+-\w+")
worlds = itertools.count()


class World:
    """Namespaces `service`, `hub` and `device`; links `service_link` and `device_link` from the hub
    to the others. On exit all of it is removed, with the programs in it.

    `rate` is that of each link, like "100mbit"; `tcp_memory_mib` raises the limit of the kernels'
    windows, which one fast connection over a long link needs; `congestion` selects the kernels'
    congestion control, by default the machine's."""

    def __init__(self, lab, delay_ms=0, rate=None, mtu=1500, queue=None, tcp_memory_mib=None, congestion=None):
        self.lab = lab
        self.options = {"delay_ms": delay_ms, "rate": rate, "mtu": mtu, "queue": queue}
        self.tcp_memory_mib = tcp_memory_mib
        self.congestion = congestion
        self.hub_address = HUB_ADDRESS
        self.hub_name = HUB_NAME
        self.stack = contextlib.ExitStack()

    @property
    def hub_options(self):
        """For `harness.Hub`."""
        return {"hostname": self.hub_name, "listen": self.hub_address, "under": self.hub.exec_prefix}

    def __enter__(self):
        if os.geteuid() != 0:
            raise Skip("network namespaces need root")
        if not os.path.exists("/dev/net/tun"):
            raise Impossible("there is no /dev/net/tun here: the kernel's module `tun` is not loaded")
        harness.need("ip")
        harness.binary("stream-link")
        try:
            remove_leftovers()
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        # A second signal must not interrupt the removal.
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            self.stack.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _build(self):
        number = next(worlds)
        for role in ("service", "hub", "device"):
            namespace = Namespace(f"streams-{os.getpid()}-{number}-{role}")
            self.stack.callback(namespace.remove)
            namespace.make({"localhost": "127.0.0.1", self.hub_name: self.hub_address})
            if self.tcp_memory_mib:
                most = self.tcp_memory_mib * harness.MIB
                namespace.set("net/ipv4/tcp_rmem", f"4096 131072 {most}")
                namespace.set("net/ipv4/tcp_wmem", f"4096 16384 {most}")
            if self.congestion:
                namespace.set("net/ipv4/tcp_congestion_control", self.congestion)
            setattr(self, role, namespace)
        self.stack.callback(self._stop_inhabitants)
        # Only the hub can reach the service and the device.
        self.hub.set("net/ipv4/ip_forward", "0")
        self.hub.ip("address", "add", f"{self.hub_address}/32", "dev", "lo")
        self.service_link = self._line("s", self.service, SERVICE_NET, number)
        self.device_link = self._line("d", self.device, DEVICE_NET, number)

    def _line(self, letter, namespace, net, number):
        near, far = map(str, net.hosts())
        names = [f"l{os.getpid()}n{number}{letter}{end}" for end in "nf"]
        link = Link(f"link-{namespace.role}", self.lab, names, **self.options)
        self.stack.callback(link.stop)
        link.start()
        for owner, name, final, address in (
            (namespace, names[0], "hub", near),
            (self.hub, names[1], namespace.role, far),
        ):
            run_ip("link", "set", name, "netns", owner.name, "name", final)
            # Its router solicitations would be unexpected packets.
            owner.set(f"net/ipv6/conf/{final}/disable_ipv6", "1", needed=False)
            owner.ip("address", "add", f"{address}/{net.prefixlen}", "dev", final)
            owner.ip("link", "set", final, "up")
        namespace.ip("route", "add", f"{self.hub_address}/32", "dev", "hub", "src", near)
        namespace.address = near
        return link

    def _stop_inhabitants(self):
        prefixes = [space.exec_prefix for space in (self.service, self.hub, self.device)]
        for process in reversed(self.lab.processes):
            if process.popen.args[:4] in prefixes:
                process.stop()


class Namespace:
    """A network namespace; `address` is where the hub's side reaches it."""

    def __init__(self, name):
        self.name = name
        self.role = name.rpartition("-")[2]
        self.exec_prefix = [harness.need("ip"), "netns", "exec", name]
        self.address = HUB_ADDRESS

    def make(self, hosts):
        made = subprocess.run([harness.need("ip"), "netns", "add", self.name], capture_output=True, text=True)
        if made.returncode != 0:
            raise Skip(f"no network namespace can be made here: {made.stderr.strip()}")
        folder = pathlib.Path("/etc/netns") / self.name
        folder.mkdir(parents=True)
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
        self.ip("link", "set", "lo", "up")

    def remove(self):
        subprocess.run([harness.need("ip"), "netns", "del", self.name], capture_output=True)
        shutil.rmtree(pathlib.Path("/etc/netns") / self.name, ignore_errors=True)
        with contextlib.suppress(OSError):  # others may have theirs there
            os.rmdir("/etc/netns")

    def ip(self, *words):
        run_ip("-n", self.name, *words)

    def run(self, argv, timeout=60, **options):
        """Runs a command inside to its end; its result, with text."""
        options.setdefault("stdin", subprocess.DEVNULL)
        try:
            return subprocess.run(
                [*self.exec_prefix, *map(str, argv)], capture_output=True, text=True, timeout=timeout, **options
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{argv[0]} still ran in {self.name} after {timeout:g} s") from None

    @contextlib.contextmanager
    def inside(self):
        """Moves this thread inside; sockets that it creates there stay there."""
        with open("/proc/thread-self/ns/net") as outside, open(f"/run/netns/{self.name}") as there:
            enter(there)
            try:
                yield
            finally:
                enter(outside)

    def connect(self, port, host="127.0.0.1", timeout=40):
        with self.inside():
            return socket.create_connection((host, port), timeout=timeout)

    def serve(self, serve, host="127.0.0.1"):
        """A `harness.TcpServer` inside."""
        with self.inside():
            return harness.TcpServer(serve, host)

    def set(self, setting, value, needed=True):
        """A kernel setting of this namespace, by its path in /proc/sys."""
        with self.inside():
            try:
                pathlib.Path("/proc/sys", setting).write_text(value)
            except OSError:
                if needed:
                    raise

    def ping(self, host, count=20, timeout=1.0):
        """Round trips in seconds, one after the other; None for each that was lost."""
        with self.inside():
            icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with icmp:
            return [one_ping(icmp, host, number, timeout) for number in range(count)]


class Link:
    """A link, as `stream-link` creates it. A direction is "forward" from the service or the device
    to the hub, "backward", or None for both."""

    def __init__(self, name, lab, names, delay_ms, rate, mtu, queue):
        self.log = lab.logs / f"{name}.stderr"
        self.argv = [harness.binary("stream-link"), *names, "--delay", f"{delay_ms}ms"]
        self.argv += ["--rate", rate or "none", "--mtu", str(mtu)]
        self.argv += ["--queue", str(queue)] if queue else []
        self.process = None
        self.pending = b""

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                list(map(str, self.argv)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        said = self._line()
        if said != "ready":
            raise Impossible(self.log.read_text().strip() or "stream-link does not start")

    def stop(self):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()

    def freeze(self, direction=None):
        """Packets are dropped silently, those in flight too."""
        self.command("freeze", direction)

    def thaw(self, direction=None):
        self.command("thaw", direction)

    def set_delay(self, delay_ms, direction=None):
        self.command("delay", f"{delay_ms}ms", direction)

    def set_rate(self, rate, direction=None):
        """Like "100mbit"; None for as fast as it goes."""
        self.command("rate", rate or "none", direction)

    def cut(self):
        """Both ends of each TCP connection receive a reset at once; new ones are refused."""
        self.command("cut")

    def mend(self):
        self.command("mend")

    def stats(self):
        """Counters: `connections`, and for each direction `forward_packets` and so on."""
        return {name: int(value) for name, _, value in (word.partition("=") for word in self.command("stats").split())}

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def command(self, *words):
        line = " ".join(word for word in words if word)
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failure(f"stream-link ended: {self.log.read_text().strip()}") from None
        verdict, _, rest = self._line().partition(" ")
        check(verdict == "ok", f"stream-link does not take {line!r}: {rest or self.log.read_text().strip()}")
        return rest

    def _line(self):
        deadline = time.monotonic() + ANSWER_SECONDS
        while b"\n" not in self.pending:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            check(readable, f"stream-link does not answer within {ANSWER_SECONDS} s")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                return ""
            self.pending += piece
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode()


def remove_leftovers():
    """Removes what a killed suite left behind."""
    for path in pathlib.Path("/run/netns").glob("streams-*"):
        match = NAME.fullmatch(path.name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            Namespace(path.name).remove()


def run_ip(*words):
    result = subprocess.run([harness.need("ip"), *words], capture_output=True, text=True)
    check(result.returncode == 0, f"ip {' '.join(words)}: {result.stderr.strip()}")


def enter(namespace_file):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace_file.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"a network namespace cannot be entered: {os.strerror(ctypes.get_errno())}")


# --- Measuring


def one_ping(icmp, host, number, timeout):
    def checksum(data):
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        total = (total & 0xFFFF) + (total >> 16)
        return ~(total + (total >> 16)) & 0xFFFF

    key = os.urandom(8)
    body = struct.pack("!HH", os.getpid() & 0xFFFF, number) + key
    header = struct.pack("!BBH", 8, 0, 0)
    packet = struct.pack("!BBH", 8, 0, checksum(header + body)) + body
    sent = time.perf_counter()
    icmp.sendto(packet, (host, 0))
    while (left := sent + timeout - time.perf_counter()) > 0:
        icmp.settimeout(left)
        try:
            answer = icmp.recv(2048)
        except TimeoutError:
            break
        if answer[20:21] == b"\0" and key in answer:
            return time.perf_counter() - sent
    return None


def throughput(sender, receiver, address, seconds=4.0, warm_up=1.5):
    """Payload in bit/s of one TCP connection, seen by the receiver after a warm-up."""
    received, ended = [0], threading.Event()

    def sink(connection):
        scrap = bytearray(harness.MIB)
        while not ended.is_set() and (count := connection.recv_into(scrap)):
            received[0] += count

    def send(connection):
        block = memoryview(bytes(harness.MIB))
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection.send(block)

    server = receiver.serve(sink, address)
    try:
        with sender.connect(server.port, address) as connection:
            thread = threading.Thread(target=send, args=(connection,), daemon=True)
            thread.start()
            time.sleep(warm_up)
            began, before = time.perf_counter(), received[0]
            time.sleep(seconds)
            bits = (received[0] - before) * 8 / (time.perf_counter() - began)
            ended.set()
            # Not an orderly end: megabytes may still be in flight.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)
        return bits
    finally:
        server.close()


def measure(lab):
    options = argparse.ArgumentParser(description="Makes a world and measures it.")
    options.add_argument("--delay-ms", type=float, default=25)
    options.add_argument("--rate")
    options.add_argument("--mtu", type=int, default=1500)
    options.add_argument("--tcp-memory-mib", type=int)
    options.add_argument("--seconds", type=float, default=5)
    chosen = options.parse_args()
    settings = {name: value for name, value in vars(chosen).items() if name != "seconds"}
    with World(lab, **settings) as world:
        for title, namespace, link in (
            ("service", world.service, world.service_link),
            ("device", world.device, world.device_link),
        ):
            with lab.step(f"the line between {title} and hub"):
                trips = [trip for trip in namespace.ping(world.hub_address) if trip is not None]
                check(trips, "no ping comes back")
                print(f"        round trip {statistics.median(trips) * 1e3:.2f} ms, at most {max(trips) * 1e3:.2f} ms")
                idle = link.cpu_seconds()
                time.sleep(1)
                idle = link.cpu_seconds() - idle
                busy, began = link.cpu_seconds(), time.monotonic()
                bits = throughput(namespace, world.hub, world.hub_address, chosen.seconds)
                busy = (link.cpu_seconds() - busy) / (time.monotonic() - began)
                print(f"        one TCP connection {bits / 1e6:.1f} Mbit/s; CPU {busy:.0%}, idle {idle:.0%}")
                print(f"        {link.stats()}")


if __name__ == "__main__":
    harness.run(measure)
