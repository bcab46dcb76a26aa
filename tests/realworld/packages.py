#!/usr/bin/env python3
"""The Debian packages, installed into a fresh Debian, used as a new user would, upgraded while they are
in use, and removed.

The root is made by debootstrap; its programs run in it with chroot, in a network namespace with
nothing but loopback, and then under a systemd of their own (packages_systemd.py).
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess

import five_minutes
import harness
import packages_systemd
import sbom
from harness import ROOT, WORK, check, equal

# Those of Debian, and cargo's.
PACKAGES = {"device-proxy": "device-proxy", "service-proxy": "service-proxy", "stream-hub": "hub"}
# What systemd-analyze says of a service that may do anything is 9.6; below 2 it is "OK".
MOST_EXPOSURE = 2.0


def main(lab):
    if os.geteuid() != 0:
        raise harness.Skip("installing packages needs root")
    ip, debootstrap, analyze, _ = harness.need("ip", "debootstrap", "systemd-analyze", "chroot")
    newer, packages = build(lab, revision=2), build(lab)

    with fresh_debian(lab, debootstrap) as root:
        with namespace(lab, ip) as inside:
            with lab.step("from nothing to ssh by the device's name: four commands on two machines"):
                five_minutes.play(lab, root, packages, inside)

        debian = five_minutes.Machine(lab, root, five_minutes.HUB)
        with lab.step("the three packages install into a fresh Debian"):
            for package in packages.values():
                shutil.copy(package, root / "tmp")
            result = debian.run("dpkg", "--install", *(f"/tmp/{path.name}" for path in packages.values()))
            # adduser warns of the home folder that these users shall not have.
            ours = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("adduser:")]
            check(not any("warning" in line.lower() for line in ours), f"dpkg warns: {ours}")
            for program in PACKAGES:
                debian.run("getent", "passwd", program)
                check(program in debian.run(program, "--version").stdout, f"{program} does not run")
            folder = root / "etc/device-streams"
            equal(debian.run("stat", "-c", "%U %a", "/etc/device-streams").stdout, "device-proxy 755\n", f"{folder}")
            # What device-proxy's user can write decides nothing about the hub.
            hubs = debian.run("stat", "-c", "%U %a", "/etc/stream-hub", "/etc/stream-hub/stream-hub.toml").stdout
            equal(hubs, "root 755\nroot 644\n", "whose the hub's configuration is")

        with lab.step("service-proxy's user has a folder for a login that it renews"):
            mode = debian.run("stat", "-c", "%U %a", "/var/lib/service-proxy").stdout
            equal(mode, "service-proxy 700\n", "whose it is")

        with lab.step("an old configuration of the hub that is not root's is not passed over for a new one"):
            old, new = root / "etc/device-streams/stream-hub.toml", root / "etc/stream-hub/stream-hub.toml"
            text = new.read_text()
            shutil.move(new, old)
            debian.run("chown", "device-proxy:", f"/{old.relative_to(root)}")
            configure = [*debian.under, "/var/lib/dpkg/info/stream-hub.postinst", "configure", "0"]
            env = five_minutes.environment(None, {})
            result = lab.run(configure, ok=False, env=env)
            said = [line for line in result.stderr.splitlines() if line.startswith("stream-hub:")]
            check(result.returncode == 1 and len(said) == 1 and "not a file of root's" in said[0], result.stderr)
            check(old.read_text() == text and not new.exists(), "something was written")
            debian.run("chown", "root:", f"/{old.relative_to(root)}")
            lab.run(configure, env=env)
            check(new.read_text() == text and not old.exists(), "it was not moved")
            whose = debian.run("stat", "-c", "%U %a", "/etc/device-streams").stdout
            equal(whose, "device-proxy 755\n", "whose device-proxy's folder is")

        with lab.step("each program has the list of its dependencies inside, as Cargo.lock and cargo have it"):
            for program, package in PACKAGES.items():
                sbom.compare(lab, root / "usr/bin" / program, package)

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
            with lab.step("one machine, with a code for the device and one for the operator"):
                five_minutes.one_machine(lab, root, inside)

        with lab.step("the same under systemd"):
            packages_systemd.steps(lab, root, newer)

        with lab.step("removed and purged, nothing of them is left"):
            # Perhaps they were removed under systemd.
            debian.lab.run([*debian.under, "dpkg", "--remove", *PACKAGES], ok=False)
            check((root / "etc/device-streams/device.key").exists(), "removing the package took the key away")
            debian.run("dpkg", "--purge", *PACKAGES)
            for path in ("etc/device-streams", "etc/stream-hub", "var/lib/stream-hub", "var/lib/service-proxy", "usr/bin/device-proxy"):
                check(not (root / path).exists(), f"/{path} is left")


def build(lab, revision=1):
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
    command = [ROOT / "packaging/build-deb", "--no-build", "--revision", str(revision)]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    check(result.returncode == 0, f"build-deb: {result.stderr[-600:]}")
    kept = lab.folder / f"revision-{revision}"
    # The next revision is made in the same folder.
    shutil.copytree(folder, kept)
    packages = {name: next(kept.glob(f"{name}_*.deb"), None) for name in PACKAGES}
    check(all(packages.values()), f"a package is missing: {packages}")
    for name, path in packages.items():
        print(f"        {path.name}: {path.stat().st_size} bytes")
    return packages


@contextlib.contextmanager
def fresh_debian(lab, debootstrap):
    """A root with nothing but what a Debian needs, an SSH server and a client."""
    root = lab.folder / "root"
    release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(), re.M)[1]
    command = [debootstrap, "--variant=minbase", "--include=openssh-server,openssh-client,sudo,ca-certificates,systemd-sysv,dbus", release, root]
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


def unit_file(root, unit):
    for folder in ("usr/lib/systemd/system", "lib/systemd/system"):
        if (root / folder / unit).exists():
            return root / folder / unit
    raise harness.Failure(f"{unit} is not installed")


if __name__ == "__main__":
    harness.run(main)
