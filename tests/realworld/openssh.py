#!/usr/bin/env python3
"""OpenSSH through a device stream, as users work with it.

An sshd of its own (port, keys and configuration), behind a device-proxy; the
clients are the system's ssh, scp and rsync.
"""

import contextlib
import getpass
import os
import pathlib
import subprocess
import threading
import time

import harness
from harness import DEVICE, VOLUME_MIB, check, equal

SESSIONS = 10
FULL_MIB = 1024  # what --full moves


def main(lab):
    sshd, ssh, scp, rsync, keygen = harness.need("sshd", "ssh", "scp", "rsync", "ssh-keygen")
    server = Sshd(lab, sshd, keygen)

    hub = harness.Hub(lab).start()
    hub.device_proxy(hub.create_device(), "--target", f"ssh=127.0.0.1:{server.port}")
    _, [port] = hub.listen("ssh")

    client = [*server.client_options, "-p", str(port)]
    me = f"{server.user}@localhost"

    with lab.step("ssh runs a command"):
        result = lab.run([ssh, *client, me, "echo out; echo err >&2; exit 7"], ok=False)
        equal((result.stdout, result.returncode), ("out\n", 7), "output and exit code")
        check("err" in result.stderr, f"no error output: {result.stderr!r}")

    with lab.step("ssh carries standard input to its end"):
        result = lab.run([ssh, *client, me, "sha256sum"], input="x" * 300_000)
        expected = subprocess.run(["sha256sum"], input=b"x" * 300_000, capture_output=True).stdout.decode()
        equal(result.stdout, expected, "hash of what arrived")

    with lab.step("ssh with a terminal: one keystroke at a time"):
        if os.geteuid() != 0:
            raise harness.Skip("an sshd that is not root's cannot make a terminal")
        keystrokes(ssh, client, me)

    timeout = harness.transfer_timeout(VOLUME_MIB)
    original = harness.random_file(lab.folder / "original", VOLUME_MIB)
    there, back = lab.folder / "there", lab.folder / "back"
    scp_options = [*server.client_options, "-P", str(port)]

    with lab.step(f"scp of {VOLUME_MIB} MiB to the device"):
        lab.run([scp, *scp_options, original, f"{me}:{there}"], timeout)
        equal(harness.sha256(there), harness.sha256(original), "SHA-256")

    with lab.step(f"scp of {VOLUME_MIB} MiB from the device"):
        lab.run([scp, *scp_options, f"{me}:{original}", back], timeout)
        equal(harness.sha256(back), harness.sha256(original), "SHA-256")
    for file in (there, back):
        file.unlink(missing_ok=True)

    if VOLUME_MIB >= FULL_MIB:
        with lab.step("a session that says nothing for two minutes is still there"):
            with long_session(ssh, client, me) as ask:
                equal(ask("before"), "before\n", "answer")
                time.sleep(130)  # twice the lifetime of a streaming token
                equal(ask("after"), "after\n", "answer")

    with lab.step("rsync of a tree, and again after a change"):
        tree, copy = make_tree(lab.folder / "tree"), lab.folder / "copy"
        shell = " ".join([ssh, *client])
        for changed in (False, True):
            if changed:
                (tree / "0" / "file-0").unlink()
                (tree / "0" / "file-1").write_bytes(b"changed")
            lab.run([rsync, "-a", "--delete", "-e", shell, f"{tree}/", f"{me}:{copy}/"], timeout)
            equal(digests(copy), digests(tree), "files and hashes")

    with lab.step("ssh by device id, with service-proxy as ProxyCommand"):
        options = " ".join(str(word) for word in hub.service_options())
        proxy = f"{harness.binary('service-proxy')} {options} --log-level trace connect %n ssh"
        result = lab.run(
            [ssh, *server.client_options, "-o", f"ProxyCommand={proxy}", f"{server.user}@{DEVICE}", "echo by id"]
        )
        equal(result.stdout, "by id\n", "output")
        # Its log is ssh's standard error.
        check(not lab.holds_secret(result.stderr.encode()), "a secret is in its log")

    with lab.step(f"{SESSIONS} sessions at once, while one more stays open"):
        with long_session(ssh, client, me) as ask:
            equal(ask("before"), "before\n", "the long session's answer")
            many_sessions(ssh, client, me)
            equal(ask("after"), "after\n", "the long session's answer")


class Sshd:
    """An sshd for the current user, with keys made for this run. Clients know it as `host`, and log
    in with `user_key`, or with one made for it. `settings` are further lines of its configuration."""

    def __init__(
        self, lab, sshd, keygen, port=None, name="ssh", under=(), host=DEVICE, user_key=None, settings=()
    ):  # fmt: skip
        folder = lab.folder / name
        folder.mkdir(mode=0o700)
        self.user = getpass.getuser()
        self.port = port or harness.free_port()
        self.user_key = user_key or folder / "user_key"
        self.known_hosts = folder / "known_hosts"
        for key in (folder / "host_key", *([] if user_key else [self.user_key])):
            lab.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key])
        (folder / "authorized_keys").write_bytes(self.user_key.with_suffix(".pub").read_bytes())
        host_key = (folder / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"{host} {host_key[0]} {host_key[1]}\n")
        (folder / "sshd_config").write_text(
            f"""
            Port {self.port}
            ListenAddress 127.0.0.1
            HostKey {folder}/host_key
            PidFile {folder}/sshd.pid
            AuthorizedKeysFile {folder}/authorized_keys
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            StrictModes no
            UsePAM no
            PrintMotd no
            MaxStartups 100
            Subsystem sftp internal-sftp
            """.replace("            ", "")
            + "".join(f"{line}\n" for line in settings)
        )
        # As root sshd requires this folder, which is missing where it has never run.
        if os.geteuid() == 0:
            pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        process = lab.start(f"{name}d", [*under, sshd, "-D", "-e", "-f", folder / "sshd_config"])
        process.wait_for(r"Server listening on")
        self.client_options = [
            "-F", "/dev/null",
            "-i", str(self.user_key),
            "-o", "IdentitiesOnly=yes",
            "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={self.known_hosts}",
            "-o", f"HostKeyAlias={host}",
            "-o", "ConnectTimeout=30",
        ]  # fmt: skip


def keystrokes(ssh, client, me):
    """An interactive `cat`: every key comes back before the next is pressed."""
    with opened([ssh, "-tt", *client, me, "stty raw -echo; echo go; exec cat"]) as session:
        equal(session.stdout.readline().strip(), b"go", "the first line")
        for key in b"the quick brown fox":
            session.stdin.write(bytes([key]))
            session.stdin.flush()
            equal(session.stdout.read(1), bytes([key]), "the key that came back")


@contextlib.contextmanager
def long_session(ssh, client, me):
    with opened([ssh, *client, me, "exec cat"]) as session:

        def ask(text):
            session.stdin.write(f"{text}\n".encode())
            session.stdin.flush()
            return session.stdout.readline().decode()

        yield ask
        session.stdin.close()
        equal(session.wait(20), 0, "exit code of the long session")


@contextlib.contextmanager
def opened(argv, limit=240):
    """A session with pipes, ended by a timer so that no read waits without a limit."""
    session = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    timer = threading.Timer(limit, session.kill)
    timer.start()
    try:
        yield session
    finally:
        timer.cancel()
        session.kill()
        session.wait()


def many_sessions(ssh, client, me):
    """Each session prints numbers of its own: none may be lost or mixed up."""
    command = "for n in $(seq 2000); do echo {0}-$n; done"
    running = [
        subprocess.Popen([ssh, *client, me, command.format(name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in range(SESSIONS)
    ]
    try:
        for name, session in enumerate(running):
            out, err = session.communicate(timeout=90)
            expected = "".join(f"{name}-{n}\n" for n in range(1, 2001)).encode()
            check(out == expected, f"session {name}: {len(out)} of {len(expected)} bytes, {err[-300:]!r}")
    finally:
        for session in running:
            session.kill()


def make_tree(folder):
    """Many small files, some large, an empty one, and names that need quoting."""
    for sub in range(5):
        (folder / str(sub)).mkdir(parents=True)
        for number in range(40):
            (folder / str(sub) / f"file-{number}").write_bytes(os.urandom(number * 97))
    (folder / "large").write_bytes(os.urandom(3_000_000))
    (folder / "empty").touch()
    (folder / "name with blanks; and ünïcode").write_text("text")
    return folder


def digests(folder):
    return {str(path.relative_to(folder)): harness.sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


if __name__ == "__main__":
    harness.run(main)
