#!/usr/bin/env python3
"""Corporate networks: the hub can be reached only through a proxy, from the device's side through one
and from the operator's side through another. squid and tinyproxy with Basic, dante with SOCKS5, and a
proxy with NTLM as in a Windows domain."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import harness
import network
import sessions
from harness import VOLUME_MIB, check, equal

HUB_NAME = "hub.corp.test"
HUB_ADDRESS = "10.77.9.1"
USER, PASSWORD = "ada", "open-sesame.7"
DOMAIN = "CORP"
# A copy takes some seconds, during which both proxies are restarted.
RATE = f"{2 * VOLUME_MIB}mbit"


def main(lab):
    tools = dict(zip([*PROXIES, "stunnel"], harness.need("squid", "tinyproxy", "danted", "stunnel|stunnel4")))
    require_spnego()
    with Proxies(lab, tools) as proxies:
        for device, service in (("squid", "tinyproxy"), ("dante", "ntlm"), ("negotiate", "squid")):
            with Corporate(lab, rate=RATE) as world:
                pair(lab, world, proxies, device, service)
        with Corporate(lab) as world:
            wrong_password(lab, world, proxies)
            over_tls(lab, world, proxies)


def require_spnego():
    try:
        import spnego  # noqa: F401
    except ImportError:
        raise harness.Skip("pyspnego is not installed") from None


class Corporate(network.World):
    """A world in which neither the service nor the device has a route to the hub, or knows its name:
    it has an address that only its own namespace, where the proxies run, can reach."""

    @property
    def hub_options(self):
        return {"hostname": HUB_NAME, "listen": HUB_ADDRESS, "under": self.hub.exec_prefix}

    def _build(self):
        super()._build()
        self.hub.ip("address", "add", f"{HUB_ADDRESS}/32", "dev", "lo")
        folder = pathlib.Path("/etc/netns") / self.hub.name
        with open(folder / "hosts", "a") as hosts:
            hosts.write(f"{HUB_ADDRESS} {HUB_NAME}\n")
        # dante asks the system for its users: there is one more in this namespace.
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
        ).stdout.strip()
        for file, line in (("passwd", f"{USER}:x:64999:65534::/nonexistent:/bin/false"), ("shadow", f"{USER}:{hashed}:1::::::")):
            text = pathlib.Path("/etc", file).read_text()
            (folder / file).write_text(f"{text.rstrip()}\n{line}\n")
            (folder / file).chmod(0o600 if file == "shadow" else 0o644)


def pair(lab, world, proxies, device, service):
    name = f"{device}-{service}"
    far = proxies.start(device, world, str(list(network.DEVICE_NET.hosts())[1]), name)
    near = proxies.start(service, world, str(list(network.SERVICE_NET.hosts())[1]), name)
    tunnel = sessions.Tunnel(
        lab, world, name,
        device_env=environment("DEVICE", far), service_env=environment("SERVICE", near),
    )  # fmt: skip
    try:
        title = f"device behind {device}, operator behind {service}"
        with lab.step(f"{title}: the hub cannot be reached otherwise"):
            for namespace in (world.device, world.service):
                result = namespace.run(["ip", "route", "get", HUB_ADDRESS])
                check(result.returncode != 0, f"there is a route: {result.stdout}")
        with lab.step(f"{title}: ssh"):
            equal(tunnel.run_ssh("echo through; exit 3", ok=False).returncode, 3, "exit code")
        with lab.step(f"{title}: scp of {VOLUME_MIB} MiB each way, and a shell, while both proxies restart"):
            original = harness.random_file(lab.folder / f"original-{name}", VOLUME_MIB)
            with tunnel.shell() as shell:
                equal(shell.ask("state=kept && echo $state"), "kept", "the state before")
                copies = [tunnel.copy(original, way, f"{way}-{name}") for way in (True, False)]
                for copy in copies:
                    copy.wait_for_middle(16)
                for proxy in (far, near):
                    interrupted = tunnel.service.output.count("session interrupted")
                    proxy.restart()
                    began = time.monotonic()
                    equal(shell.ask("echo $state"), "kept", f"the state after a restart of {proxy.kind}")
                    print(f"        the shell answers {time.monotonic() - began:.2f} s after {proxy.kind} is back")
                    again = tunnel.service.output.count("session interrupted")
                    check(again > interrupted, f"the session did not notice the restart of {proxy.kind}")
                for copy in copies:
                    copy.check_end()
        with lab.step(f"{title}: both say once which proxy they use, and the proxies saw the hub alone"):
            for process, proxy in ((tunnel.device, far), (tunnel.service, near)):
                equal(process.output.count("the hub is reached through a proxy"), 1, f"lines of {process.name}")
                check(f"{proxy.address}:{proxy.port}" in process.output, "which proxy")
                check(PASSWORD not in process.output, "the password is in the log")
                seen = proxy.seen()
                # dante logs the address to which it has connected.
                check(HUB_NAME in seen or HUB_ADDRESS in seen, f"{proxy.kind} did not see the hub: {seen[-500:]}")
                check("127.0.0.1" not in seen, f"a target went through {proxy.kind}")
    finally:
        tunnel.close()
        for process in (tunnel.device, tunnel.service, far.process, near.process):
            process.stop()


def wrong_password(lab, world, proxies):
    proxy = proxies.start("ntlm", world, str(list(network.DEVICE_NET.hosts())[1]), "wrong")
    hub = harness.Hub(lab, name="hub-wrong", **world.hub_options).start()
    with lab.step("a wrong password ends device-proxy at its start, with what to do"):
        wrong = {"DEVICE_PROXY_PROXY_AUTH": f"{DOMAIN}\\{USER}:wrong", "HTTPS_PROXY": proxy.url}
        device = hub.device_proxy(hub.create_device(), "--echo", name="device-wrong", under=world.device.exec_prefix, env=wrong)
        equal(device.wait(), 1, "exit code")
        check("refuses the user name or the password (407, NTLM)" in device.stderr, device.tail())
        equal(proxy.process.output.count("refused:"), 1, "attempts with it")


def over_tls(lab, world, proxies):
    """A proxy that is reached by TLS itself: `https://` in front of its name."""
    proxy = proxies.start("tls", world, str(list(network.DEVICE_NET.hosts())[1]), "over")
    hub = harness.Hub(lab, name="hub-over-tls", **world.hub_options).start()
    variables = {"HTTPS_PROXY": proxy.url, "DEVICE_PROXY_PROXY_AUTH": proxy.login, "SERVICE_PROXY_PROXY_AUTH": proxy.login}
    device = {"under": world.device.exec_prefix}
    connection_string = hub.create_device()
    with lab.step("https:// proxy: one whose certificate is not trusted ends device-proxy, and is named"):
        program = hub.device_proxy(connection_string, "--echo", name="device-untrusting", env=variables, **device)
        equal(program.wait(), 1, "exit code")
        check(f"{proxy.address}:{proxy.port}" in program.stderr, program.tail())
        check("the proxy itself cannot be trusted: its certificate of" in program.stderr, program.tail())
        check("name its CA with --ca-file" in program.stderr, program.tail())
    with lab.step("https:// proxy: echo through it, and its operator saw the hub's name alone"):
        trusting = {**variables, "SSL_CERT_FILE": str(proxy.certificate)}
        hub.device_proxy(connection_string, "--echo", name="device-over-tls", env=trusting, **device)
        result = hub.echo("--count", "3", env=trusting, **device)
        check("3 sent, 3 received" in result.stdout, result.stdout + result.stderr)
        check(HUB_NAME in proxy.seen() or HUB_ADDRESS in proxy.seen(), proxy.seen()[-500:])


def environment(program, proxy):
    """One side has the password in a file, the other in its environment."""
    if program == "DEVICE":
        return {"DEVICE_PROXY_PROXY": proxy.url, "DEVICE_PROXY_PROXY_AUTH_FILE": str(proxy.auth_file)}
    return {"ALL_PROXY": proxy.url, "SERVICE_PROXY_PROXY_AUTH": proxy.login, "NO_PROXY": "localhost,127.0.0.0/8,.other.test"}


# --- The proxies


class Proxies:
    """A folder for their files, which their own users can read."""

    def __init__(self, lab, tools):
        self.lab, self.tools = lab, tools
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="realworld-proxies-files-"))
        self.folder.chmod(0o755)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, kind, world, address, name):
        folder = self.folder / f"{name}-{kind}"
        folder.mkdir()
        return PROXIES_BY_KIND[kind](self.lab, self.tools, kind, world, address, folder).start()


class Proxy:
    """A proxy on a link's end in the hub's namespace."""

    scheme = "http"
    user = USER

    def __init__(self, lab, tools, kind, world, address, folder):
        self.lab, self.tools, self.kind, self.world = lab, tools, kind, world
        self.address, self.port, self.folder = address, harness.free_port(), folder
        self.log = folder / "access.log"
        self.process = None
        self.processes = []
        self.login = f"{self.user}:{PASSWORD}"
        self.auth_file = lab.secret_file(f"auth-{folder.name}", self.login)
        self.prepare()

    @property
    def url(self):
        return f"{self.scheme}://{self.address}:{self.port}"

    def prepare(self):
        pass

    def argv(self):
        raise NotImplementedError

    def start(self):
        self.process = self.lab.start(f"{self.folder.name}", [*self.world.hub.exec_prefix, *self.argv()])
        self.processes.append(self.process)
        harness.wait_until(self.accepts, 20, f"{self.kind} accepts connections")
        return self

    def accepts(self):
        check(self.process.running(), f"{self.kind} ended: {self.process.tail()}")
        try:
            self.world.hub.connect(self.port, self.address, timeout=5).close()
        except OSError:
            return False
        return True

    def restart(self):
        self.process.kill()
        self.start()

    def seen(self):
        """What it logged of its requests."""
        logged = self.log.read_text(errors="replace") if self.log.exists() else ""
        return logged + "".join(process.output for process in self.processes)


class Squid(Proxy):
    def prepare(self):
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
        ).stdout.strip()
        users = self.folder / "users"
        users.write_text(f"{USER}:{hashed}\n")
        helper = next(pathlib.Path("/usr/lib").glob("squid*/basic_ncsa_auth"), None)
        if helper is None:
            raise harness.Skip("squid has no basic_ncsa_auth here")
        shutil.chown(self.folder, "proxy")
        (self.folder / "squid.conf").write_text(
            f"""
            http_port {self.address}:{self.port}
            auth_param basic program {helper} {users}
            auth_param basic children 1
            auth_param basic realm corp
            acl users proxy_auth REQUIRED
            acl hub dstdomain {HUB_NAME}
            acl CONNECT method CONNECT
            http_access deny !CONNECT
            http_access allow users hub
            http_access deny all
            access_log stdio:{self.log}
            cache_log {self.folder}/cache.log
            cache deny all
            pid_filename none
            coredump_dir {self.folder}
            netdb_filename none
            dns_nameservers 127.0.0.1
            shutdown_lifetime 0 seconds
            visible_hostname proxy
            """.replace("            ", "")
        )

    def argv(self):
        return [self.tools["squid"], "-N", "-f", self.folder / "squid.conf"]


class Tinyproxy(Proxy):
    def prepare(self):
        (self.folder / "tinyproxy.conf").write_text(
            f"""
            Listen {self.address}
            Port {self.port}
            Timeout 600
            MaxClients 200
            BasicAuth {USER} {PASSWORD}
            LogLevel Connect
            """.replace("            ", "")
        )

    def argv(self):
        return [self.tools["tinyproxy"], "-d", "-c", self.folder / "tinyproxy.conf"]


class TlsTinyproxy(Tinyproxy):
    """tinyproxy, with stunnel in front of it."""

    scheme = "https"

    def prepare(self):
        self.certificate, key = self.folder / "proxy.pem", self.folder / "proxy.key"
        names = ["-subj", "/CN=proxy.corp.test", "-addext", f"subjectAltName=IP:{self.address}", "-addext", "basicConstraints=critical,CA:FALSE"]
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        self.lab.run([*words, "-keyout", key, "-out", self.certificate, *names])
        outer, self.port = self.port, harness.free_port()
        super().prepare()
        (self.folder / "stunnel.conf").write_text(
            f"""
            foreground = yes
            pid =
            [proxy]
            accept = {self.address}:{outer}
            connect = {self.address}:{self.port}
            cert = {self.certificate}
            key = {key}
            """.replace("            ", "")
        )
        self.port = outer

    def start(self):
        words = [*self.world.hub.exec_prefix, self.tools["stunnel"], self.folder / "stunnel.conf"]
        self.processes.append(self.lab.start(f"{self.folder.name}-stunnel", words))
        return super().start()


class Dante(Proxy):
    scheme = "socks5h"

    def prepare(self):
        (self.folder / "danted.conf").write_text(
            f"""
            logoutput: stdout
            internal: {self.address} port = {self.port}
            external: {HUB_ADDRESS}
            clientmethod: none
            socksmethod: username
            user.privileged: root
            user.unprivileged: nobody
            client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
            socks pass {{
                from: 0.0.0.0/0 to: {HUB_NAME}
                command: connect
                log: connect
                socksmethod: username
            }}
            """.replace("            ", "")
        )

    def argv(self):
        return [self.tools["dante"], "-f", self.folder / "danted.conf"]

    def restart(self):
        # It has a process for each of its duties.
        self.process.signal(9)
        super().restart()


class Ntlm(Proxy):
    name = "NTLM"
    user = f"{DOMAIN}\\{USER}"

    def prepare(self):
        self.users = self.lab.folder / f"users-{self.folder.name}"
        self.users.write_text(f"{DOMAIN}:{USER}:{PASSWORD}\n")

    def argv(self):
        script = harness.ROOT / "tests/realworld/ntlm_proxy.py"
        return [sys.executable, script, self.address, self.port, self.name, self.users]


class Negotiate(Ntlm):
    name = "Negotiate"


PROXIES = ("squid", "tinyproxy", "dante")
PROXIES_BY_KIND = {
    "squid": Squid,
    "tinyproxy": Tinyproxy,
    "tls": TlsTinyproxy,
    "dante": Dante,
    "ntlm": Ntlm,
    "negotiate": Negotiate,
}


if __name__ == "__main__":
    harness.use_venv()
    harness.run(main)
