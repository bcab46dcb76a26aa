"""ssh through a jump host: `ssh -R` from the device, `ssh -L` from the operator, and an sshd with
its own keys between them."""

import getpass
import os
import pathlib
import subprocess

import harness
from chains.base import Chain

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PrintMotd no
AllowTcpForwarding yes
"""


class Ssh(Chain):
    name = "ssh"
    about = "ssh -L and ssh -R through an sshd"
    needs = ("ssh", "sshd", "ssh-keygen")
    install = "apt-get install openssh-client openssh-server"

    @classmethod
    def versions(cls):
        words = [harness.find_tool("ssh"), "-V"]
        text = subprocess.run(words, capture_output=True, text=True, timeout=20).stderr
        return {"ssh": text.strip()}

    def launch(self):
        for key in ("host_key", "user_key"):
            keygen = [harness.find_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", ""]
            words = [*keygen, "-f", self.folder / key]
            subprocess.run(words, check=True, timeout=60, stdin=subprocess.DEVNULL)
        (self.folder / "authorized_keys").write_bytes((self.folder / "user_key.pub").read_bytes())
        sshd, jump, local = (harness.free_port() for _ in range(3))
        host_key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{sshd} {host_key}\n")
        (self.folder / "sshd_config").write_text(SSHD.format(port=sshd, folder=self.folder))
        # As root, sshd requires this folder, which exists only after a first start of the service.
        if os.geteuid() == 0:
            pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        words = [harness.find_tool("sshd"), "-D", "-e", "-f", self.folder / "sshd_config"]
        server = self.program("sshd", words)
        self.wait_for_listener(server, sshd)
        device = self.client("device", sshd, "-R", f"127.0.0.1:{jump}:{self.target}")
        self.wait_for_listener(device, jump)
        service = self.client("service", sshd, "-L", f"127.0.0.1:{local}:127.0.0.1:{jump}")
        self.wait_for_listener(service, local)
        self.address = f"127.0.0.1:{local}"

    def client(self, name, sshd, *forwarding):
        return self.program(
            name,
            [
                harness.find_tool("ssh"), "-N", "-F", "/dev/null", "-p", sshd,
                "-i", self.folder / "user_key", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", "StrictHostKeyChecking=yes",
                "-o", f"UserKnownHostsFile={self.folder}/known_hosts",
                "-o", "ExitOnForwardFailure=yes",
                *forwarding, f"{getpass.getuser()}@127.0.0.1",
            ],
        )  # fmt: skip
