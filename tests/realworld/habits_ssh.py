"""Habits of habits.py that are ssh: git, sftp, sshfs, rsync, and ssh's forwards."""

import http.server
import os
import threading

import harness
import openssh
from habits_world import FILE_MIB, NAME, Transfer, quoted, size_below, size_of
from harness import check, equal

REPOSITORY_MIB = FILE_MIB


class Git(Transfer):
    """A repository of random bytes, which neither end can make smaller."""

    def __init__(self, ground):
        super().__init__(ground)
        self.git = harness.need("git")
        self.name = type(self).__name__.lower()
        self.original = ground.lab.folder / f"{self.name}-original"
        self.bare = ground.device_folder / f"{self.name}.git"

    def make(self):
        self.do("init", "--quiet", "--initial-branch", "main", self.original, folder=None)
        for number in range(3):
            harness.random_file(self.original / f"file-{number}", REPOSITORY_MIB // 3)
            (self.original / f"note-{number}").write_text(f"{number}\n" * 50)
            self.do("add", "--all")
            self.do("commit", "--quiet", "--message", f"Change {number}")

    def do(self, *words, folder=True):
        place = ["-C", self.original if folder is True else folder] if folder else []
        return self.lab.run([self.git, *place, *words], env=self.ground.client_environment).stdout.strip()

    def head(self, folder):
        return self.do("rev-parse", "refs/heads/main", folder=folder)

    def check_copy(self, folder):
        self.do("fsck", "--full", "--strict", folder=folder)
        equal(self.head(folder), self.head(self.original), "HEAD")


class Clone(Git):
    title = "git clone over ssh: the pack goes on, fsck and HEAD agree"

    def start(self):
        self.make()
        self.do("clone", "--quiet", "--bare", self.original, self.bare, folder=None)
        self.copy = self.ground.service_folder / "clone"
        # Like a person's `git clone MyDevice.device:repository`.
        self.process = self.ground.start("git-clone", self.git, "clone", f"{NAME}:{self.bare}", self.copy)

    def size(self):
        return size_below(self.copy / ".git" / "objects") if self.copy.exists() else 0

    def finish(self):
        self.check_exit()
        self.check_copy(self.copy)


class Push(Git):
    title = "git push over ssh: the pack goes on, fsck and HEAD agree"

    def start(self):
        self.make()
        self.do("init", "--quiet", "--bare", "--initial-branch", "main", self.bare, folder=None)
        url = f"ssh://{NAME}{self.bare}"
        self.process = self.ground.start("git-push", self.git, "-C", self.original, "push", url, "main")

    def size(self):
        return size_below(self.bare / "objects")

    def finish(self):
        self.check_exit()
        self.check_copy(self.bare)


class FileCopy(Transfer):
    """One file, from the operator's machine to the device, or back."""

    to_device = True

    def __init__(self, ground):
        super().__init__(ground)
        near, far = ground.service_folder, ground.device_folder
        source, sink = (near, far) if self.to_device else (far, near)
        name = type(self).__name__.lower()
        self.original, self.copy = source / f"{name}-original", sink / f"{name}-copy"

    def start(self):
        harness.random_file(self.original, FILE_MIB)
        self.run()

    def run(self):
        raise NotImplementedError

    def size(self):
        return size_of(self.copy)

    def finish(self):
        self.check_exit()
        self.compare()

    def compare(self):
        equal(harness.sha256(self.copy), harness.sha256(self.original), "SHA-256")


class SftpPut(FileCopy):
    title = "sftp put: the file is the same"
    verb = "put"

    def run(self):
        sftp = harness.need("sftp")
        batch = self.lab.folder / f"sftp-{self.verb}"
        batch.write_text(f"{self.verb} {quoted([self.original, self.copy])}\n")
        # sftp runs the ssh that it was built with.
        self.process = self.ground.start(f"sftp-{self.verb}", sftp, "-S", self.ground.ssh_by_name, "-b", batch, NAME)


class SftpGet(SftpPut):
    title = "sftp get: the file is the same"
    verb = "get"
    to_device = False


class Sshfs(FileCopy):
    title = "sshfs: a file read through the mount is the same, and so is the next one"
    to_device = False

    def run(self):
        sshfs, unmount = harness.need("sshfs", "fusermount3|fusermount")
        if not os.path.exists("/dev/fuse"):
            raise harness.Impossible("there is no /dev/fuse here")
        mount = self.lab.folder / "mount"
        mount.mkdir()
        (self.ground.device_folder / "note").write_text("after both faults\n")
        # The mount is visible in this shell's namespace only.
        source = quoted([f"{NAME}:{self.ground.device_folder}", mount])
        script = f"""set -e
            {sshfs} {source} -o ssh_command={quoted([self.ground.ssh_by_name])}
            trap '{unmount} -u {quoted([mount])}' EXIT
            cat {quoted([mount / self.original.name])} > {quoted([self.copy])}
            cat {quoted([mount / "note"])}
            """
        self.process = self.ground.start("sshfs", "sh", "-c", script)

    def finish(self):
        super().finish()
        equal(self.process.stdout, "after both faults\n", "the next file")


class Rsync(Transfer):
    title = "rsync of a tree: files and hashes are the same"

    def start(self):
        rsync = harness.need("rsync")
        self.tree = openssh.make_tree(self.ground.service_folder / "tree")
        harness.random_file(self.tree / "2" / "big", FILE_MIB)
        self.copy = self.ground.device_folder / "tree"
        self.process = self.ground.start("rsync", rsync, "-a", "--delete", f"{self.tree}/", f"{NAME}:{self.copy}/")

    def size(self):
        return size_below(self.copy) if self.copy.exists() else 0

    def finish(self):
        self.check_exit()
        equal(openssh.digests(self.copy), openssh.digests(self.tree), "files and hashes")


class Forward(FileCopy):
    """A download with curl through one of ssh's forwards."""

    to_device = False

    def run(self):
        self.port = harness.free_port()
        server = self.ground.world.service if self.to_device else self.ground.world.device
        with server.inside():
            web = serve_folder(self.original.parent)
        name = type(self).__name__.lower()
        words = ["-o", "ExitOnForwardFailure=yes", "-v", "-N", *self.options(web)]
        self.ssh = self.ground.start(name, self.ground.ssh_by_name, *words, NAME)
        self.ssh.wait_for(r"Local forwarding listening|remote forward success|Entering interactive session")
        words = ["-sS", "--fail", "-o", self.copy, *self.way(web)]
        self.process = self.ground.start(f"{name}-curl", self.ground.curl, *words, at_device=self.to_device)

    def options(self, web):
        raise NotImplementedError

    def way(self, web):
        return [f"http://127.0.0.1:{self.port}/{self.original.name}"]

    def finish(self):
        super().finish()
        check(self.ssh.running(), f"ssh ended with {self.ssh.popen.returncode}: {self.ssh.tail()}")
        self.ssh.stop()


class DynamicForward(Forward):
    title = "ssh -D: a download through its SOCKS port is the same"

    def options(self, web):
        return ["-D", self.port]

    def way(self, web):
        return ["-x", f"socks5h://127.0.0.1:{self.port}", f"http://localhost:{web}/{self.original.name}"]


class LocalForward(Forward):
    title = "ssh -L: a download through the forward is the same"

    def options(self, web):
        return ["-L", f"{self.port}:localhost:{web}"]


class RemoteForward(Forward):
    title = "ssh -R: a download on the device, from the operator's machine, is the same"
    to_device = True

    def options(self, web):
        return ["-R", f"{self.port}:127.0.0.1:{web}"]


class Pages(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Its client says what went wrong."""


def serve_folder(folder):
    """A web server in this thread's network namespace; its port."""
    server = Server(("127.0.0.1", 0), lambda *words: Pages(*words, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port
