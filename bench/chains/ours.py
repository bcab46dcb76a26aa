"""Our three programs, started as users start them."""

import re

import harness
from chains.base import Chain
from harness import DEVICE
from measuring import unlimited

PROGRAMS = ("stream-hub", "device-proxy", "service-proxy")

# A plain stream has no half-close and stays open for 5 s after the end of input; connections that
# are opened in that time must have room.
ROOM = 20_000


class Ours(Chain):
    install = "cargo build --profile dist --workspace"
    session = ""

    @classmethod
    def missing(cls):
        return ", ".join(name for name in PROGRAMS if not (harness.BIN_DIR / name).exists()) or None

    @classmethod
    def versions(cls):
        return {name: harness.output_of(name, "--version").stdout.strip() for name in PROGRAMS}

    def launch(self):
        self.hub = harness.Hub(self.lab, name=f"{self.name}-hub")
        # A second instance must not find the first one's devices.
        self.hub.data = self.folder / "hub-data"
        self.hub.start(log_level=None, env=unlimited.environment(self.folder, "hub"))
        self.device = self.hub.device_proxy(
            self.hub.create_device(),
            "127.0.0.1", self.target_port,
            "--max-streams", ROOM,
            name=f"{self.name}-device-proxy", log_level=None,
        )  # fmt: skip
        # Connected, and session support is reported in its twin.
        self.device.wait_for("connected")
        self.service, ports = self.hub.listen(
            None,
            device=DEVICE,
            name=f"{self.name}-service-proxy",
            arguments=("--session", self.session, "--max-connections", ROOM),
            log_level=None,
        )
        self.address = f"127.0.0.1:{ports[0]}"


class Plain(Ours):
    name = "plain"
    about = "our three programs, a device stream for each connection"
    session = "never"


class Session(Ours):
    name = "session"
    about = "our three programs, all connections in one session"
    session = "always"
