"""Where the habits of habits.py take place: a device with an sshd, and an operator's machine on
which `ssh MyDevice.device` works for every program that runs ssh.

A gate stands before the sshd. It lets a connection's first bytes pass and the rest slowly, until it is
opened: so every transfer is in its middle when a fault comes, whatever the speed of the machine.
"""

import contextlib
import os
import pathlib
import shlex
import socket
import threading
import time

import harness
import openssh
from harness import DEVICE, MIB, check

NAME = f"{DEVICE}.device"
FREE_BYTES = 2 * MIB
SLOW_BYTES_PER_SECOND = MIB // 4
FILE_MIB = 24
BACK_SECONDS = 30


class Ground:
    """Hub, device-proxy, two service-proxies (`plain` without sessions), and the clients' environment."""

    def __init__(self, lab, world):
        self.lab, self.world = lab, world
        self.on_device, self.on_service = world.device.exec_prefix, world.service.exec_prefix
        sshd, keygen, self.ssh, self.curl = harness.need("sshd", "ssh-keygen", "ssh", "curl")
        # What ssh runs on the device with the daemon of the device.
        self.docker_socket = lab.folder / "docker.sock"
        settings = [f"SetEnv DOCKER_HOST=unix://{self.docker_socket}"]
        self.server = openssh.Sshd(lab, sshd, keygen, under=self.on_device, host=NAME.lower(), settings=settings)
        self.gate = Gate(("127.0.0.1", self.server.port))
        with world.device.inside():
            self.gate_port = self.gate.listen()
        self.docker_gate = lab.folder / "docker-gate.sock"
        self.docker_through = Gate(self.docker_socket)
        self.docker_through.listen(self.docker_gate)
        self.gate.others.append(self.docker_through)
        self.postgres, self.vnc, self.rdp = (harness.free_port() for _ in range(3))
        self.device_folder = lab.folder / "device"
        self.service_folder = lab.folder / "service"
        for folder in (self.device_folder, self.service_folder):
            folder.mkdir()

        self.hub = harness.Hub(lab, **world.hub_options).start(log_level="debug")
        targets = {
            "ssh": f"127.0.0.1:{self.gate_port}", "docker": f"unix:{self.docker_gate}",
            "5432": f"127.0.0.1:{self.postgres}", "vnc": f"127.0.0.1:{self.vnc}", "rdp": f"127.0.0.1:{self.rdp}",
        }  # fmt: skip
        words = [word for name, target in targets.items() for word in ("--target", f"{name}={target}")]
        self.device = self.hub.device_proxy(self.hub.create_device(), *words, under=self.on_device, log_level="debug")
        self.device.wait_for("connected; streams reach")
        # A service-proxy that reads the twin before this opens streams without sessions.
        harness.wait_until(
            lambda: "reported properties" in self.hub.process.output, 20, "the device reports session mode"
        )
        self.options = self.hub.service_options()
        self.client_environment = self._ssh_by_name()
        # psql looks for a socket of this name.
        self.sockets = lab.folder / "sockets"
        self.sockets.mkdir()
        self.near_docker = self.sockets / "docker.sock"
        forwards = [f"{self.sockets}/.s.PGSQL.5432:5432", f"{self.near_docker}:docker", "0:vnc", "0:rdp"]
        self.service, [self.vnc_port, self.rdp_port] = self._listen("service-proxy", forwards, 2)
        self.plain, [self.plain_rdp_port] = self._listen("service-plain", ["0:rdp"], 1, "--session", "never")

    def _listen(self, name, forwards, ports, *options):
        process = self.lab.start_ours(
            "service-proxy", *self.options, *options, "listen", DEVICE, *forwards,
            name=name, under=self.on_service, log_level="debug",
        )  # fmt: skip
        pattern = r"listening on 127\.0\.0\.1:(\d+)[\s\S]*?" * ports
        return process, [int(port) for port in process.wait_for(pattern).groups()]

    def _ssh_by_name(self):
        """The environment in which `ssh` is the system's with the configuration of `ssh-config`."""
        home = self.lab.folder / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        config = home / ".ssh" / "config"
        config.write_text(
            f"Host *.device\n    User {self.server.user}\n    IdentityFile {self.server.user_key}\n"
            f"    IdentitiesOnly yes\n    UserKnownHostsFile {self.server.known_hosts}\n"
        )
        environment = {**harness.clean_environment(), "HOME": str(home)}
        command = [harness.binary("service-proxy"), *self.options, "ssh-config", "--install"]
        self.lab.run(command, env=environment)
        programs = home / "bin"
        programs.mkdir()
        self.ssh_by_name = programs / "ssh"
        # ssh takes the home folder from the system's list of users.
        self.ssh_by_name.write_text(
            f'#!/bin/sh\nexec {self.ssh} -F {config} -o BatchMode=yes -o StrictHostKeyChecking=yes "$@"\n'
        )
        self.ssh_by_name.chmod(0o755)
        environment["PATH"] = f"{programs}:{environment['PATH']}"
        environment.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", DOCKER_CONFIG=str(home / "docker"))
        for who in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@example.com"}
        return environment

    def start(self, name, *words, at_device=False, **options):
        """A program of the operator, or one on the device."""
        if at_device:
            return self.lab.start(name, [*self.on_device, *words], **options)
        return self.lab.start(name, [*self.on_service, *words], env=self.client_environment, **options)

    def run(self, *words, **options):
        return self.lab.run([*self.on_service, *words], env=self.client_environment, **options)

    def descriptors(self):
        return self.hub.process.open_files() + self.device.open_files()

    def wait_for_resumption(self, fault):
        """Until a byte of a new connection goes through the whole way again."""

        def answers():
            command = [*self.on_service, self.ssh_by_name, "-o", "ConnectTimeout=5", NAME, "echo back"]
            return self.lab.run(command, env=self.client_environment, ok=False).stdout == "back\n"

        began = time.monotonic()
        harness.wait_until(answers, BACK_SECONDS, f"a new ssh after {fault}")
        print(f"        a new ssh answers {time.monotonic() - began:.1f} s later")

    def lost(self):
        logs = [program.output for program in (self.service, self.device)]
        return [line for log in logs for line in log.splitlines() if "session lost" in line]

    def close(self):
        self.gate.open()


class Gate:
    """Stands before a target, an address or the path of a Unix socket."""

    def __init__(self, target):
        self.target = target
        self.opened = threading.Event()
        self.others = []
        self.slowed = 0

    def listen(self, path=None):
        """Its port on loopback, or the path."""
        if path:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen(64)
        else:
            listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return path or listener.getsockname()[1]

    def open(self):
        """From now on everything passes at full speed."""
        for gate in (self, *self.others):
            gate.opened.set()

    def held(self):
        """Connections that have moved more than what is free."""
        return sum(gate.slowed for gate in (self, *self.others))

    def _accept(self, listener):
        while True:
            near, _ = listener.accept()
            try:
                # In a thread of this one's network namespace.
                far = connect(self.target)
            except OSError:
                near.close()
                continue
            moved = {"bytes": 0, "slow": False}
            ways = [
                threading.Thread(target=self._pass, args=(*way, moved), daemon=True)
                for way in ((near, far), (far, near))
            ]
            threading.Thread(target=join, args=(ways, (near, far)), daemon=True).start()

    def _pass(self, source, sink, moved):
        with contextlib.suppress(OSError):
            while piece := source.recv(16384):
                moved["bytes"] += len(piece)
                if moved["bytes"] > FREE_BYTES and not self.opened.is_set():
                    self.slowed += not moved["slow"]
                    moved["slow"] = True
                    self.opened.wait(len(piece) / SLOW_BYTES_PER_SECOND)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
            return
        # A reset: the other way ends, too.
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def connect(target):
    if isinstance(target, pathlib.Path):
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(target))
        return one
    return socket.create_connection(target)


def join(ways, sockets):
    for way in ways:
        way.start()
    for way in ways:
        way.join()
    for one in sockets:
        one.close()


class Habit:
    """One of them. `title` is its line in the output."""

    title = ""

    def __init__(self, ground):
        self.ground, self.lab = ground, ground.lab
        self.process = None

    def start(self):
        raise NotImplementedError

    def in_the_middle(self):
        """Whether it has moved bytes and is not done."""
        raise NotImplementedError

    def in_the_dark(self, fault):
        """While there is no way to the device."""

    def moves_again(self):
        """Between the faults: waits until it goes on, where that can be seen."""

    def finish(self):
        """Waits for its end and compares what it has made."""
        raise NotImplementedError

    def close(self):
        pass

    def check_exit(self, process=None, code=0):
        process = process or self.process
        ended = process.wait(harness.transfer_timeout(FILE_MIB))
        check(ended == code, f"{process.name} ended with {ended}: {process.tail(8)}")


class Transfer(Habit):
    """A program that moves one file's bytes to where `size` sees them arrive."""

    expected = FILE_MIB * MIB

    def size(self):
        raise NotImplementedError

    def in_the_middle(self):
        check(
            self.process.running(),
            f"{self.process.name} ended with {self.process.popen.returncode}: {self.process.tail(8)}",
        )
        return 0 < self.size() < self.expected

    def moves_again(self):
        before = self.size()
        harness.wait_until(lambda: self.size() > before, BACK_SECONDS, f"{self.title}: bytes after the hub's return")


def size_of(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def size_below(folder):
    """Bytes in all files of a folder."""
    return sum(size_of(path) for path in folder.rglob("*") if path.is_file())


def quoted(words):
    return shlex.join(str(word) for word in words)
