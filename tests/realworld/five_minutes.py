"""Two Debian machines with nothing of ours on them, and what a new user types on each until the
prompt of the device is there: README shows the same.

The machines are copies of one root, with host names and hosts files of their own, in one network
namespace. Nothing starts services there: the test does what systemd would.
"""

import contextlib
import shutil
import subprocess
import time

from harness import DEVICE, check, equal

HUB = "hub.example.com"
USER = "ada"
CONFIG = "/etc/device-streams"
# A person answers the question for the host key; the terminal is not there for it.
SSH = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new"]


class Machine:
    """Commands on one of them."""

    def __init__(self, lab, root, name, inside=()):
        self.lab, self.root = lab, root
        # A host name of its own, as `hostname` and sudo want to see it.
        naming = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
        self.under = [str(word) for word in [*inside, *naming, "chroot", root]]
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1 {HUB} hub\n127.0.0.1 {name}\n")

    def run(self, *words, user=None, **variables):
        return self.lab.run([*self.under, *as_user(user, words)], env=environment(user, variables), timeout=120)

    def start(self, name, *words, user=None):
        return self.lab.start(name, [*self.under, *as_user(user, words)], env=environment(user, {}))

    def prepare(self):
        """A person with an SSH key, who may use sudo."""
        self.run("useradd", "--create-home", "--shell", "/bin/bash", USER)
        (self.root / "etc/sudoers.d/person").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")


def as_user(user, words):
    if user is None:
        return [*words]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]


def environment(user, variables):
    home = "/root" if user is None else f"/home/{user}"
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        **variables,
    }


@contextlib.contextmanager
def mounted(lab, root):
    """/proc and /dev, which programs need."""
    with contextlib.ExitStack() as stack:
        for words, place in [(["-t", "proc", "proc"], root / "proc"), (["--bind", "/dev"], root / "dev")]:
            lab.run(["mount", *words, place])
            stack.callback(lab.run, ["umount", "--lazy", place], ok=False)
        yield


def play(lab, fresh, packages, inside):
    """From nothing to the prompt. `fresh` is the root that both machines are copies of."""
    roots = [lab.folder / name for name in ("machine-hub", "machine-device")]
    try:
        for root in roots:
            subprocess.run(["cp", "--archive", fresh, root], check=True)
        with mounted(lab, roots[0]), mounted(lab, roots[1]):
            session(lab, *roots, packages, inside)
    finally:
        for root in roots:
            shutil.rmtree(root, ignore_errors=True)


def session(lab, hub_root, device_root, packages, inside):
    here = Machine(lab, hub_root, HUB, inside)
    there = Machine(lab, device_root, "board", inside)
    for machine in (here, there):
        machine.prepare()
    admit(here, there)
    for machine, names in ((here, ("stream-hub", "service-proxy")), (there, ("device-proxy",))):
        for name in names:
            shutil.copy(packages[name], machine.root / "tmp" / packages[name].name)

    typed = Typed()
    names = [f"/tmp/{packages[name].name}" for name in ("stream-hub", "service-proxy")]
    result = typed(here, "sudo", "apt-get", "install", "-y", *names, user=USER)
    check(f"reach it as {HUB}" in result.stdout, f"the hub's name is not shown: {result.stdout[-400:]}")
    hub = here.start("stream-hub", "stream-hub", "serve", "--config", "/etc/stream-hub/stream-hub.toml", user="stream-hub")
    hub.wait_for(r"\bready\b")
    code = typed(here, "sudo", "stream-hub", "enrol", "--device", DEVICE, "--login", user=USER).stdout.strip()
    check(code.endswith(f"@{HUB}"), f"no code: {code[-40:]}")

    name = f"/tmp/{packages['device-proxy'].name}"
    typed(there, "apt-get", "install", "-y", name, DEVICE_PROXY_ENROLMENT=code)
    for file in ("device.key", "device-proxy.toml"):
        equal(there.run("stat", "-c", "%U", f"{CONFIG}/{file}").stdout, "device-proxy\n", f"owner of {file}")
    words = ["device-proxy", "--config", f"{CONFIG}/device-proxy.toml"]
    there.start("device-proxy", *words, user="device-proxy").wait_for("connected")

    result = typed(here, "ssh", *SSH, f"{USER}@{DEVICE}.device", "hostname; id -un", user=USER)
    equal(result.stdout, f"board\n{USER}\n", "output of ssh")
    print(f"        {typed.count} commands on two machines, {typed.seconds:.1f} s until they were done")
    equal(typed.count, 4, "commands that were typed")

    # A code of the past does not leave a package that looks complete.
    there.run("dpkg", "--purge", "device-proxy")
    result = lab.run(
        [*there.under, "apt-get", "install", "-y", name],
        env=environment(None, {"DEVICE_PROXY_ENROLMENT": code}),
        ok=False,
        timeout=120,
    )
    check(result.returncode != 0, "a used code enrolled a second key")
    check("was used or has expired" in result.stderr + result.stdout, f"no reason: {result.stderr[-400:]}")
    there.run("dpkg", "--configure", "-a")
    equal(there.run("dpkg-query", "-W", "-f", "${Status}", "device-proxy").stdout, "install ok installed", "status")


def admit(here, there):
    """What a device has already: an SSH server that knows its people."""
    folder = f"/home/{USER}/.ssh"
    for machine in dict.fromkeys((here, there)):
        machine.run("mkdir", "-m", "700", folder, user=USER)
    here.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/id_ed25519", user=USER)
    public = here.root / f"{folder[1:]}/id_ed25519.pub"
    (there.root / f"{folder[1:]}/authorized_keys").write_text(public.read_text())
    (there.root / "run/sshd").mkdir(exist_ok=True)
    there.start("sshd", "/usr/sbin/sshd", "-D", "-e")


def one_machine(lab, root, inside):
    """Hub, device and operator on a machine that has the packages, each with a code of its own."""
    machine = Machine(lab, root, HUB, inside)
    with mounted(lab, root):
        machine.prepare()
        admit(machine, machine)
        words = ["stream-hub", "serve", "--config", "/etc/stream-hub/stream-hub.toml"]
        machine.start("stream-hub", *words, user="stream-hub").wait_for(r"\bready\b")
        # Root's commands are carried out as the user whose folder it is.
        code = machine.run("stream-hub", "enrol", "--device", DEVICE).stdout.strip()
        machine.run("device-proxy", "enrol", "--no-start", code)
        words = ["device-proxy", "--config", f"{CONFIG}/device-proxy.toml"]
        machine.start("device-proxy", *words, user="device-proxy").wait_for("connected")
        code = machine.run("stream-hub", "enrol", "--operator").stdout.strip()
        machine.run("service-proxy", "login", code, user=USER)
        result = machine.run("ssh", *SSH, f"{USER}@{DEVICE}.device", "id -un", user=USER)
        equal(result.stdout, f"{USER}\n", "output of ssh")


class Typed:
    """Runs what a person types, and counts it."""

    def __init__(self):
        self.count, self.seconds = 0, 0.0

    def __call__(self, machine, *words, **options):
        begun = time.monotonic()
        result = machine.run(*words, **options)
        self.count += 1
        self.seconds += time.monotonic() - begun
        return result
