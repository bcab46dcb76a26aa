#!/usr/bin/env python3
"""The Debian packages, installed into a fresh Debian, used as a new user would, and removed.

The root is made by debootstrap; its programs run in it with chroot, in a network namespace with
nothing but loopback, and without systemd, whose part is checked by systemd-analyze.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import time

import harness
from harness import DEVICE, ROOT, WORK, check, equal

PACKAGES = ("device-proxy", "service-proxy", "stream-hub")
HUB = "hub.example.com"
# What systemd-analyze says of a service that may do anything is 9.6; below 2 it is "OK".
MOST_EXPOSURE = 2.0


def main(lab):
    if os.geteuid() != 0:
        raise harness.Skip("installing packages needs root")
    ip, debootstrap, analyze, chroot = harness.need("ip", "debootstrap", "systemd-analyze", "chroot")
    packages = build()

    with fresh_debian(lab, debootstrap) as root:
        debian = Debian(lab, root, [chroot, root])
        with lab.step("the three packages install into a fresh Debian"):
            for package in packages.values():
                shutil.copy(package, root / "tmp")
            result = debian.run("dpkg", "--install", *(f"/tmp/{path.name}" for path in packages.values()), timeout=120)
            # adduser warns of the home folder that these users shall not have.
            ours = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("adduser:")]
            check(not any("warning" in line.lower() for line in ours), f"dpkg warns: {ours}")
            for program in PACKAGES:
                debian.run("getent", "passwd", program)
                check(program in debian.run(program, "--version").stdout, f"{program} does not run")
            folder = root / "etc/device-streams"
            equal(debian.run("stat", "-c", "%U %a", "/etc/device-streams").stdout, "device-proxy 755\n", f"{folder}")

        with lab.step("man pages for every command, and completions that shells can read"):
            pages = {path.name for path in (root / "usr/share/man/man1").iterdir()}
            for page in ("device-proxy-enrol.1.gz", "service-proxy-job-twin.1.gz", "stream-hub-device-create.1.gz"):
                check(page in pages, f"{page} is missing among {len(pages)}")
            for program in PACKAGES:
                lab.run(["bash", "-n", root / f"usr/share/bash-completion/completions/{program}"])
                check((root / f"usr/share/zsh/vendor-completions/_{program}").exists(), "no completions for zsh")

        units = [f"{program}.service" for program in PACKAGES]
        with lab.step("systemd-analyze verify finds nothing in the units"):
            for unit in units:
                path = unit_file(root, unit)
                result = lab.run([analyze, "verify", "--man=no", f"--root={root}", path], ok=False)
                # Of a unit of another package, for instance, it may not say anything here.
                ours = [line for line in result.stderr.splitlines() if unit in line]
                check(result.returncode == 0 and not ours, f"{unit}: {result.stderr}")

        with lab.step(f"systemd-analyze security: an exposure below {MOST_EXPOSURE}"):
            for unit in units:
                path = unit_file(root, unit)
                result = lab.run([analyze, "security", "--offline=true", "--no-pager", f"--root={root}", path], ok=False)
                exposure = re.search(r"exposure level for (\S+): ([\d.]+)", result.stdout)
                check(exposure, f"no verdict: {result.stdout[-300:]} {result.stderr[-300:]}")
                print(f"        {unit}: exposure {exposure[2]}")
                check(float(exposure[2]) < MOST_EXPOSURE, f"{unit} has {exposure[2]}")

        with namespace(lab, ip) as inside:
            there = Debian(lab, root, [*inside, chroot, root])
            with lab.step("a hub, a device and an operator from codes, and ssh by the device's name"):
                first_session(lab, there)

        with lab.step("removed and purged, nothing of them is left"):
            debian.run("dpkg", "--remove", *PACKAGES)
            check((root / "etc/device-streams/device.key").exists(), "removing the package took the key away")
            debian.run("dpkg", "--purge", *PACKAGES)
            for path in ("etc/device-streams", "var/lib/stream-hub", "usr/bin/device-proxy"):
                check(not (root / path).exists(), f"/{path} is left")


def build():
    """The packages of the programs under test."""
    if harness.BIN_DIR != (ROOT / "target" / "dist").resolve():
        raise harness.Skip("packages are made of target/dist only")
    if harness.find_tool("cargo") is None:
        raise harness.Skip("cargo is not installed")
    tools = WORK / "tools" / "bin"
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    if subprocess.run(["cargo", "deb", "--version"], env=env, capture_output=True).returncode != 0:
        raise harness.Skip("cargo-deb is not installed")
    folder = ROOT / "target" / "debian"
    shutil.rmtree(folder, ignore_errors=True)
    result = subprocess.run([ROOT / "packaging/build-deb", "--no-build"], env=env, capture_output=True, text=True)
    check(result.returncode == 0, f"build-deb: {result.stderr[-600:]}")
    packages = {name: next(folder.glob(f"{name}_*.deb"), None) for name in PACKAGES}
    check(all(packages.values()), f"a package is missing: {packages}")
    for name, path in packages.items():
        print(f"        {path.name}: {path.stat().st_size} bytes")
    return packages


@contextlib.contextmanager
def fresh_debian(lab, debootstrap):
    """A root with nothing but what a Debian needs, an SSH server and a client."""
    root = lab.folder / "root"
    release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(), re.M)[1]
    command = [debootstrap, "--variant=minbase", "--include=openssh-server,openssh-client,systemd", release, root]
    mirror = sources()
    result = lab.run([*command, *mirror], timeout=900, ok=False)
    if result.returncode != 0:
        raise harness.Skip(f"debootstrap: {(result.stdout + result.stderr).strip()[-300:]}")
    try:
        # No service starts by an installation.
        (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (root / "usr/sbin/policy-rc.d").chmod(0o755)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def sources():
    """Where this machine's own packages come from."""
    for path in [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]:
        if path.is_file():
            found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+/debian/?)(?:\s|$)", path.read_text(), re.M)
            if found:
                return [found[1]]
    return []


@contextlib.contextmanager
def namespace(lab, ip):
    """A command that runs another where there is only loopback, and where every port is for all."""
    name = f"device-streams-packages-{os.getpid()}"
    lab.run([ip, "netns", "add", name])
    try:
        inside = [ip, "netns", "exec", name]
        lab.run([ip, "-n", name, "link", "set", "lo", "up"])
        lab.run([*inside, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start"])
        yield inside
    finally:
        for process in reversed(lab.processes):
            process.stop()
        lab.run([ip, "netns", "del", name], ok=False)


class Debian:
    """Commands in the root."""

    def __init__(self, lab, root, under):
        self.lab, self.root, self.under = lab, root, [str(word) for word in under]

    def run(self, *words, user=None, **options):
        return self.lab.run([*self.under, *as_user(user, words)], env=environment(user), **options)

    def start(self, name, *words, user=None):
        return self.lab.start(name, [*self.under, *as_user(user, words)], env=environment(user))


def as_user(user, words):
    if user is None:
        return [*words]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]


def environment(user):
    home = "/root" if user is None else f"/home/{user}"
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": home, "LANG": "C.UTF-8"}


def unit_file(root, unit):
    for folder in ("usr/lib/systemd/system", "lib/systemd/system"):
        if (root / folder / unit).exists():
            return root / folder / unit
    raise harness.Failure(f"{unit} is not installed")


def first_session(lab, debian):
    """What README shows first, with the commands that it shows."""
    root = debian.root
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {HUB}\n")
    mounts = [(["-t", "proc", "proc"], root / "proc"), (["--bind", "/dev"], root / "dev")]
    with contextlib.ExitStack() as stack:
        for words, place in mounts:
            lab.run(["mount", *words, place])
            stack.callback(lab.run, ["umount", "--lazy", place], ok=False)
        debian.run("useradd", "--create-home", "--shell", "/bin/bash", "ada")
        key = "/home/ada/.ssh/id_ed25519"
        debian.run("mkdir", "-p", "-m", "700", "/home/ada/.ssh", user="ada")
        debian.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, user="ada")
        debian.run("cp", f"{key}.pub", "/home/ada/.ssh/authorized_keys", user="ada")
        (root / "run/sshd").mkdir(exist_ok=True)
        debian.start("sshd", "/usr/sbin/sshd", "-D", "-e")

        # As systemd would start it.
        config = root / "etc/device-streams/stream-hub.toml"
        config.write_text(config.read_text() + f'hostname = "{HUB}"\n')
        hub = debian.start(
            "stream-hub", "stream-hub", "serve", "--config", "/etc/device-streams/stream-hub.toml", user="stream-hub"
        )
        hub.wait_for(r"\bready\b")

        begun = time.monotonic()
        # Root's commands are carried out as the user whose folder it is.
        code = debian.run("stream-hub", "enrol", "--device", DEVICE).stdout.strip()
        debian.run("device-proxy", "enrol", "--no-start", code)
        for name in ("device.key", "device-proxy.toml"):
            owner = debian.run("stat", "-c", "%U", f"/etc/device-streams/{name}").stdout.strip()
            equal(owner, "device-proxy", f"owner of {name}")
        device = debian.start(
            "device-proxy", "device-proxy", "--config", "/etc/device-streams/device-proxy.toml", user="device-proxy"
        )
        device.wait_for("connected")
        code = debian.run("stream-hub", "enrol", "--operator").stdout.strip()
        debian.run("service-proxy", "login", code, user="ada")
        options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new"]
        result = debian.run("ssh", *options, f"ada@{DEVICE}.device", "echo on the device; id -un", user="ada")
        equal(result.stdout, "on the device\nada\n", "output of ssh")
        print(f"        from the first code to the prompt: {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    harness.run(main)
