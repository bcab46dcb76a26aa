"""What the suites of session mode share: a tunnel with an sshd behind it, a terminal, a
copy that is watched while it runs, probes that show when bytes flow again, and what the programs'
logs and sockets show."""

import calendar
import contextlib
import os
import pty
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time
import tty

import harness
import openssh
from harness import DEVICE, VOLUME_MIB, Failure, check, equal

PULSE_SECONDS = 0.005
STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d+)Z\s+(\w+) (.*)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Tunnel:
    """Hub, proxies, an sshd and an echo behind them; in a `world`, or on loopback.
    `targets` are further ones, by their names. All programs have `name` in theirs."""

    def __init__(self, lab, world=None, name="", targets=None, log_level="trace", arguments=(), with_ssh=True,
                 service_env=None, device_env=None):
        self.lab, self.world, self.name = lab, world, name
        self.service_under = world.service.exec_prefix if world else []
        self.device_under = world.device.exec_prefix if world else []
        self.log_level = log_level
        self.device_env = device_env
        ending = f"-{name}" if name else ""
        self.ending = ending
        self.echo = world.device.serve(harness.echo_back) if world else harness.TcpServer(harness.echo_back)
        self.targets = {"pulse": self.echo.port, **(targets or {})}
        if with_ssh:
            tools = harness.need("sshd", "ssh-keygen", "ssh", "scp")
            self.ssh, self.scp = tools[2:]
            self.sshd = openssh.Sshd(lab, *tools[:2], name=f"ssh{ending}", under=self.device_under)
            self.targets["ssh"] = self.sshd.port
            self.me = f"{self.sshd.user}@localhost"
        self.hub = harness.Hub(lab, name=f"hub{ending}", **(world.hub_options if world else {}))
        self.hub.start(log_level=log_level)
        self.device_string = self.hub.create_device()
        self.start_device()
        self.service, ports = self.hub.listen(
            *self.targets, name=f"service-proxy{ending}", under=self.service_under, log_level=log_level,
            arguments=arguments, env=service_env,
        )  # fmt: skip
        self.ports = dict(zip(self.targets, ports))

    def start_device(self, *arguments):
        options = [word for name, port in self.targets.items() for word in ("--target", f"{name}=127.0.0.1:{port}")]
        self.device = self.hub.device_proxy(
            self.device_string, *options, *arguments,
            name=f"device-proxy{self.ending}", under=self.device_under, log_level=self.log_level,
            env=self.device_env,
        )  # fmt: skip
        self.device.wait_for("connected; streams reach")
        if self.log_level in ("debug", "trace") and "never" not in arguments:
            # Who asks its twin before finds that it knows no sessions.
            wanted = len(self.processes("device-proxy"))
            harness.wait_until(
                lambda: sum(hub.output.count("reported properties") for hub in self.processes("hub")) >= wanted,
                20, "the device reports session mode",
            )  # fmt: skip
        else:
            time.sleep(0.5)

    def processes(self, program):
        """All that were ever started of one of the programs in this tunnel."""
        name = re.compile(rf"{program}{self.ending}(-\d+)?")
        return [process for process in self.lab.ours if name.fullmatch(process.name)]

    def connect(self, target):
        port = self.ports[target]
        connection = self.world.service.connect(port) if self.world else harness.connect(port)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def pulse(self):
        return Pulse(self.connect("pulse"))

    def shell(self, proxy_command=None):
        """A terminal on the device, through the listening port or a ProxyCommand."""
        if proxy_command:
            way = ["-o", f"ProxyCommand={proxy_command}", f"{self.sshd.user}@{DEVICE}"]
        else:
            way = ["-p", self.ports["ssh"], self.me]
        return Shell([*self.service_under, self.ssh, "-tt", *self.sshd.client_options, *way], self.lab)

    def run_ssh(self, command, **options):
        client = [*self.sshd.client_options, "-p", str(self.ports["ssh"])]
        return self.lab.run([*self.service_under, self.ssh, *client, self.me, command], **options)

    def copy(self, original, to_device, name):
        return Copy(self, original, to_device, name)

    def kill_hub(self, seconds):
        """`kill -9`, and a start some seconds later; returns when it was ready."""
        self.hub.process.kill()
        time.sleep(seconds)
        self.hub.start(pause=0.001, log_level=self.log_level)
        return time.monotonic()

    def close(self):
        self.echo.close()


class Shell:
    """An interactive ssh at a pseudo-terminal."""

    def __init__(self, argv, lab):
        self.terminal, inner = pty.openpty()
        tty.setraw(inner)
        number = lab.counts["shell"] = lab.counts.get("shell", 0) + 1
        self.log = lab.logs / f"shell-{number}.stderr"
        with open(self.log, "wb") as log:
            # A shell without line editing and echo.
            self.process = subprocess.Popen(
                list(map(str, [*argv, "stty -echo; exec env PS1= sh"])),
                stdin=inner, stdout=inner, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.close(inner)
        self.said = ""
        self.number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            os.write(self.terminal, b"exit\n")
            self.process.wait(5)
            # Killing it would leave its ProxyCommand's session behind.
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                os.killpg(self.process.pid, 0)
                time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.terminal)

    def ask(self, command, timeout=60):
        self.type(command)
        return self.answer(timeout)

    def type(self, command):
        self.number += 1
        os.write(self.terminal, f"{command}; echo end'-of-'{self.number}\n".encode())

    def answer(self, timeout=60):
        """All that came up to the end of the last command's output."""
        end = f"end-of-{self.number}"
        deadline = time.monotonic() + timeout
        while end not in self.said:
            check(self.read(deadline - time.monotonic()), f"no answer in the terminal within {timeout} s: {self.tail()}")
        text, _, self.said = self.said.partition(end)
        return text.strip()

    def read(self, timeout):
        """Reads what there is; whether there was something in time."""
        readable, _, _ = select.select([self.terminal], [], [], max(0, timeout))
        if not readable:
            return False
        try:
            piece = os.read(self.terminal, 65536)
        except OSError:
            piece = b""
        check(piece, f"ssh ended: {self.tail()}")
        self.said += piece.decode(errors="replace")
        return True

    def tail(self):
        return f"{self.said[-200:]!r}; {self.log.read_text(errors='replace')[-300:]!r}"


class Copy:
    """An scp that runs, and the file that it makes."""

    def __init__(self, tunnel, original, to_device, name):
        self.original = original
        self.made = tunnel.lab.folder / f"{name}{tunnel.ending}"
        self.made.unlink(missing_ok=True)
        there = f"{tunnel.me}:{self.made}" if to_device else self.made
        here = original if to_device else f"{tunnel.me}:{original}"
        options = [*tunnel.sshd.client_options, "-P", tunnel.ports["ssh"]]
        argv = [*tunnel.service_under, tunnel.scp, *options, here, there]
        self.process = tunnel.lab.start(f"scp-{name}{tunnel.ending}", argv)

    def wait_for_middle(self, share=8):
        whole = self.original.stat().st_size
        harness.wait_until(lambda: self.size() >= whole // share, 60, "scp has begun", pause=0.002)

    def check_middle(self):
        check(self.process.running() and self.size() < self.original.stat().st_size, "scp was done before it was cut")

    def size(self):
        return self.made.stat().st_size if self.made.exists() else 0

    def check_end(self):
        code = self.process.wait(harness.transfer_timeout(VOLUME_MIB))
        equal(code, 0, f"exit code of scp ({self.process.tail()})")
        equal(harness.sha256(self.made), harness.sha256(self.original), "SHA-256")
        self.made.unlink()


class Pulse:
    """Sends its clock every 5 ms to an echo, and records when each answer arrived."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(None)
        self.arrivals = []  # (sent, received)
        self.ended = threading.Event()
        self.error = None
        for work in (self._send, self._receive):
            threading.Thread(target=work, daemon=True).start()
        harness.wait_until(lambda: self.arrivals, 60, "the first pulse comes back")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _send(self):
        with contextlib.suppress(OSError):
            while not self.ended.wait(PULSE_SECONDS):
                self.connection.sendall(struct.pack("!d", time.monotonic()))

    def _receive(self):
        try:
            while not self.ended.is_set():
                data = harness.receive_exactly(self.connection, 8)
                [sent] = struct.unpack("!d", data)
                check(not self.arrivals or sent > self.arrivals[-1][0], "a pulse came twice, or too late")
                self.arrivals.append((sent, time.monotonic()))
        except (OSError, Failure) as error:
            if not self.ended.is_set():
                self.error = error

    def after(self, moment, timeout=60):
        """Seconds after a moment at which the first probe came back, and the first that was sent
        after it."""

        def found():
            check(not self.error, f"the pulse ended: {self.error}")
            fresh = next((at for sent, at in self.since(moment) if sent >= moment), None)
            return fresh and (self.since(moment)[0][1] - moment, fresh - moment)

        return harness.wait_until(found, timeout, "the pulse comes back")

    def since(self, moment):
        return [pair for pair in self.arrivals[-20000:] if pair[1] >= moment]

    def usual(self):
        """The median of the last round trips, in seconds."""
        return statistics.median(at - sent for sent, at in self.arrivals[-50:])


# --- Logs


def log_lines(process, begin=0.0, end=float("inf")):
    """What a program logged between two moments: (moment, level, text)."""
    for path in (process.stdout_path, process.stderr_path):
        for line in path.read_text(errors="replace").splitlines():
            match = STAMP.match(COLOURS.sub("", line))
            if match:
                second, fraction, level, text = match.groups()
                moment = calendar.timegm(time.strptime(second, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")
                if begin <= moment <= end:
                    yield moment, level, text


def events(lines, text):
    """How many events with this text these lines report: a summary line counts for several."""
    numbers = (re.search(r" repeated=(\d+) ", line) for line in lines if text in line)
    return sum(int(number.group(1)) if number else 1 for number in numbers)


def when(processes, pattern, begin):
    """The first moment after `begin` at which one of them logged this, or None."""
    wanted = re.compile(pattern)
    moments = [at for one in processes for at, _, text in log_lines(one, begin) if wanted.search(text)]
    return min(moments, default=None)


def timeline(tunnel, begin, end, title):
    """Prints the log of all programs of a tunnel between two moments (of time.time)."""
    lines = []
    for program in ("hub", "device-proxy", "service-proxy"):
        for process in tunnel.processes(program):
            lines += [(at, program, level, text) for at, level, text in log_lines(process, begin, end)]
    print(f"        {title}:")
    for at, program, level, text in sorted(lines)[:60]:
        # A check of the path ends before its TLS handshake.
        if level != "TRACE" and "tls handshake eof" not in text:
            print(f"          {(at - begin) * 1000:7.1f} ms  {program:13} {text[:150]}")


# --- What goes to the hub


def hub_sockets(tunnel):
    """Bytes sent so far on each TCP connection of service-proxy to the hub."""
    argv = [*tunnel.service_under, harness.need("ss"), "-tinpHO", "state", "established"]
    said = tunnel.lab.run([*argv, f"( dport = :{tunnel.hub.https} )"]).stdout
    sent = {}
    for line in said.splitlines():
        if f"pid={tunnel.service.pid}," in line:
            match = re.search(r"bytes_sent:(\d+)", line)
            sent[line.split()[2]] = int(match[1]) if match else 0
    return sent


def streams_opened(tunnel):
    return sum(hub.output.count("stream accepted") for hub in tunnel.processes("hub"))


@contextlib.contextmanager
def nothing_to_rest(tunnel):
    """Meanwhile service-proxy uses one connection to the hub, the session's, makes no
    other one, and the hub opens no stream."""
    before, streams = hub_sockets(tunnel), streams_opened(tunnel)
    yield
    after = hub_sockets(tunnel)
    used = [local for local, sent in after.items() if before.get(local) != sent]
    check(len(used) == 1, f"{len(used)} connections to the hub were used: {before}, then {after}")
    check(set(after) <= set(before), f"a connection to the hub was made: {before}, then {after}")
    equal(streams_opened(tunnel), streams, "streams opened so far")


def milliseconds(values):
    values = sorted(values)
    shown = ", ".join(f"{value * 1000:.0f}" for value in values)
    return f"median {statistics.median(values) * 1000:.0f} ms of {len(values)} ({shown})"


def first_echo(tunnel, target="pulse"):
    """The time from a new connection to its first echoed byte."""
    began = time.monotonic()
    with tunnel.connect(target) as connection:
        connection.sendall(b"x")
        equal(harness.receive_exactly(connection, 1), b"x", f"the echo from {DEVICE}")
        return time.monotonic() - began
