"""Habits of habits.py with a picture: VNC, and many RDP clients."""

import concurrent.futures
import contextlib
import pathlib
import random
import threading

import harness
import rdp
from habits_world import BACK_SECONDS, Habit
from harness import check, equal

SIZE = (640, 480)
RDP_SIZE = (400, 300)
SESSIONS = 4
STORM = 16
COLUMNS = 5
PICTURE_SECONDS = 60


class Vnc(Habit):
    title = "TigerVNC: the viewer goes on and shows, pixel for pixel, what the server shows"

    def start(self):
        server, viewer, xvfb, self.convert, self.display, self.screenshot, xdotool = harness.need(
            "Xtigervnc", "xtigervncviewer", "Xvfb", "convert", "display", "import", "xdotool"
        )
        size = f"{SIZE[0]}x{SIZE[1]}"
        # With -displayfd it would take no lock, and a server in another namespace the same number.
        self.far = free_display()
        self.ground.start(
            "vnc-server", server, self.far, "-geometry", size, "-depth", "24", "-SecurityTypes", "None",
            "-localhost", "-rfbport", self.ground.vnc, at_device=True,
        )  # fmt: skip
        harness.wait_until(pathlib.Path(f"/tmp/.X11-unix/X{self.far[1:]}").exists, 20, "Xtigervnc listens")
        screen = self.lab.start(
            "vnc-screen", [xvfb, "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]
        )
        self.near = display_of(screen)
        self.drawn = 0
        self.draw()
        options = ["-SecurityTypes=None", "-AutoSelect=0", "-PreferredEncoding=ZRLE", "-FullColor=1", "-NoJPEG=1"]
        options += ["-RemoteResize=0", "-ReconnectOnError=0", "-AlertOnFatalError=0"]
        # It listens to DISPLAY, but not in the environment of our clients.
        self.process = self.ground.start(
            "vnc-viewer", viewer, "-display", self.near, *options, f"127.0.0.1::{self.ground.vnc_port}"
        )
        self.find = [xdotool, "search", "--onlyvisible", "--name", "TigerVNC"]

    def draw(self):
        """Another picture on the device's desktop."""
        self.drawn += 1
        file = self.lab.folder / "drawn.png"
        size = f"{SIZE[0]}x{SIZE[1]}"
        before = self.take(self.far, "root")
        self.lab.run([self.convert, "-size", size, "-seed", str(self.drawn), "plasma:red-blue", file])
        # Its exit code is 1 when it has drawn it.
        self.lab.run(["env", f"DISPLAY={self.far}", self.display, "-window", "root", file], ok=False)
        there = self.take(self.far, "root")
        check(there != before and rdp.distinct_colours(there) > 100, "no new picture on the server")

    def take(self, display, window):
        argv = [self.screenshot, "-display", display, "-silent", "-window", window, "-depth", "8", "rgb:-"]
        return self.lab.run(argv, text=False).stdout

    def same(self):
        check(self.process.running(), f"the viewer ended with {self.process.popen.returncode}: {self.process.tail()}")
        found = self.lab.run(["env", f"DISPLAY={self.near}", *self.find], ok=False).stdout.split()
        if not found:
            return False
        there = self.take(self.far, "root")
        equal(len(there), SIZE[0] * SIZE[1] * 3, "bytes of the server's picture")
        return self.take(self.near, found[0]) == there

    def shows(self, when):
        harness.wait_until(self.same, PICTURE_SECONDS, f"the viewer shows what the server shows {when}", pause=0.2)

    def in_the_middle(self):
        return self.same()

    def in_the_dark(self, fault):
        self.draw()
        check(not self.same(), f"the new picture is there although {fault}")

    def moves_again(self):
        self.shows("after the hub's return")

    def finish(self):
        self.shows("after both faults")
        self.draw()
        self.shows("later")
        window = self.lab.run(["env", f"DISPLAY={self.near}", *self.find]).stdout.split()[0]
        self.lab.run([self.screenshot, "-display", self.near, "-silent", "-window", window, self.lab.logs / "vnc.png"])


def free_display():
    taken = {path.name for path in pathlib.Path("/tmp/.X11-unix").glob("X*")}
    return next(f":{number}" for number in random.sample(range(100, 1000), 900) if f"X{number}" not in taken)


def display_of(server):
    return ":" + server.wait_for(r"^(\d+)$")[1]


class Desktops:
    """An xrdp on the device and a large screen on the operator's machine, for all RDP clients."""

    lock = threading.Lock()
    only = None

    @classmethod
    def of(cls, ground):
        with cls.lock:
            if cls.only is None:
                cls.only = cls(ground)
            return cls.only

    def __init__(self, ground):
        self.ground, self.lab = ground, ground.lab
        server, xvfb, self.freerdp, *tools = harness.need("xrdp", "Xvfb", "xfreerdp|xfreerdp3", "import", "xdotool")
        rdp.start_xrdp(ground.lab, server, port=ground.rdp, namespace=ground.world.device)
        rows = -(-(SESSIONS + STORM) // COLUMNS)
        size = (RDP_SIZE[0] * COLUMNS, RDP_SIZE[1] * rows)
        self.screen = rdp.Screen(ground.lab, xvfb, self.freerdp, *tools, size=size)

    def client(self, name, place, port, *options):
        left, top = place % COLUMNS * RDP_SIZE[0], place // COLUMNS * RDP_SIZE[1]
        words = [f"/v:127.0.0.1:{port}", f"/t:{name}", "/u:", "/cert:ignore", f"/size:{RDP_SIZE[0]}x{RDP_SIZE[1]}"]
        process = self.lab.start(
            f"freerdp-{name}",
            [*self.ground.on_service, self.freerdp, *words, f"/window-position:{left}x{top}", *options],
            env={**self.screen.env, "HOME": self.ground.client_environment["HOME"]},
        )  # fmt: skip
        return rdp.Session(self.screen, name, process, RDP_SIZE)


class Rdp(Habit):
    count = 0
    first = 0
    options = ()

    def port(self):
        raise NotImplementedError

    def start(self):
        desktops = Desktops.of(self.ground)
        name = type(self).__name__.lower()
        self.sessions = [
            desktops.client(f"{name}-{number}", self.first + number, self.port(), *self.options)
            for number in range(self.count)
        ]
        # A few at once: each runs other programs.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda session: session.login_screen(PICTURE_SECONDS), self.sessions))

    def in_the_middle(self):
        return all(session.window() for session in self.sessions)

    def lost(self):
        """The clients whose connection was reset once or more."""
        return [one.name for one in self.sessions if "reset by peer" in one.process.output]

    def check_typing(self, when):
        """A letter typed here is shown by the device: the picture changes, in a small place. So no
        picture is one of before."""

        def typed(session, letter):
            before = session.picture()
            session.press(letter)
            harness.wait_until(
                # More than a blinking cursor.
                lambda: 0.0001 < 1 - rdp.similarity(session.picture(), before) < 0.05,
                3,
                f"{session.name} shows a letter",
            )
            return True

        def shows(session):
            # A client that connects again takes no key meanwhile.
            with contextlib.suppress(harness.Failure):
                return typed(session, "w")

        for session in self.sessions:
            harness.wait_until(lambda: shows(session), BACK_SECONDS, f"{session.name} shows what is typed {when}")

    def moves_again(self):
        self.check_typing("after the hub's return")

    def finish(self):
        self.check_typing("after both faults")

    def close(self):
        for session in self.sessions:
            session.process.kill()


class RdpSessions(Rdp):
    title = f"FreeRDP, {SESSIONS} clients in sessions: the same connections go on"
    count = SESSIONS

    def port(self):
        return self.ground.rdp_port

    def finish(self):
        super().finish()
        equal(self.lost(), [], "clients that had to connect again")


class RdpStorm(Rdp):
    title = f"FreeRDP reconnect storm: {STORM} clients without sessions connect again at once, by themselves"
    count = STORM
    first = SESSIONS
    options = ("+auto-reconnect", "/auto-reconnect-max-retries:30")

    def port(self):
        return self.ground.plain_rdp_port

    def finish(self):
        super().finish()
        equal(len(self.lost()), STORM, "clients whose connection was cut")
