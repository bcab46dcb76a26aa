#!/usr/bin/env python3
"""The programs that were built for other systems: for Windows under Wine, for ARM under QEMU, and
without a C library in an empty root. `scripts/targets` builds them, and calls this with the target's
name; FOREIGN_DIR is where they are. The programs at the other end are this machine's own."""

import os
import pathlib
import shutil
import signal
import sys
import time

import harness
import wine
from harness import DEVICE, check, equal

FOREIGN_DIR = pathlib.Path(os.environ.get("FOREIGN_DIR", harness.BIN_DIR)).resolve()
EMULATORS = {
    "aarch64": ("qemu-aarch64", "/usr/aarch64-linux-gnu"),
    "armv7": ("qemu-arm", "/usr/arm-linux-gnueabihf"),
}
DOWN_SECONDS = 1
SETTLED_SECONDS = 3
BYTES = 100_000
CONNECTED = "connected; streams reach"


def main(lab):
    [target] = sys.argv[1:] or [None]
    if target == "windows":
        wine.main(lab, FOREIGN_DIR, survives)
    elif target in EMULATORS:
        emulated(lab, *EMULATORS[target])
    elif target == "musl":
        static(lab)
    else:
        raise harness.Failure("targets.py windows|aarch64|armv7|musl")


def emulated(lab, emulator, libraries):
    """A device-proxy for another processor, against this machine's hub and service-proxy."""
    under = [harness.need(emulator), "-L", libraries]
    program = FOREIGN_DIR / "device-proxy"
    with lab.step(f"device-proxy starts under {emulator}"):
        says = lab.run([*under, program, "--version"]).stdout.strip()
        check(says.startswith("device-proxy "), f"it says {says!r}")

    hub = harness.Hub(lab).start()
    echo = harness.TcpServer(harness.echo_back)
    string = lab.secret_file("device", hub.create_device())
    options = ["--connection-string-file", string, "--ca-file", hub.ca, "--log-level", "trace"]
    targets = ["--echo", "--target", f"tcp=127.0.0.1:{echo.port}"]
    device = lab.start(f"device-{emulator}", [*under, program, *options, *targets])
    lab.ours.append(device)
    with lab.step("it connects to the hub"):
        device.wait_for(CONNECTED, timeout=60)

    time.sleep(SETTLED_SECONDS)  # until it is idle
    own, with_qemu = own_mib(device), device.resident_mib()
    print(f"        idle, it takes {own:.1f} MiB of memory (with QEMU {with_qemu:.1f})")

    with lab.step("an echo test comes back whole"):
        result = hub.echo("--count", "3", "--interval", "0.1", "--size", "1000")
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()[-300:]})")

    _, [port] = hub.listen("tcp")
    with lab.step("a connection to a target goes on after the hub was killed"):
        survives(port, hub, device)

    with lab.step("it ends by itself when told to"):
        # QEMU passes signals on.
        device.signal(signal.SIGTERM)
        equal(device.wait(20), 0, "exit code")
    echo.close()


def own_mib(process):
    """What of a process under QEMU is the program's memory and not QEMU's: what it maps below 2^40."""
    total = 0
    with open(f"/proc/{process.pid}/smaps") as smaps:
        for line in smaps:
            word, value = line.split()[:2]
            if "-" in word:
                is_own = int(word.split("-")[0], 16) < 1 << 40
            elif word == "Rss:" and is_own:
                total += int(value)
    return total / 1024


def survives(port, hub, device):
    """Bytes before a kill of the hub, into it, and after it, on one connection to an echo."""
    with harness.connect(port, timeout=60) as connection:

        def echoed(sent):
            check(harness.receive_exactly(connection, len(sent)) == sent, "other bytes came back")

        before, into, after = (os.urandom(BYTES) for _ in range(3))
        connection.sendall(before)
        echoed(before)
        connection.sendall(into)
        connections = device.output.count(CONNECTED)
        hub.process.kill()
        time.sleep(DOWN_SECONDS)
        hub.start()
        echoed(into)
        connection.sendall(after)
        echoed(after)
    harness.wait_until(lambda: device.output.count(CONNECTED) > connections, 60, "the device connects again")


def static(lab):
    """All three programs need nothing else: in a root that holds them alone."""
    names = ("device-proxy", "service-proxy", "stream-hub")
    with lab.step("the three programs need no library"):
        readelf = harness.need("readelf")
        for name in names:
            headers = lab.run([readelf, "--program-headers", "--dynamic", "--wide", FOREIGN_DIR / name]).stdout
            check("INTERP" not in headers and "NEEDED" not in headers, f"{name} is not static")
            print(f"        {name}: static")

    if os.geteuid() != 0:
        raise harness.Skip("only root can change the root")
    root = lab.folder / "root"
    root.mkdir(mode=0o700)
    for name in names:
        shutil.copy(FOREIGN_DIR / name, root / name)
    under = [harness.need("chroot"), root]
    https, mqtts = harness.free_port(), harness.free_port()
    with lab.step("in a root with nothing else, a stream reaches its target and comes back"):
        address = f"127.0.0.1:{https}"
        listen = ["--hostname", address, "--https", address, "--mqtts", f"127.0.0.1:{mqtts}"]
        hub = start(lab, "stream-hub", under, "serve", "--data-dir", "/data", *listen)
        hub.wait_for(r"\bready\b")
        for file, command in (
            ("device.cs", ["device", "create", DEVICE]),
            ("service.cs", ["policy", "connection-string", "service"]),
        ):
            text = lab.run([*under, "/stream-hub", *command, "--data-dir", "/data"]).stdout
            lab.remember_secrets(text)
            (root / file).write_text(text)
        ca = ["--ca-file", "/data/tls/ca.pem"]
        device = start(lab, "device-proxy", under, "--connection-string-file", "/device.cs", "--echo", *ca)
        device.wait_for(CONNECTED)
        options = ["--connection-string-file", "/service.cs", *ca]
        echo = start(lab, "service-proxy", under, *options, "echo", DEVICE, "--count", "3", "--interval", "0.1")
        equal(echo.wait(60), 0, f"exit code ({echo.tail()})")
        files = {path.name for path in root.iterdir() if path.is_file()}
        equal(files, {*names, "device.cs", "service.cs"}, "files")
        device.signal(signal.SIGINT)
        equal(device.wait(20), 0, "exit code of device-proxy")


def start(lab, name, under, *arguments):
    process = lab.start(f"{name}-static", [*under, f"/{name}", *arguments, "--log-level", "trace"])
    lab.ours.append(process)
    return process


if __name__ == "__main__":
    harness.run(main)
