#!/usr/bin/env python3
"""Devices by name, as programs reach them that know nothing of device streams: through the proxy port
(curl, ssh with nc), a Unix socket (curl), ssh's configuration (ssh, plink), and an RDP client.
"""

import contextlib
import pathlib
import socket
import subprocess
import threading

import harness
import rdp
from harness import DEVICE, check, equal
from openssh import Sshd

NAME = f"{DEVICE}.device"
PAGE = b"<p>hello from the device</p>\n"


def main(lab):
    sshd, ssh, keygen, curl, nc = harness.need("sshd", "ssh", "ssh-keygen", "curl", "nc")
    server = Sshd(lab, sshd, keygen)
    web = harness.TcpServer(serve_page)
    docker = lab.folder / "docker.sock"
    serve_unix(docker)

    hub = harness.Hub(lab).start()
    device = hub.create_device()
    targets = [f"ssh=127.0.0.1:{server.port}", f"http=127.0.0.1:{web.port}", f"docker=unix:{docker}"]
    hub.device_proxy(device, *(word for target in targets for word in ("--target", target)))
    hub.create_device("asleep")
    options = hub.service_options()

    proxy = lab.start_ours("service-proxy", *options, "--connect-timeout", "0.5", "socks", "0", name="socks")
    port = proxy.wait_for(r"127\.0\.0\.1:(\d+) -> \*\.device")[1]
    socks, http = f"socks5h://localhost:{port}", f"http://localhost:{port}"

    def page(*words, ok=True):
        return lab.run([curl, "-sS", "--max-time", "20", *words], text=False, ok=ok)

    with lab.step("curl through the proxy: SOCKS5 and HTTP CONNECT"):
        for words in (["-x", socks], ["-p", "-x", http]):
            equal(page(*words, f"http://{NAME}/").stdout, PAGE, f"the page with {words}")
        # As browsers write it.
        equal(page("-x", socks, f"http://{NAME.lower()}/").stdout, PAGE, "the page by its name in lower case")
        equal(page("-x", socks, f"http://_http.{NAME}:1/").stdout, PAGE, "the page by its target's name")
        names = [f"http://{NAME}/{number}" for number in range(12)]
        many = page("-x", socks, "--parallel", *names).stdout
        equal(many, PAGE * len(names), "pages at once")

    with lab.step("curl is told why there is no connection"):
        for target, code in (("nobody.device", 4), ("asleep.device", 4), (f"{NAME}:9", 5), ("example.com", 2), ("127.0.0.1", 8)):
            result = page("-x", socks, f"http://{target}/", ok=False)
            equal(result.returncode, 97, f"curl's exit code for {target}")
            check(f"({code})".encode() in result.stderr, f"{target}: {result.stderr!r}")
        for target, status in (("nobody.device", 502), ("asleep.device", 503), ("example.com", 403)):
            result = page("-p", "-x", http, f"http://{target}/", ok=False)
            check(str(status).encode() in result.stderr, f"{target}: {result.stderr!r}")
        result = page("-x", http, "-w", "%{http_code}", f"http://{NAME}/")
        check(result.stdout.endswith(b"405"), f"a request that is no CONNECT: {result.stdout!r}")

    with lab.step("ssh through the proxy, with nc in between"):
        for kind in ("5", "connect"):
            command = f"ProxyCommand={nc} -X {kind} -x localhost:{port} %h %p"
            result = lab.run([ssh, *server.client_options, "-o", command, f"{server.user}@{NAME}", "echo by nc"])
            equal(result.stdout, "by nc\n", f"output with -X {kind}")

    with lab.step("HTTP over a Unix socket"):
        near = lab.folder / "near.sock"
        listener = lab.start_ours("service-proxy", *options, "listen", DEVICE, f"{near}:docker", name="unix")
        listener.wait_for("listening on unix:")
        equal(near.stat().st_mode & 0o777, 0o600, "the socket's mode")
        for _ in range(2):
            equal(page("--unix-socket", near, "http://localhost/version").stdout, PAGE, "the page")
        listener.stop()
        check(not near.exists(), "the socket's file is still there")

    by_ssh(lab, hub, server, ssh, curl, web)

    with lab.step("plink, the client of PuTTY"):
        plink(lab, hub, server, keygen)

    with lab.step("an RDP client, started for a device"):
        remote_desktop(lab, hub)


def by_ssh(lab, hub, server, ssh, curl, web):
    """The configuration that `ssh-config --install` makes, in a home of its own."""
    home = lab.folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    config = home / ".ssh" / "config"
    keys = server.client_options[server.client_options.index("-i") + 1]
    theirs = f"Host *.device\n    IdentityFile {keys}\n    UserKnownHostsFile {home}/known_hosts\n"
    config.write_text(theirs)
    options = hub.service_options()

    def own(*words):
        return lab.run([harness.binary("service-proxy"), *options, *words], env={**harness.clean_environment(), "HOME": str(home)})

    own("ssh-config", "--install")
    check(config.read_text().startswith("Include "), "nothing is included")
    client = [ssh, "-F", config, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new"]
    me = f"{server.user}@{NAME}"

    with lab.step("ssh by name, with the configuration that was installed"):
        result = lab.run([*client, me, "echo by name; exit 5"], ok=False)
        equal((result.stdout, result.returncode), ("by name\n", 5), "output and exit code")
        known = (home / "known_hosts").read_text()
        check(known.startswith(f"{NAME.lower()} "), f"known_hosts has {known[:40]!r}")
        # Known from now on, by its name.
        strict = [*client[:-1], "StrictHostKeyChecking=yes"]
        equal(lab.run([*strict, me, "echo known"]).stdout, "known\n", "output")

    with lab.step("a master connection outlives a hub that is killed"):
        control = ["-S", home / "master"]
        master = lab.start("master", [*client, "-M", *control, "-N", me])
        harness.wait_until(lambda: (home / "master").exists(), 20, "the master connection")
        equal(lab.run([*client, *control, me, "echo one"]).stdout, "one\n", "output before")
        hub.process.kill()
        hub.start()
        equal(lab.run([*client, *control, me, "echo two"]).stdout, "two\n", "output after")
        check(master.running(), "the master connection has ended")
        lab.run([*client, *control, "-O", "exit", me])

    with lab.step("as Visual Studio Code runs it: -T -D, with a script on standard input"):
        forward = harness.free_port()
        code = subprocess.Popen(
            [str(word) for word in [*client, "-T", "-D", forward, "-o", "ConnectTimeout=15", me, "sh"]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            code.stdin.write(b"echo started\n")
            code.stdin.flush()
            equal(code.stdout.readline(), b"started\n", "the script's output")
            through = ["-x", f"socks5h://localhost:{forward}", f"http://127.0.0.1:{web.port}/"]
            equal(lab.run([curl, "-sS", *through], text=False).stdout, PAGE, "the page")
            code.stdin.close()
            equal(code.wait(20), 0, "exit code")
        finally:
            code.kill()
            code.wait()

    with lab.step("service-proxy ssh: the same without a configuration"):
        command = [harness.binary("service-proxy"), *options, "ssh", DEVICE, "--user", server.user]
        arguments = [*server.client_options, "echo direct; exit 6"]
        result = lab.run([*command, "--", *arguments], ok=False)
        equal((result.stdout, result.returncode), ("direct\n", 6), "output and exit code")

    with lab.step("the configuration is as before when it is removed"):
        own("ssh-config", "--uninstall")
        equal(config.read_text(), theirs, "the configuration")


def plink(lab, hub, server, keygen):
    program, puttygen = harness.need("plink", "puttygen")
    folder = lab.folder / "putty"
    folder.mkdir(mode=0o700)
    user_key = server.client_options[server.client_options.index("-i") + 1]
    lab.run([puttygen, user_key, "-O", "private", "-o", folder / "key.ppk"])
    host_key = pathlib.Path(user_key).with_name("host_key.pub")
    fingerprint = lab.run([keygen, "-l", "-f", host_key]).stdout.split()[1]
    options = " ".join(str(word) for word in hub.service_options())
    proxy = f"{harness.binary('service-proxy')} {options} connect --suffix device -- %host ssh"
    argv = [program, "-batch", "-ssh", "-i", folder / "key.ppk", "-hostkey", fingerprint, "-proxycmd", proxy]
    environment = {**harness.clean_environment(), "HOME": str(folder)}
    result = lab.run([*argv, f"{server.user}@{NAME}", "echo by plink"], env=environment)
    equal(result.stdout, "by plink\n", "output")


def remote_desktop(lab, hub):
    tools = harness.need("Xvfb", "xfreerdp|xfreerdp3", "import", "xdotool")
    server_port = rdp.start_xrdp(lab, harness.need("xrdp"))
    screen = rdp.Screen(lab, *tools)
    desktop = hub.create_device("Desktop")
    hub.device_proxy(desktop, "--target", f"rdp=127.0.0.1:{server_port}", name="desktop")
    before = set(pathlib.Path("/tmp").glob("service-proxy-*.rdp"))
    client = ["/u:", "/cert:ignore", f"/size:{rdp.WIDTH}x{rdp.HEIGHT}"]
    process = lab.start(
        "rdp", [harness.binary("service-proxy"), *hub.service_options(), "rdp", "Desktop", "--", *client], env=screen.env
    )
    session = rdp.Session(screen, "Desktop", process)
    picture = session.login_screen()
    check(rdp.distinct_colours(picture) > 100, "no login screen is shown")
    # The person closes the window.
    session.tool(screen.xdotool, "windowclose", *session.window())
    process.wait()
    left = set(pathlib.Path("/tmp").glob("service-proxy-*.rdp")) - before
    check(not left, f"files are left: {left}")


def serve_page(connection):
    """Answers requests until the client ends."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
        while b"\r\n\r\n" in data:
            _, data = data.split(b"\r\n\r\n", 1)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE))


def serve_unix(path):
    """The same on a Unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)

    def one(connection):
        with connection, contextlib.suppress(OSError):
            serve_page(connection)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


if __name__ == "__main__":
    harness.run(main)
