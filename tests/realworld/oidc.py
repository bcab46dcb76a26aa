#!/usr/bin/env python3
"""People log in at their organisation's identity provider, and get what the hub's access file allows
them, some of it only when somebody approves: with `oidc-provider` of npm, OpenSSH and Ansible.
"""

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import threading
import time

import harness
from harness import DEVICE, check, equal
from oidc_person import CLIENT_SECRET, Provider, exchange, forged, make_certificate
from openssh import Sshd, long_session
from rest import Rest

ACCESS = """
[[allow]]
groups = ["field"]
tags = "tags.site = 'berlin'"
targets = ["ssh", "echo"]

[[allow]]
groups = ["guests"]
policies = ["contractors"]
devices = ["*"]
targets = ["ssh"]
approval = { by = ["leads"], for = "1h" }

[[allow]]
groups = ["brief"]
devices = ["*"]
targets = ["ssh"]
approval = { by = ["leads"], for = "1m", cut = true }
"""
PEOPLE = {"ada": ["field"], "bob": ["sales"], "eve": ["guests"], "kim": ["brief"], "lea": ["leads", "guests"]}
WAIT = float(os.environ.get("APPROVAL_SECONDS", "12"))  # how long the approver takes


def main(lab):
    ssh, scp, sshd, keygen = harness.need("ssh", "scp", "sshd", "ssh-keygen")
    provider = Provider(lab, PEOPLE)
    hook = Webhook(lab)
    hub = OidcHub(lab, provider, hook).start()
    rest = Rest(hub)
    server = Sshd(lab, sshd, keygen)
    for device, site in ((DEVICE, "berlin"), ("Elsewhere", "rome")):
        string = hub.create_device(device)
        rest.patch_twin(device, {"tags": {"site": site}})
        proxy = hub.device_proxy(string, "--echo", "--target", f"ssh=127.0.0.1:{server.port}", name=f"of-{device}")
        proxy.wait_for("connected; streams reach")
    world = World(lab, hub, provider, server, ssh, scp)

    who_somebody_is(world)
    devices_are_found(world)
    clients_with_a_secret(world, hook)
    logins_end(world)
    approvals(world, hook)
    through_ansible(world)


class World:
    """All that the steps need."""

    def __init__(self, lab, hub, provider, server, ssh, scp):
        self.lab, self.hub, self.provider, self.server, self.ssh, self.scp = lab, hub, provider, server, ssh, scp
        self.me = f"{server.user}@{DEVICE}"

    def folder(self, person):
        return self.lab.folder / f"of-{person}"

    def log_in(self, person, force=False):
        """`service-proxy login`, and the person in the browser."""
        self.folder(person).mkdir(exist_ok=True)
        login = self.lab.start_ours(
            "service-proxy", "login", "--hub", self.hub.address, "--ca-file", self.hub.ca,
            "--dir", self.folder(person), *(["--force"] if force else []), name=f"login-{person}",
        )  # fmt: skip
        url = login.wait_for(r"^or open (\S+)$")[1]
        self.provider.log_in(url, person)
        login.wait(40)
        return login

    def options(self, person):
        return ["--config", str(self.folder(person) / "service-proxy.toml")]

    def proxied(self, person, device=DEVICE, *more):
        """ssh's options by which it goes through the person's service-proxy."""
        log = self.lab.logs / f"proxy-{person}.stderr"
        words = [str(harness.binary("service-proxy")), *self.options(person), *more, "connect", device, "ssh"]
        # The first value counts: ssh's patience is for the banner, too, and an approver takes longer.
        patient = ["-F", "/dev/null", "-o", "ConnectTimeout=0"]
        return [*patient, *self.server.client_options[2:], "-o", f"ProxyCommand={' '.join(map(str, words))} 2>>{log}"]

    def proxy_log(self, person):
        path = self.lab.logs / f"proxy-{person}.stderr"
        return path.read_text() if path.exists() else ""

    def ssh_once(self, person, *more, device=DEVICE, timeout=60):
        line = [self.ssh, *self.proxied(person, device, *more), self.me, "echo through"]
        return self.lab.run(line, timeout, ok=False)

    def started(self, person, *command):
        """An ssh that may have to wait."""
        return self.lab.start("ssh-" + person, [self.ssh, *self.proxied(person), self.me, *command])

    def waiting(self, caller):
        """The request of this caller that waits."""

        def found():
            requests = json.loads(self.hub.cli("approvals", "list", "--json"))
            return next((it for it in requests if it["caller"] == caller and it["state"] == "waiting"), None)

        return harness.wait_until(found, 30, f"a request of {caller} waits", pause=0.2)

    def echo(self, person, *more, device=DEVICE):
        line = [harness.binary("service-proxy"), *self.options(person), *more, "echo", device, "--count", "1"]
        return self.lab.run(line, 60, ok=False)


def who_somebody_is(world):
    lab, hub, provider = world.lab, world.hub, world.provider
    with lab.step("a person logs in with the device flow, and the files are theirs alone"):
        login = world.log_in("ada")
        equal(login.popen.returncode, 0, f"exit code ({login.tail()})")
        check("as ada@example.com" in login.stdout and "renewed without you" in login.stdout, login.stdout)
        for name in ("hub.cs", "hub.login"):
            equal(oct((world.folder("ada") / name).stat().st_mode & 0o777), "0o600", f"mode of {name}")
    with lab.step("ssh to a device of their site, and the hub's log says who"):
        equal(world.ssh_once("ada").stdout, "through\n", "ssh's output")
        hub.process.wait_for(r"stream accepted device=MyDevice .*policy=oidc:ada@example\.com person=ada@example\.com")
    with lab.step("neither another site's device, nor another target, nor anything else"):
        said = world.echo("ada", device="Elsewhere").stderr
        check("does not allow it" in said, f"elsewhere: {said}")
        said = world.echo("ada", "--stream", "web").stderr
        check("does not allow it" in said, f"another target: {said}")
        line = [harness.binary("service-proxy"), *world.options("ada")]
        for words in (["query", "SELECT * FROM devices"], ["twin", "set", DEVICE, '{"tags":{"site":"x"}}'], ["twin", "get", "Elsewhere"]):
            result = lab.run([*line, *words], ok=False)
            check(result.returncode != 0 and "does not allow it" in result.stderr, f"{words}: {result.stderr}")
        hub.process.wait_for(r"access denied: .* device=Elsewhere name=echo .*person=ada@example\.com")
    with lab.step("tags decide at each stream: the device leaves the site and comes back"):
        rest = Rest(hub)
        rest.patch_twin(DEVICE, {"tags": {"site": "paris"}})
        check("does not allow it" in world.echo("ada").stderr, "it is let in")
        rest.patch_twin(DEVICE, {"tags": {"site": "berlin"}})
        equal(world.echo("ada").returncode, 0, "exit code")
    with lab.step("the access file is followed; one with a mistake changes nothing"):
        hub.write_access(ACCESS.replace('"ssh", "echo"', '"ssh"'))
        harness.wait_until(lambda: world.echo("ada").returncode != 0, 20, "echo is denied")
        hub.write_access("[[allow]]\n")
        hub.process.wait_for(r"rule 1 \(allow 1\): it is for nobody")
        check(world.echo("ada").returncode != 0, "echo is allowed")
        hub.write_access(ACCESS)
        harness.wait_until(lambda: world.echo("ada").returncode == 0, 20, "echo is allowed again")
    with lab.step("somebody in no rule gets no token"):
        login = world.log_in("bob")
        equal(login.popen.returncode, 1, "exit code")
        check("bob@example.com is in no rule of the access file" in login.stderr, login.tail())
        check(not (world.folder("bob") / "hub.cs").exists(), "there is a token")
    with lab.step("an identity token of another client, of nobody, or of another provider is none"):
        good = provider.identity_token("ada")
        equal(exchange(hub, good)[0], 200, "status for a good one")
        key = provider.public_key()
        other = Provider(lab, PEOPLE, "impostor")
        for what, token in {
            "another client's": provider.identity_token("ada", "another-program"),
            "alg none": forged(good, alg="none"),
            "alg None": forged(good, alg="NONE"),
            "the public key as secret": forged(good, alg="HS256", secret=key["n"].encode()),
            "its JSON as secret": forged(good, alg="HS256", secret=json.dumps(key).encode()),
            "no secret": forged(good, alg="HS256", secret=b" "),
            "a key of its own": forged(good, jku=f"{other.issuer}/jwks"),
            "another provider's": other.identity_token("ada"),
            "nothing": "",
        }.items():
            status, answer = exchange(hub, token)
            equal(status, 401, f"{what}: status ({answer})")
            check("connectionString" not in answer, f"{what}: {answer}")
        other.process.stop()


def devices_are_found(world):
    lab, hub = world.lab, world.hub
    program = harness.binary("service-proxy")
    with lab.step("`service-proxy devices` shows a person what they may reach, and a service all"):
        found = lab.run([program, *world.options("ada"), "devices"]).stdout
        row = re.search(r"^MyDevice +yes +(\S+) ", found, re.M)
        check(row and sorted(row[1].split(",")) == ["echo", "ssh"], found)
        check("Elsewhere" not in found, found)
        rows = json.loads(lab.run([program, *world.options("ada"), "devices", "--json"]).stdout)
        equal([(it["deviceId"], sorted(it["access"]["targets"])) for it in rows], [(DEVICE, ["echo", "ssh"])], "rows")
        rows = json.loads(lab.run([program, *hub.service_options(), "devices", "--json"]).stdout)
        equal(sorted(it["deviceId"] for it in rows), ["Elsewhere", DEVICE], "a service's rows")
        said = lab.run([program, *world.options("ada"), "devices", "--where", "deviceId = 'x'"], ok=False)
        check(said.returncode != 0 and "does not allow it" in said.stderr, said.stderr)
    with lab.step("tags decide there, too"):
        rest = Rest(hub)
        rest.patch_twin(DEVICE, {"tags": {"site": "paris"}})
        said = lab.run([program, *world.options("ada"), "devices"])
        check(DEVICE not in said.stdout and "no devices" in said.stderr, said.stdout + said.stderr)
        rest.patch_twin(DEVICE, {"tags": {"site": "berlin"}})


def clients_with_a_secret(world, hook):
    """Providers may have no clients without one, and have each client show it in one way."""
    lab, provider = world.lab, world.provider
    lab.secrets.add(CLIENT_SECRET)
    secret_file = lab.secret_file("client.secret", CLIENT_SECRET)
    wrong_file = lab.secret_file("wrong.secret", "wrong")
    program = harness.binary("service-proxy")
    for client, way in (("secret-in-the-head", "file"), ("secret-in-the-body", "environment")):
        hub = OidcHub(lab, provider, hook, client).start()
        hub.create_device("Pump")
        Rest(hub).patch_twin("Pump", {"tags": {"site": "berlin"}})
        folder = lab.folder / f"of-{client}"
        folder.mkdir()
        line = ["login", "--hub", hub.address, "--ca-file", hub.ca, "--dir", folder]
        given = ["--client-secret-file", secret_file] if way == "file" else []
        env = {} if given else {"SERVICE_PROXY_CLIENT_SECRET": CLIENT_SECRET}
        with lab.step(f"{client}: without the secret, or with another, one sentence says so"):
            said = lab.run([program, *line], ok=False)
            check(said.returncode == 1 and "login --client-secret-file` takes" in said.stderr, said.stderr)
            said = lab.run([program, *line, "--client-secret-file", wrong_file], ok=False)
            check(said.returncode == 1 and "not by this secret" in said.stderr, said.stderr)
            missing = lab.folder / "no-such.secret"
            said = lab.run([program, *line, "--client-secret-file", missing], ok=False)
            check(said.returncode == 2 and str(missing) in said.stderr, said.stderr)
        with lab.step(f"{client}: with the secret, by {way}, a person logs in, and is renewed without it being given"):
            login = lab.start_ours("service-proxy", *line, *given, env=env, name=f"login-{client}")
            provider.log_in(login.wait_for(r"^or open (\S+)$")[1], "ada")
            equal(login.wait(40), 0, f"exit code ({login.tail()})")
            equal(oct((folder / "hub.login").stat().st_mode & 0o777), "0o600", "mode of the file that has it")
            for token in json.loads(hub.cli("token", "list", "--json"))["tokens"]:
                hub.cli("token", "revoke", token["id"])
            found = lab.run([program, "--config", folder / "service-proxy.toml", "devices"]).stdout
            check("Pump" in found, found)
        hub.process.stop()


def logins_end(world):
    lab, hub, provider = world.lab, world.hub, world.provider

    def token():
        found = json.loads(hub.cli("token", "list", "--json"))["tokens"]
        text = (world.folder("ada") / "hub.cs").read_text()
        return next((it for it in found if f"SharedAccessKeyName={it['id']};" in text), None)

    with lab.step("the provider changes its keys; a token that was revoked is renewed without the person"):
        provider.change(rotate=True)
        old = token()["id"]
        hub.cli("token", "revoke", old)
        equal(world.ssh_once("ada").stdout, "through\n", "ssh's output")
        check(token()["id"] != old, "the token is the old one")
    with lab.step("ten at once renew it once, and all get through"):
        hub.cli("token", "revoke", token()["id"])
        before = hub.process.output.count("logged in")
        many = [world.started("ada", "echo through") for _ in range(10)]
        equal([it.wait(90) for it in many], [0] * 10, "exit codes")
        equal(hub.process.output.count("logged in") - before, 1, "logins at the hub")
    with lab.step("other groups hold from the next renewal on"):
        provider.change(person="ada", groups=["sales"])
        hub.cli("token", "revoke", token()["id"])
        said = world.echo("ada")
        check(said.returncode != 0 and "log in again with `service-proxy login --hub" in said.stderr, said.stderr)
        provider.change(person="ada", groups=["field"])
        equal(world.echo("ada").returncode, 0, "exit code once they are back")
    with lab.step("when the provider renews nothing, one sentence says so, and what is open goes on"):
        with long_session(world.ssh, world.proxied("ada"), world.me) as ask:
            equal(ask("before"), "before\n", "answer")
            provider.change(forget=True)
            hub.cli("token", "revoke", "--keep-streams", token()["id"])
            said = world.echo("ada").stderr
            check("log in again with `service-proxy login --hub" in said, said)
            equal(len(said.strip().splitlines()), 1, f"lines ({said})")
            equal(ask("after"), "after\n", "answer")
        equal(world.log_in("ada", force=True).popen.returncode, 0, "exit code of another login")
        equal(world.echo("ada").returncode, 0, "exit code")
    with lab.step("whoever is shut out is out at once, also of what is open, until they are let in"):
        session = world.started("ada", "echo up; sleep 60")
        session.wait_for("^up$")
        hub.cli("token", "revoke", "--person", "ada@example.com")
        check(session.wait(30) != 0, "the session has ended in order")
        said = world.echo("ada").stderr
        check("is shut out" in said and "log in again" in said, said)
        login = world.log_in("ada", force=True)
        check(login.popen.returncode == 1 and "is shut out" in login.stderr, login.tail())
        hub.cli("token", "let-in", "ada@example.com")
        equal(world.log_in("ada", force=True).popen.returncode, 0, "exit code of another login")
        equal(world.echo("ada").returncode, 0, "exit code")


def approvals(world, hook):
    lab, hub = world.lab, world.hub
    for person in ("eve", "kim", "lea"):
        equal(world.log_in(person).popen.returncode, 0, f"exit code of the login of {person}")
    with lab.step(f"ssh waits {WAIT:g} s for an approver, who hears of it from the webhook, and goes on"):
        session = world.started("eve", "echo through")
        request = world.waiting("oidc:eve@example.com")
        told = hook.wait_for(request["id"], "waiting")
        equal((told["deviceId"], told["target"]), (DEVICE, "ssh"), "what the webhook heard")
        time.sleep(WAIT)
        check(session.running(), f"ssh has ended: {session.tail()}")
        said = world.proxy_log("eve")
        equal(said.count(f"request {request['id']} waits for somebody to approve it"), 1, f"lines ({said})")
        hub.cli("approvals", "grant", request["id"], "--for", "1h")
        equal(session.wait(30), 0, f"exit code ({session.tail()})")
        equal(session.stdout, "through\n", "ssh's output")
        hook.wait_for(request["id"], "granted")
        hub.process.wait_for(r"access granted device=MyDevice target=ssh policy=oidc:eve@example\.com .*by=.?local:")
    with lab.step("scp uses what is granted; to another device somebody is asked again, and refuses"):
        original = harness.random_file(lab.folder / "original", 2)
        there = lab.folder / "there"
        lab.run([world.scp, *world.proxied("eve"), original, f"{world.me}:{there}"])
        equal(harness.sha256(there), harness.sha256(original), "SHA-256")
        session = lab.start("ssh-away", [world.ssh, *world.proxied("eve", "Elsewhere"), world.me, "echo through"])
        request = world.waiting("oidc:eve@example.com")
        hub.cli("approvals", "refuse", request["id"], "--because", "not on a Friday")
        check(session.wait(30) != 0 and session.stdout == "", "ssh was let through")
        check("refused by local:" in world.proxy_log("eve"), world.proxy_log("eve"))
        check("not on a Friday" in world.proxy_log("eve"), world.proxy_log("eve"))
        # Trying again at once asks nobody.
        check("not on a Friday" in world.ssh_once("eve", device="Elsewhere").stderr + world.proxy_log("eve"), "no word")
        equal(json.loads(hub.cli("approvals", "list", "--json"))[0]["deviceId"], DEVICE, "the newest that has a say")
    with lab.step("scp waits, the hub is killed and comes back, and an approver of a group grants it"):
        copied = lab.folder / "copied"
        hook.refusals = 1_000
        line = [world.scp, *world.proxied("kim"), original, f"{world.me}:{copied}"]
        copy = lab.start("scp-kim", line)
        request = world.waiting("oidc:kim@example.com")
        hub.process.kill()
        hook.refusals = 0
        hub.start()
        # What the webhook did not take before the kill comes again.
        hook.wait_for(request["id"], "waiting")
        time.sleep(WAIT)
        check(copy.running(), f"scp has ended: {copy.tail()}")
        program = [harness.binary("service-proxy")]
        listed = lab.run([*program, *world.options("lea"), "approvals", "list", "--json"]).stdout
        check(request["id"] in [it["id"] for it in json.loads(listed) if it["mayDecide"]], listed)
        own = lab.run([*program, *world.options("kim"), "approvals", "grant", request["id"]], ok=False)
        check(own.returncode != 0 and "nobody their own" in own.stderr, f"kim grants it: {own.stderr}")
        said = lab.run([*program, *world.options("lea"), "approvals", "grant", request["id"]]).stdout
        check(said.startswith(f"granted ssh of {DEVICE} to oidc:kim@example.com until"), said)
        equal(copy.wait(60), 0, f"scp's exit code ({copy.tail()})")
        equal(harness.sha256(copied), harness.sha256(original), "SHA-256")
    with lab.step("where the rule says so, what is open is cut with the grant, and waits to be approved again"):
        session = world.started("kim", "echo up; sleep 300")
        session.wait_for("^up$")
        hub.process.wait_for(r"stream closed: the hub ended it device=MyDevice .*person=kim@example\.com", 90)
        request = world.waiting("oidc:kim@example.com")
        check(session.running(), f"ssh has ended: {session.tail()}")
        hub.cli("approvals", "refuse", request["id"])
        check(session.wait(60) != 0, "the session has ended in order")
    with lab.step("a request ahead of time, with a reason; ssh then asks nobody"):
        line = [harness.binary("service-proxy"), *world.options("kim"), "request", DEVICE, "ssh"]
        asked = lab.start("request", [*line, "--for", "1m", "--reason", "the pump is stuck"])
        request = world.waiting("oidc:kim@example.com")
        equal(request["reason"], "the pump is stuck", "reason")
        hub.cli("approvals", "grant", request["id"])
        equal(asked.wait(30), 0, f"exit code ({asked.tail()})")
        check("is granted until" in asked.stdout and "local:" in asked.stdout, asked.stdout)
        equal(world.ssh_once("kim").stdout, "through\n", "ssh's output")
    with lab.step("what is taken back is cut at once, and not opened again"):
        session = world.started("kim", "echo up; sleep 300")
        session.wait_for("^up$")
        hub.cli("approvals", "refuse", request["id"])
        check(session.wait(20) != 0, "the session has ended in order")
    with lab.step("nobody approves in time: one sentence, and the request is withdrawn"):
        result = world.ssh_once("eve", "--approval-wait", "3", device="Elsewhere2")
        check("knows no device" in world.proxy_log("eve"), world.proxy_log("eve"))
        hub.create_device("Third")
        result = world.ssh_once("eve", "--approval-wait", "3", device="Third")
        check(result.returncode != 0, "ssh was let through")
        check("nobody has approved request" in world.proxy_log("eve"), world.proxy_log("eve"))
    with lab.step("a policy that a rule names waits too, and may do nothing else"):
        hub.cli("policy", "create", "contractors")
        file = lab.secret_file("contractors.cs", hub.service_string("contractors"))
        options = ["--connection-string-file", file, "--ca-file", hub.ca]
        program = harness.binary("service-proxy")
        result = lab.run([program, *options, "query", "SELECT * FROM devices"], ok=False)
        check("does not allow it" in result.stderr, result.stderr)
        found = lab.run([program, *options, "devices"]).stdout
        check(re.search(r"^MyDevice +yes +ssh \(with approval\)", found, re.M), found)
        world.folder("contractors").mkdir()
        (world.folder("contractors") / "service-proxy.toml").write_text(
            f'connection-string-file = "{file}"\nca-file = "{hub.ca}"\n'
        )
        session = world.started("contractors", "echo through")
        hub.cli("approvals", "grant", world.waiting("contractors")["id"])
        equal(session.wait(30), 0, f"exit code ({session.tail()})")
    with lab.step("whoever leaves while waiting withdraws the request"):
        listener = lab.start_ours(
            "service-proxy", *world.options("kim"), "listen", "Elsewhere", "0:ssh", name="listener-kim"
        )
        port = int(listener.wait_for(r"127\.0\.0\.1:(\d+)")[1])
        with contextlib.closing(harness.connect(port)) as connection:
            request = world.waiting("oidc:kim@example.com")
            connection.setsockopt(harness.socket.SOL_SOCKET, harness.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        def withdrawn():
            found = json.loads(hub.cli("approvals", "list", "--all", "--json"))
            return next(it for it in found if it["id"] == request["id"])["state"] == "withdrawn"

        harness.wait_until(withdrawn, 60, "the request is withdrawn", pause=0.5)
        listener.stop()


def through_ansible(world):
    lab, hub = world.lab, world.hub
    with lab.step(f"Ansible waits {WAIT:g} s for an approver, and works"):
        ansible = pathlib.Path(sys.executable).with_name("ansible-playbook")
        if not ansible.exists():
            raise harness.Skip("ansible-core is not installed (from PyPI, see requirements.txt)")
        hub.create_device("ForAnsible")
        string = hub.cli("device", "connection-string", "ForAnsible")
        proxy = hub.device_proxy(string, "--target", f"ssh=127.0.0.1:{world.server.port}", name="of-ansible")
        proxy.wait_for("connected; streams reach")
        playbook = lab.folder / "play.yml"
        playbook.write_text(
            "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.raw: echo through\n"
            "      register: said\n    - ansible.builtin.debug:\n        msg: 'it says {{ said.stdout_lines[0] }}'\n"
        )
        words = " ".join(f"'{word}'" if " " in word else word for word in world.proxied("eve", "ForAnsible")[2:])
        config = lab.folder / "ansible.cfg"
        config.write_text(
            f"[defaults]\nhome = {lab.folder}/ansible\nnocolor = true\ntimeout = 600\n"
            f"[ssh_connection]\nssh_args = -F /dev/null {words}\ncontrol_path_dir = {lab.folder}/control\n"
        )
        run = lab.start(
            "ansible", [ansible, "-i", f"{DEVICE},", "-u", world.server.user, playbook],
            env={"ANSIBLE_CONFIG": str(config), "LC_ALL": "C.UTF-8"}, cwd=lab.folder,
        )  # fmt: skip
        request = world.waiting("oidc:eve@example.com")
        time.sleep(WAIT)
        check(run.running(), f"it has ended: {run.tail(20)}")
        hub.cli("approvals", "grant", request["id"])
        equal(run.wait(60), 0, f"exit code ({run.tail(20)})")
        check("it says through" in run.stdout, run.tail(20))


class OidcHub(harness.Hub):
    """A hub that knows the provider, and tells the webhook."""

    def __init__(self, lab, provider, hook, client="service-proxy"):
        super().__init__(lab, name="hub" if client == "service-proxy" else f"hub-of-{client}")
        self.access = lab.folder / f"{self.name}-access.toml"
        self.write_access(ACCESS)
        self.config = lab.folder / f"{self.name}.toml"
        self.config.write_text(
            f"""
            [access]
            file = "{self.access}"
            [oidc]
            issuer = "{provider.issuer}"
            client-id = "{client}"
            ca-file = "{provider.ca}"
            [approvals]
            webhook-url = "{hook.url}"
            webhook-secret-file = "{hook.secret_file}"
            webhook-ca-file = "{hook.ca}"
            """.replace("            ", "")
        )

    def write_access(self, text):
        new = self.access.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.access)

    def start(self):
        self.process = self.lab.start_ours(
            "stream-hub", "serve", "--config", self.config,
            "--data-dir", self.data,
            "--hostname", self.address,
            "--https", f"127.0.0.1:{self.https}",
            "--mqtts", f"127.0.0.1:{self.mqtts}",
            name=self.name,
        )  # fmt: skip
        self.process.wait_for(r"\bready\b")
        return self


class Webhook:
    """A program that hears of approvals, and checks who tells it."""

    def __init__(self, lab):
        self.ca, certificate, key = make_certificate(lab, "hook")
        self.secret_file = lab.secret_file("hook.secret", "secret-of-the-hook")
        lab.secrets.add("secret-of-the-hook")
        self.heard, self.refusals = [], 1
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told, digest = re.fullmatch(
                    r"t=(\d+),sha256=([0-9a-f]{64})", self.headers["stream-hub-signature"]
                ).groups()
                wanted = hmac.new(b"secret-of-the-hook", f"{told}.".encode() + body, hashlib.sha256).hexdigest()
                is_good = hmac.compare_digest(digest, wanted) and abs(time.time() - int(told)) < 60
                # The first message is lost, and comes again.
                hook.refusals -= 1
                if is_good and hook.refusals < 0:
                    hook.heard.append(json.loads(body))
                self.send_response(200 if is_good and hook.refusals < 0 else 503)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"https://localhost:{server.server_port}/approvals"

    def wait_for(self, request, state):
        def found():
            return next((it for it in self.heard if (it["id"], it["state"]) == (request, state)), None)

        return harness.wait_until(found, 20, f"the webhook hears that {request} is {state}")


if __name__ == "__main__":
    harness.use_venv()
    harness.run(main)
