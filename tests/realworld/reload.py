#!/usr/bin/env python3
"""Configurations that change under real ssh sessions and a copy: files that are replaced, keys that
are rotated, forwards that come and go, and a hub more.
"""

import os
import subprocess
import threading

import harness
from harness import DEVICE, VOLUME_MIB, equal
from openssh import Sshd, long_session


def main(lab):
    sshd, ssh, scp, keygen = harness.need("sshd", "ssh", "scp", "ssh-keygen")
    server = Sshd(lab, sshd, keygen)
    me = f"{server.user}@localhost"
    hubs = [harness.Hub(lab, name=name).start() for name in ("acme", "globex")]

    devices = []
    for hub in hubs:
        lab.secret_file(f"{hub.name}-device.cs", hub.create_device())
        lab.secret_file(f"{hub.name}.cs", hub.service_string())
        write_device(lab, hub, f'target = "ssh=127.0.0.1:{server.port}"')
        device = lab.start_ours("device-proxy", "--config", lab.folder / f"{hub.name}-device.toml")
        device.wait_for("connected; streams reach ssh")
        devices.append(device)

    ports = [harness.free_port() for _ in range(3)]
    write_service(lab, hubs, [ports[:2], []])
    service = lab.start_ours("service-proxy", "--config", lab.folder / "service-proxy.toml")
    service.wait_for(rf"listening on 127\.0\.0\.1:{ports[1]} -> {DEVICE} \(ssh\) at acme")

    def client(port):
        return [*server.client_options, "-p", str(port)]

    with long_session(ssh, client(ports[0]), me) as ask:
        equal(ask("before"), "before\n", "answer")

        with lab.step(f"scp of {VOLUME_MIB} MiB while everything is changed ten times"):
            original = harness.random_file(lab.folder / "original", VOLUME_MIB)
            there = lab.folder / "there"
            line = [scp, *server.client_options, "-P", str(ports[0]), original, f"{me}:{there}"]
            copy = subprocess.Popen([str(word) for word in line], stderr=subprocess.PIPE)
            timer = threading.Timer(harness.transfer_timeout(VOLUME_MIB), copy.kill)
            timer.start()
            for number in range(10):
                write_device(lab, hubs[0], f'target = "ssh=127.0.0.1:{server.port}"\nmax-streams = {50 + number}')
                write_service(lab, hubs, [ports[:2], []], f"max-connections = {100 + number}")
                harness.wait_until(
                    lambda: devices[0].output.count(": max-streams") > number
                    and service.output.count(": max-connections") > number,
                    20,
                    "both have read it",
                )
            _, errors = copy.communicate()
            timer.cancel()
            equal(copy.returncode, 0, f"scp's exit code ({errors.decode().strip()})")
            equal(harness.sha256(there), harness.sha256(original), "SHA-256")
            equal(ask("copied"), "copied\n", "answer")

        with lab.step("both proxies get other keys, and the session goes on"):
            replace(lab, "acme-device.cs", hubs[0].cli("device", "connection-string", DEVICE, "--secondary"))
            devices[0].wait_for("connecting again, with the changed configuration")
            harness.wait_until(lambda: devices[0].output.count("connected; streams reach") == 2, 20, "a hub session")
            replace(lab, "acme.cs", hubs[0].cli("policy", "connection-string", "service", "--secondary"))
            service.wait_for(r"configuration changed by .*: \S*acme\.cs")
            equal(ask("rotated"), "rotated\n", "answer")
            equal(run(lab, ssh, client(ports[0]), me), "new\n", "a new session")

        with lab.step("a hub more, then a forward less, and only its session ends"):
            write_service(lab, hubs, [ports[:2], [ports[2]]])
            service.wait_for(rf"forward added: 127\.0\.0\.1:{ports[2]} -> {DEVICE} \(ssh\) at globex")
            equal(run(lab, ssh, client(ports[2]), me), "new\n", "a session at the other hub")
            ends = subprocess.Popen(
                [ssh, *client(ports[1]), me, "echo up; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            equal(ends.stdout.readline(), b"up\n", "the second session")
            write_service(lab, hubs, [ports[:1], [ports[2]]])
            service.wait_for("tunnel closed: its forward was removed from the configuration")
            equal(ends.wait(20), 255, "ssh's exit code")
            equal(ask("left"), "left\n", "answer")

        with lab.step("a mistake changes nothing"):
            replace(lab, "service-proxy.toml", "[hubs.acme]\nforwards = 1\n")
            service.wait_for(r"the configuration is unchanged, since \S+ cannot be used: line 2: hubs\.acme\.forwards")
            equal(ask("after"), "after\n", "answer")


def run(lab, ssh, client, me):
    return lab.run([ssh, *client, me, "echo new"]).stdout


def replace(lab, name, text):
    """As editors and certbot do it."""
    new = lab.secret_file("new", text)
    os.replace(new, lab.folder / name)


def write_device(lab, hub, settings):
    lines = [f'connection-string-file = "{lab.folder}/{hub.name}-device.cs"', f'ca-file = "{hub.ca}"', settings]
    replace(lab, f"{hub.name}-device.toml", "\n".join(lines))


def write_service(lab, hubs, ports, settings=""):
    lines = [settings]
    for hub, forwards in zip(hubs, ports):
        lines += [
            f"[hubs.{hub.name}]",
            f'connection-string-file = "{lab.folder}/{hub.name}.cs"',
            f'ca-file = "{hub.ca}"',
            f'device = "{DEVICE}"',
            f"forward = {[f'{port}:ssh' for port in forwards]}",
        ]
    replace(lab, "service-proxy.toml", "\n".join(lines))


if __name__ == "__main__":
    harness.run(main)
