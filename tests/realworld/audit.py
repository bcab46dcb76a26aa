#!/usr/bin/env python3
"""The audit log by other means than ours: its chain and its signatures are verified by Python and
openssl, and its disk, a small tmpfs in a mount namespace, really gets full and has room again.
"""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys

import harness
from harness import DEVICE, check, equal

INSIDE = "--inside"


def main(lab):
    openssl, mount = harness.need("openssl", "mount")
    disk = lab.folder / "disk"
    disk.mkdir()
    lab.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk])
    log = disk / "audit.log"
    (lab.folder / "hub.toml").write_text(f'audit-log = ["{log}"]\n[audit]\nsign-seconds = 1\n')
    hub = harness.Hub(lab)

    def start():
        hub.start(env={"STREAM_HUB_CONFIG": str(lab.folder / "hub.toml")})

    start()
    device = hub.device_proxy(hub.create_device(), "--echo")
    device.wait_for("connected; streams reach")

    with lab.step("an echo's streams and connections are recorded"):
        result = hub.echo("--count", "1", "--session", "never")
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()})")
        _, (port,) = hub.listen("echo", arguments=["--session", "always"])
        with harness.connect(port) as stream:
            ping(stream)
        wanted = {"StreamRequested", "StreamEstablished", "StreamEnded", "ConnectionOpened", "ConnectionEnded"}
        harness.wait_until(lambda: wanted <= {record["operationName"] for record in records(log)}, 20, "the records")

    with lab.step("Python and openssl come to the same chain and signatures"):
        (lab.folder / "key.pem").write_text(hub.cli("audit", "key") + "\n")
        heads = verify(lab, openssl, log)
        check(heads >= 1, "there are signed heads")

    with lab.step("a full disk stops new streams, and an open one goes on"):
        service, (port,) = hub.listen("echo", arguments=["--session", "never"])
        open_stream = harness.connect(port)
        ping(open_stream)
        filler = disk / "filler"
        fill(filler)
        # The last page of the log has room for a few records.
        def is_full():
            # Refused streams are resets, which may come at once.
            with contextlib.suppress(OSError):
                harness.connect(port).close()
            return "THE AUDIT LOG CANNOT BE WRITTEN, and new streams are refused" in hub.process.output

        harness.wait_until(is_full, 20, "the full disk is noticed", pause=0.1)
        result = hub.echo("--count", "1", "--session", "never")
        check(result.returncode != 0, "no new stream")
        check("audit log cannot be written" in result.stdout + result.stderr, f"the reason: {result.stderr}")
        ping(open_stream)

    with lab.step("with room again nothing is missing, and streams are opened"):
        filler.unlink()
        hub.process.wait_for("the audit log is written again")
        result = hub.echo("--count", "1", "--session", "never")
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()})")
        open_stream.close()
        hub.cli("audit", "verify")
        check(not any(record["operationName"] == "RecordsLost" for record in records(log)), "nothing was lost")

    with lab.step("a hub that was killed goes on"):
        hub.process.kill()
        hub.process.wait()
        hub.cli("policy", "create", "beside")
        start()
        harness.wait_until(lambda: any(record.get("policy") == "beside" for record in records(log)), 20, "the change")
        hub.cli("audit", "verify")
        verify(lab, openssl, log)

    with lab.step("a changed line is found"):
        hub.process.stop()
        text = log.read_text()
        log.write_text(text.replace(f'"deviceId":"{DEVICE}"', '"deviceId":"Other"', 1))
        result = harness.output_of("stream-hub", "audit", "verify", "--data-dir", hub.data)
        equal(result.returncode, 1, "exit code")
        check("the line was changed" in result.stderr, result.stderr)
        log.write_text(text)
        hub.cli("audit", "verify")


def records(log):
    lines = log.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def ping(stream):
    stream.settimeout(20)
    stream.sendall(b"x")
    equal(stream.recv(1), b"x", "the echo")


def fill(path):
    """Leaves no byte."""
    with open(path, "wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                pass
            size //= 2


def verify(lab, openssl, log):
    """The chain, from nothing but the documentation; the number of signed heads."""
    prev, heads = "0" * 64, 0
    for number, line in enumerate(log.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        record = json.loads(line)
        content, _, rest = line.rpartition(b',"hash":"')
        equal(rest, f'{record["hash"]}"}}\n'.encode(), "the end of a line")
        equal(record["seq"], number, "the number")
        equal(record["prev"], prev, "prev")
        prev = hashlib.sha256(b"device-streams audit line 1\n" + content).hexdigest()
        equal(record["hash"], prev, "hash")
        if "signature" in record:
            heads += 1
            signed, _, _ = content.rpartition(b',"signature":"')
            (lab.folder / "signed").write_bytes(b"device-streams audit head 1\n" + signed)
            (lab.folder / "signature").write_bytes(base64.b64decode(record["signature"]))
            lab.run([
                openssl, "pkeyutl", "-verify", "-pubin", "-inkey", lab.folder / "key.pem", "-rawin",
                "-in", lab.folder / "signed", "-sigfile", lab.folder / "signature",
            ])  # fmt: skip
    return heads


def outside():
    unshare = harness.find_tool("unshare")
    if os.geteuid() != 0 or not unshare:
        print("audit: could not run: a mount namespace needs root and unshare")
        return 1 if harness.REQUIRE_ALL else harness.SKIPPED
    line = [unshare, "--mount", "--propagation", "private", sys.executable, __file__, INSIDE]
    return subprocess.run(line).returncode


if __name__ == "__main__":
    if INSIDE in sys.argv:
        harness.run(main)
    sys.exit(outside())
