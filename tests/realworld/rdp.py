#!/usr/bin/env python3
"""RDP through a device stream: FreeRDP shows xrdp's login screen.

The same client first connects without a tunnel; what it shows then is what it
has to show through the tunnel. The pictures stay in target/realworld/rdp/.
"""

import contextlib
import os
import re
import shutil
import time

import harness
from harness import check, equal

WIDTH, HEIGHT = 1000, 700
STAYS_SECONDS = 5


def main(lab):
    xrdp, xvfb, freerdp, screenshot, xdotool = harness.need("xrdp", "Xvfb", "xfreerdp|xfreerdp3", "import", "xdotool")
    server_port = start_xrdp(lab, xrdp)
    screen = Screen(lab, xvfb, freerdp, screenshot, xdotool)

    with screen.connected("direct", server_port) as session:
        expected = session.login_screen()
    check(distinct_colours(expected) > 100, "the direct connection shows no login screen")

    hub = harness.Hub(lab).start()
    hub.device_proxy(hub.create_device(), "--target", f"rdp=127.0.0.1:{server_port}")
    _, [port] = hub.listen("rdp")

    with lab.step("FreeRDP shows the login screen through the tunnel, and stays"):
        with screen.connected("tunnel", port) as session:
            picture = session.login_screen()
            check(distinct_colours(picture) > 100, f"only {distinct_colours(picture)} colours")
            same = similarity(picture, expected)
            check(same > 0.98, f"only {same:.1%} of the picture is as without a tunnel")
            session.stays_for(STAYS_SECONDS)

    with lab.step("keys pressed here show up there"):
        with screen.connected("typed", port) as session:
            before = session.login_screen()
            session.type("MyUser")
            harness.wait_until(
                # Six letters are more than a blinking cursor and less than another screen.
                lambda: 0.0002 < 1 - similarity(session.picture(), before) < 0.02,
                10,
                "the letters appear",
            )
            session.save()

    with lab.step("the login screen still opens after clients that connect and drop"):
        for _ in range(20):
            with harness.connect(port) as probe:
                probe.sendall(CONNECTION_REQUEST)
        with screen.connected("after-drops", port) as session:
            same = similarity(session.login_screen(), expected)
            check(same > 0.98, f"only {same:.1%} of the picture is as without a tunnel")

    with lab.step("two RDP sessions at once"):
        with screen.connected("first", port) as first, screen.connected("second", port, left=WIDTH) as second:
            for session in (first, second):
                check(similarity(session.login_screen(), expected) > 0.98, f"{session.name} shows something else")
            first.stays_for(1)


# X.224 Connection Request with an RDP negotiation request for TLS: how every client begins.
CONNECTION_REQUEST = bytes.fromhex("03000013 0ee000000000 00 0100080001000000")


def start_xrdp(lab, xrdp, port=None, namespace=None):
    """An xrdp with its own configuration; its login screen needs no session manager. In a namespace of
    `network`, if one is given."""
    folder = lab.folder / "xrdp"
    shutil.copytree("/etc/xrdp", folder, ignore=lambda *_: ["key.pem", "cert.pem", "rsakeys.ini"])
    certificate, key = folder / "own-cert.pem", folder / "own-key.pem"
    openssl = harness.need("openssl")
    subject = ["-subj", "/CN=localhost", "-days", "2"]
    lab.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *subject])

    port = port or harness.free_port()
    settings = {
        "port": f"tcp://127.0.0.1:{port}",
        "certificate": certificate,
        "key_file": key,
        "LogFile": lab.logs / "xrdp.log",
        "EnableSyslog": "false",
    }
    file = folder / "xrdp.ini"
    text = file.read_text()
    for name, value in settings.items():
        # The first of each name: sections further down have a `port` of their own.
        text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, count=1, flags=re.MULTILINE)
    file.write_text(text)
    under = namespace.exec_prefix if namespace else []
    lab.start("xrdp", [*under, xrdp, "--nodaemon", "--config", file])
    connect = namespace.connect if namespace else harness.connect

    def answers():
        with contextlib.suppress(OSError), connect(port, timeout=1):
            return True

    harness.wait_until(answers, 20, "xrdp listens")
    return port


class Screen:
    """An X display without a screen, and FreeRDP on it."""

    def __init__(self, lab, xvfb, freerdp, screenshot, xdotool, size=(2 * WIDTH, HEIGHT)):
        self.lab, self.freerdp, self.screenshot, self.xdotool = lab, freerdp, screenshot, xdotool
        # Room for two windows side by side; without -noreset it starts anew, and refuses, between two clients.
        screen = f"{size[0]}x{size[1]}x24"
        server = lab.start("xvfb", [xvfb, "-displayfd", "1", "-screen", "0", screen, "-nolisten", "tcp", "-noreset"])
        number = server.wait_for(r"^(\d+)$")[1]
        self.env = {"DISPLAY": f":{number}"}

    @contextlib.contextmanager
    def connected(self, name, port, left=0):
        argv = [self.freerdp, f"/v:127.0.0.1:{port}", f"/t:{name}", "/u:", "/cert:ignore"]
        argv += [f"/size:{WIDTH}x{HEIGHT}", f"/window-position:{left}x0"]
        process = self.lab.start(f"freerdp-{name}", argv, env=self.env)
        try:
            yield Session(self, name, process)
        finally:
            # FreeRDP prints a stack trace on SIGTERM; SIGKILL ends it at once.
            process.kill()


class Session:
    def __init__(self, screen, name, process, size=(WIDTH, HEIGHT)):
        self.screen, self.name, self.process, self.size = screen, name, process, size

    def tool(self, *argv, **options):
        return self.screen.lab.run(argv, env={**os.environ, **self.screen.env}, **options)

    def window(self):
        check(self.process.running(), f"FreeRDP ended with {self.process.popen.returncode}: {self.process.tail()}")
        found = self.tool(self.screen.xdotool, "search", "--onlyvisible", "--name", f"^{self.name}$", ok=False)
        return found.stdout.split()[:1]

    def picture(self):
        """The window's pixels, three bytes each."""
        [window] = harness.wait_until(self.window, 20, f"a window named {self.name}")
        argv = [self.screen.screenshot, "-silent", "-window", window, "-depth", "8", "rgb:-"]
        return self.tool(*argv, text=False).stdout

    def login_screen(self, timeout=30):
        """The picture once it shows something and is stable."""
        last = b""

        def at_rest():
            nonlocal last
            previous, last = last, self.picture()
            return distinct_colours(last) > 100 and similarity(last, previous) > 0.999

        harness.wait_until(at_rest, timeout, "the login screen")
        equal(len(last), self.size[0] * self.size[1] * 3, "bytes of the picture")
        self.save()
        return last

    def save(self):
        [window] = self.window()
        self.tool(self.screen.screenshot, "-silent", "-window", window, self.screen.lab.logs / f"{self.name}.png")

    def type(self, text):
        self.tool(self.screen.xdotool, "mousemove", WIDTH // 2, HEIGHT - 40, "type", "--delay", "50", text)

    def press(self, key):
        """A key for this window: without a window manager, the one under the pointer gets it."""
        [window] = self.window()
        self.tool(self.screen.xdotool, "mousemove", "--window", window, self.size[0] // 2, 20, "key", key)

    def stays_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            check(self.window(), "the window is gone")
            time.sleep(0.2)


def pixels(picture):
    return [picture[at : at + 3] for at in range(0, len(picture), 3)]


def distinct_colours(picture):
    return len(set(pixels(picture)))


def similarity(one, other):
    """The share of pixels that are the same."""
    if not one or len(one) != len(other):
        return 0.0
    return sum(a == b for a, b in zip(pixels(one), pixels(other))) / (len(one) // 3)


if __name__ == "__main__":
    harness.run(main)
