#!/usr/bin/env python3
"""A fleet managed with Ansible: one playbook over many devices, which it finds and reaches with
`service-proxy inventory`.

Every device has a device-proxy, an sshd and a home folder of its own. The key of that sshd is known
under the device's id only, and the folder holds the id: ssh and the playbook fail on a host that is
not the device it is taken for.
"""

import contextlib
import pathlib
import re
import shlex
import sys

import harness
import openssh
from harness import check, equal
from rest import Rest

PLAYBOOK = pathlib.Path(__file__).with_suffix(".yml")
# One has characters in its id that mean something to shells, to ssh and to Ansible.
DEVICES = [f"Dev-{number:02}" for number in range(1, 20)] + ["dev:20(%h,#1)"]
OFFLINE = "Dev-offline"
SITES = ("north", "south")
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)", re.M)


def main(lab):
    playbook = pathlib.Path(sys.executable).with_name("ansible-playbook")
    if not playbook.exists():
        raise harness.Skip("ansible-core is not installed (from PyPI, see requirements.txt)")
    ssh, keygen, sshd = harness.need("ssh", "ssh-keygen", "sshd")
    hub = harness.Hub(lab).start()
    fleet = Fleet(lab, hub, sshd, keygen)
    control = lab.folder / "control"
    try:
        play(lab, hub, fleet, playbook, control)
    finally:
        end_connections(lab, ssh, control)


def play(lab, hub, fleet, playbook, control):
    run = lab.start(
        "ansible", [playbook, "-i", inventory(lab, hub, fleet.user), PLAYBOOK],
        env=settings(lab, fleet, control), cwd=lab.folder,
    )  # fmt: skip

    with lab.step(f"a playbook works on {len(DEVICES)} devices at once"):
        fleet.wait_for(run, "working", 120)
    with lab.step("the hub is killed under it, and comes back"):
        hub.process.kill()
        hub.start()
        for folder in fleet.folders.values():
            (folder / "go").touch()
        run.wait(120)

    with lab.step("its recap: each device is ok, and the one that is offline is unreachable"):
        recap = {host: tuple(map(int, counts)) for host, *counts in RECAP.findall(run.stdout)}
        ok, of_a_site = (4, 2, 0, 0, 0), (5, 3, 0, 0, 0)
        expected = {device: of_a_site if site(device) == "north" else ok for device in DEVICES}
        equal(recap, {**expected, OFFLINE: (0, 0, 1, 0, 0)}, "ok, changed, unreachable, failed, skipped of each host")
        equal(run.popen.returncode, 4, "exit code, which says that a host was unreachable")
    with lab.step("each device has the files that were meant for it"):
        for device, folder in fleet.folders.items():
            equal((folder / "site").read_text(), f"{device} in {site(device)}\n", f"what {device} has")
            equal((folder / "north").exists(), site(device) == "north", f"{device} was in the play of a site")
    with lab.step("its connections went on through the hub's end"):
        interrupted = [log.name for log in fleet.proxies if "session resumed" not in log.output]
        equal(interrupted, [], "devices without a session that was resumed")
    with lab.step("Ansible shows no secret"):
        check(not any(map(lab.holds_secret, run.output.encode().splitlines())), "one is in its output")


def site(device):
    return SITES[[*DEVICES, OFFLINE].index(device) % len(SITES)]


class Fleet:
    """Devices with a device-proxy, an sshd and a home folder each, and one that has none of them."""

    def __init__(self, lab, hub, sshd, keygen):
        rest = Rest(hub)
        self.folders, self.proxies = {}, []
        self.known_hosts = lab.folder / "known_hosts"
        self.key = None
        for device in [*DEVICES, OFFLINE]:
            string = hub.create_device(device)
            rest.patch_twin(device, {"tags": {"site": site(device)}})
            if device == OFFLINE:
                continue
            name = f"device-{len(self.folders) + 1:02}"
            folder = self.folders[device] = lab.folder / "devices" / name
            folder.mkdir(parents=True)
            (folder / "device-id").write_text(f"{device}\n")
            server = openssh.Sshd(
                lab, sshd, keygen, name=f"ssh-{name}", host=in_known_hosts(device), user_key=self.key,
                settings=[f"SetEnv HOME={folder}"],
            )  # fmt: skip
            self.user, self.key = server.user, server.user_key
            with open(self.known_hosts, "a") as file:
                file.write(server.known_hosts.read_text())
            self.proxies.append(hub.device_proxy(string, "--target", f"ssh=127.0.0.1:{server.port}", name=name))
        for proxy in self.proxies:
            proxy.wait_for("connected; streams reach")

    def wait_for(self, run, name, timeout):
        """Waits until every device has a file of this name."""

        def missing():
            check(run.running(), f"ansible-playbook has ended: {run.tail(20)}")
            return [device for device, folder in self.folders.items() if not (folder / name).exists()]

        harness.wait_until(lambda: not missing(), timeout, f"every device has {name}", pause=0.1)


def in_known_hosts(device):
    """A device's name as ssh's: everything but letters, digits and `-._` is percent-encoded."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda match: f"%{ord(match[0]):02X}", device)


def inventory(lab, hub, user):
    """The script of docs/fleet.md."""
    script = lab.folder / "inventory.sh"
    options = " ".join(shlex.quote(str(word)) for word in hub.service_options())
    program = shlex.quote(str(harness.binary("service-proxy")))
    script.write_text(f'#!/bin/sh\nexec {program} inventory {options} --group-by tags.site --user {user} "$@"\n')
    script.chmod(0o755)
    return script


def settings(lab, fleet, control):
    """Ansible's environment: nothing of this user's own is read or written."""
    ssh_options = [
        "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={fleet.known_hosts}",
        "ControlMaster=auto", "ControlPersist=60s",
    ]  # fmt: skip
    config = lab.folder / "ansible.cfg"
    config.write_text(
        f"""
        [defaults]
        home = {lab.folder / "ansible"}
        remote_tmp = {lab.folder / "ansible" / "remote"}
        forks = {len(DEVICES) + 1}
        private_key_file = {fleet.key}
        interpreter_python = {sys.executable}
        nocolor = true
        [ssh_connection]
        pipelining = true
        ssh_args = -F /dev/null {" ".join(f"-o {option}" for option in ssh_options)}
        control_path_dir = {control}
        """.replace("        ", "")
    )
    return {"ANSIBLE_CONFIG": str(config), "LC_ALL": "C.UTF-8"}


def end_connections(lab, ssh, control):
    """Ends the connections that ssh keeps open in the background."""
    for socket in control.glob("*"):
        with contextlib.suppress(harness.Failure):
            lab.run([ssh, "-F", "/dev/null", "-o", f"ControlPath={socket}", "-O", "exit", "device"], 20, ok=False)


if __name__ == "__main__":
    harness.use_venv()
    harness.run(main)
