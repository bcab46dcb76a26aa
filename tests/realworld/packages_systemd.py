"""The installed packages under a systemd of their own: an upgrade while sessions are open, the hub's
ports in systemd's hands, and the watchdog. The machine is booted from packages.py's root with
systemd-nspawn, in a network namespace with nothing but loopback.
"""

import contextlib
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import time

import harness
from harness import DEVICE, check, equal

BOOT_SECONDS = 60
PROGRAMS = ("device-proxy", "service-proxy", "stream-hub")
PORT = 2222
# What systemd waits for before it starts a program again that has ended by itself, and what such a
# program waits for before that.
ANEW_SECONDS = 60


def steps(lab, root, newer):
    """All checks; `newer` are packages of the same programs with a higher version."""
    with Machine(lab, root) as machine:
        prepare(lab, machine, newer)
        with lab.step("booted with systemd: hub and device start, and the device is reached by its name"):
            machine.wait_for_services("stream-hub", "device-proxy")
            equal(machine.ssh_once("echo there"), "there", "output of ssh")
        with lab.step("the hub's socket unit is there for those who enable it, and is not enabled"):
            equal(
                machine.run("systemctl", "is-enabled", "stream-hub.socket", ok=False).stdout.strip(),
                "disabled",
                "state",
            )
        with lab.step("an upgrade from within an ssh session through the device: nothing is cut"):
            upgrade(lab, machine)
        with lab.step("stream-hub.socket: no connection is refused while the hub is started again"):
            keep_ports(lab, machine)
        with lab.step("a hub that hangs is killed by the watchdog and started again, and the session goes on"):
            hang(machine, "stream-hub", goes_on=True)
        with lab.step("a device-proxy that hangs is killed by the watchdog and started again"):
            hang(machine, "device-proxy", goes_on=False)
        with lab.step("no unit has failed; removed, no unit and no process is left"):
            equal(machine.failed(), [], "failed units")
            machine.run("dpkg", "--remove", *PROGRAMS)
            equal(machine.failed(), [], "failed units after the removal")
            for program in PROGRAMS:
                check(not machine.main_pid(program), f"{program} still runs")
            left = machine.run("systemctl", "is-enabled", "stream-hub.socket", ok=False).stdout.strip()
            check(not left, f"stream-hub.socket is left, {left}")
            machine.run("sh", "-c", "rm /etc/device-streams/service-proxy.toml /etc/device-streams/hub.cs")


def prepare(lab, machine, newer):
    """Root's key on the device, and a service-proxy.service with a forward."""
    root = machine.root
    # Services start by an installation now.
    (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
    (root / "newer").mkdir()
    for path in newer.values():
        shutil.copy(path, root / "newer")
    with machine.shell("bash") as shell:
        shell.ask("mkdir -p -m 700 /root/.ssh; cat /home/ada/.ssh/id_ed25519.pub >> /root/.ssh/authorized_keys")
        shell.ask(
            "cp /home/ada/.ssh/id_ed25519 /root/.ssh/; cp -r /home/ada/.config /root/; chown -R root: /root/.config"
        )
    # What `login` wrote for an operator is what the service needs.
    own = root / "root/.config/device-streams"
    folder = root / "etc/device-streams"
    config = (own / "service-proxy.toml").read_text().replace("/home/ada/.config/device-streams", "/etc/device-streams")
    settings = f'device = "{DEVICE}"\nforward = ["{PORT}:ssh"]\n'
    (folder / "service-proxy.toml").write_text(settings + config)
    for path in own.iterdir():
        if path.name != "service-proxy.toml":
            shutil.copy(path, folder / path.name)
        machine.run("chown", "service-proxy:", f"/etc/device-streams/{path.name}")
    machine.run("systemctl", "enable", "--now", "service-proxy")


def upgrade(lab, machine):
    before = machine.main_pids()
    with machine.ssh(f"root@{DEVICE}.device") as by_name, machine.ssh("-p", str(PORT), "root@localhost") as by_port:
        for shell in (by_name, by_port):
            equal(shell.ask("state=kept; echo $state"), "kept", "the state before")
        # The one that runs in what it upgrades.
        said = by_name.ask(
            "DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet /newer/*.deb 2>&1; echo ended with $?", 120
        )
        check(said.endswith("ended with 0"), f"apt-get: {said[-600:]}")
        for program in PROGRAMS:
            state = machine.run("dpkg-query", "--show", "--showformat=${Version} ${db:Status-Abbrev}", program).stdout
            check(re.fullmatch(r"\S+-2 ii ", state), f"{program} is {state!r}")
        for shell in (by_name, by_port):
            equal(shell.ask("echo $state"), "kept", "the state after")
        during = machine.main_pids()
        check(during["stream-hub"] != before["stream-hub"], "the hub was not started again")
        for program in ("device-proxy", "service-proxy"):
            equal(during[program], before[program], f"{program}'s process while connections are open")
            status = machine.run("systemctl", "show", "--value", "--property=StatusText", program).stdout
            check("last connection" in status, f"{program} says {status!r}")
    began = time.monotonic()
    for program in ("device-proxy", "service-proxy"):
        harness.wait_until(
            lambda: machine.main_pid(program) not in (0, before[program]),
            ANEW_SECONDS,
            f"{program} is started anew",
            pause=0.2,
        )
    print(
        f"        both proxies run their new version {time.monotonic() - began:.1f} s after the last connection's end"
    )
    machine.wait_for_services(*PROGRAMS)
    equal(machine.ssh_once("echo new"), "new", "output of ssh by the new programs")


def keep_ports(lab, machine):
    restart = """
        systemctl restart stream-hub & restart=$!
        tried=0 refused=0
        while kill -0 $restart 2>/dev/null; do
            tried=$((tried + 1))
            (exec 3<>/dev/tcp/127.0.0.1/443) 2>/dev/null || refused=$((refused + 1))
            sleep 0.01
        done
        wait $restart; echo $? $tried $refused"""
    with machine.ssh(f"root@{DEVICE}.device") as session:
        equal(session.ask("state=kept; echo $state"), "kept", "the state before")
        for with_socket in (False, True):
            if with_socket:
                machine.run("systemctl", "stop", "stream-hub")
                machine.run("systemctl", "enable", "--now", "stream-hub.socket")
                machine.run("systemctl", "start", "stream-hub")
            result = machine.run("bash", "-c", restart).stdout.split()
            code, tried, refused = map(int, result)
            equal(code, 0, "exit code of systemctl restart")
            print(
                f"        {'with' if with_socket else 'without'} the socket unit {refused} of {tried} connections were refused"
            )
            check(refused == 0 if with_socket else refused > 0, f"{refused} of {tried} were refused")
            equal(session.ask("echo $state"), "kept", "the state after")


def hang(machine, program, goes_on):
    folder = machine.root / f"etc/systemd/system/{program}.service.d"
    folder.mkdir(exist_ok=True)
    # As packaged it is a minute.
    (folder / "soon.conf").write_text("[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\nRestartSec=1\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", program)
    machine.wait_for_services(program)
    with contextlib.ExitStack() as stack:
        if goes_on:
            session = stack.enter_context(machine.ssh(f"root@{DEVICE}.device"))
            equal(session.ask("state=kept; echo $state"), "kept", "the state before")
        hanging = machine.main_pid(program)
        machine.run("systemctl", "kill", "--signal=STOP", program)
        harness.wait_until(
            lambda: machine.main_pid(program) not in (0, hanging), 30, f"{program} is started again", pause=0.2
        )
        machine.wait_for_services(program)
        said = machine.run("journalctl", "--unit", program, "--output=cat").stdout
        check("Watchdog timeout" in said, f"the watchdog did not act: {said[-300:]}")
        if goes_on:
            equal(session.ask("echo $state"), "kept", "the state after")
        equal(machine.ssh_once("echo next"), "next", "output of the next ssh")
    shutil.rmtree(folder)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", program)


class Machine:
    """A root that runs its own systemd, until it is left."""

    def __init__(self, lab, root):
        self.lab, self.root = lab, pathlib.Path(root)
        self.leader = None
        self.process = None
        self.shells = 0

    def __enter__(self):
        nspawn, self.nsenter = harness.need("systemd-nspawn", "nsenter")
        options = [
            "--quiet",
            "--register=no",
            "--private-network",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=pipe",
        ]
        if not os.path.isdir("/run/systemd/system"):
            # No other systemd gives it a scope of its own.
            options.append("--keep-unit")
        self.cgroups_before = cgroups()
        self.process = self.lab.start("machine", [nspawn, *options, "--boot", f"--directory={self.root}"])
        try:
            harness.wait_until(self._is_up, BOOT_SECONDS, "systemd is up", pause=0.2)
        except harness.Failure as error:
            self.__exit__()
            raise harness.Impossible(f"no systemd can be booted here: {error}; {self.process.tail()}") from None
        return self

    def _is_up(self):
        check(self.process.running(), f"systemd-nspawn ended with {self.process.popen.returncode}")
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        if not children:
            return False
        self.leader = children[0]
        state = self.run("systemctl", "is-system-running", ok=False).stdout.strip()
        return state in ("running", "degraded")

    def __exit__(self, *_):
        if self.leader:
            with contextlib.suppress(harness.Failure):
                journal = self.run("journalctl", "--output=short-precise", ok=False).stdout
                (self.lab.logs / "journal.stdout").write_text(journal)
            with contextlib.suppress(ProcessLookupError, ValueError):
                # systemd's "halt now".
                os.kill(int(self.leader), signal.SIGRTMIN + 4)
            with contextlib.suppress(harness.Failure):
                self.process.wait(20)
        self.process.stop()
        for folder in sorted(cgroups() - self.cgroups_before, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def inside(self, *words):
        """The command that runs another one in the machine."""
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        return [self.nsenter, "--target", self.leader, "--all", "--wdns=/", *clean, *words]

    def run(self, *words, **options):
        return self.lab.run(self.inside(*words), **options)

    @contextlib.contextmanager
    def shell(self, *words):
        self.shells += 1
        shell = Shell(self.inside(*words), self.lab.logs / f"shell-{self.shells}.stderr")
        try:
            yield shell
        finally:
            shell.close()

    def ssh(self, *words):
        """A shell on the device, which is this machine."""
        options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=30"]
        return self.shell("ssh", *options, *words, "bash")

    def ssh_once(self, command):
        with self.ssh(f"root@{DEVICE}.device") as shell:
            return shell.ask(command)

    def main_pid(self, program):
        return int(self.run("systemctl", "show", "--value", "--property=MainPID", f"{program}.service").stdout)

    def main_pids(self):
        return {program: self.main_pid(program) for program in PROGRAMS}

    def wait_for_services(self, *programs):
        def active():
            words = ["systemctl", "is-active", *(f"{program}.service" for program in programs)]
            return self.run(*words, ok=False).returncode == 0

        harness.wait_until(active, 30, f"{' and '.join(programs)} are active", pause=0.2)

    def failed(self):
        return self.run("systemctl", "--failed", "--plain", "--no-legend").stdout.split()


class Shell:
    """A shell with pipes, which is asked one thing after the other."""

    def __init__(self, argv, log):
        self.log = log
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self.said = b""
        self.asked = 0

    def ask(self, command, timeout=60):
        """What the command prints."""
        self.asked += 1
        end = f"end-of-{self.asked}\n".encode()
        # The words differ from what they print, should the shell echo them.
        self.process.stdin.write(f"{command}; echo end'-of-'{self.asked}\n".encode())
        self.process.stdin.flush()
        deadline = time.monotonic() + timeout
        while end not in self.said:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            check(readable, f"no answer within {timeout} s: {self.tail()}")
            piece = os.read(self.process.stdout.fileno(), 65536)
            check(piece, f"the shell ended: {self.tail()}")
            self.said += piece
        answer, _, self.said = self.said.partition(end)
        return answer.decode(errors="replace").strip()

    def tail(self):
        return f"{self.said[-300:]!r}; {self.log.read_text(errors='replace')[-600:]!r}"

    def close(self):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(10)
            # Killing its ProxyCommand would leave a session behind that may still go on.
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                os.killpg(self.process.pid, 0)
                time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


def cgroups():
    """The folders in which systemd-nspawn puts its own processes and the machine's."""
    found = set()
    for name in ("payload", "supervisor"):
        for folder in pathlib.Path("/sys/fs/cgroup").glob(f"**/{name}"):
            found |= {str(path) for path in [folder, *folder.rglob("*")] if path.is_dir()}
    return found
