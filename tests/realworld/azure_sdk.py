#!/usr/bin/env python3
"""Unmodified IoT Hub SDKs against our hub.

SDKs know no ports other than 443 and 8883 and want a host name with a dot. So all of this runs in a
network namespace with its own hosts file, and changes nothing on the machine.
"""

import logging
import os
import pathlib
import queue
import re
import select
import subprocess
import threading
import time

import harness
import namespace
from harness import DEVICE, check, equal

HOST = "hub.device-streams.test"
KEEP_ALIVE = 3
DEVICE_JS = pathlib.Path(__file__).with_name("device.cjs")
AMQP_JS = pathlib.Path(__file__).with_name("amqp.cjs")
SERVICE_JS = pathlib.Path(__file__).with_name("service.cjs")


def main(lab):
    try:
        import azure.iot.device as sdk
    except ImportError as missing:
        raise harness.Skip(f"{missing} (from PyPI, see requirements.txt)") from None

    # It reports every connection that ends, intended ends included.
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    hub = harness.Hub(lab, hostname=HOST, https=443, mqtts=8883).start()
    proxy_string = hub.create_device("Proxy")
    equal("HostName=" + HOST in proxy_string.split(";"), True, "a host name without a port")
    hub.device_proxy(proxy_string, "--echo")

    python_devices(lab, hub, sdk)
    python_reconnects(lab, hub, sdk)
    node_reconnects(lab, hub)
    x509_devices(lab, hub, sdk)
    python_service(lab, hub)
    node_service(lab, hub)
    node_amqp(lab, hub)

    with lab.step("our own proxies meanwhile, on the default ports"):
        for transport in ("mqtt-ws", "mqtt"):
            string = hub.create_device(f"Proxy-{transport}")
            hub.device_proxy(string, "--echo", "--transport", transport, name=f"device-{transport}")
        for device in ("Proxy", "Proxy-mqtt-ws", "Proxy-mqtt"):
            echo_through(hub, device)


def echo_through(hub, device):
    result = hub.echo("--count", "1", device=device)
    equal(result.returncode, 0, f"exit code of echo through {device} ({result.stderr.strip()[-300:]})")


def python_devices(lab, hub, sdk):
    strings = {"device": hub.create_device(), "module": hub.cli("module", "create", DEVICE, "MyModule")}
    clients = {"device": sdk.IoTHubDeviceClient, "module": sdk.IoTHubModuleClient}
    for kind, string in strings.items():
        for websockets in (False, True):
            transport = "MQTT over WebSockets" if websockets else "MQTT"
            with lab.step(f"azure-iot-device, a {kind} over {transport}: connects, sends, stays"):
                client = clients[kind].create_from_connection_string(
                    string,
                    server_verification_cert=hub.ca.read_text(),
                    websockets=websockets,
                    keep_alive=KEEP_ALIVE,
                    connection_retry=False,
                )
                use(hub, client, sdk, stays=2.5 * KEEP_ALIVE, c2d=kind == "device")

    for kind, string in strings.items():
        for websockets in (False, True):
            transport = "MQTT over WebSockets" if websockets else "MQTT"
            with lab.step(f"azure-iot-device, a {kind} over {transport}: reads its twin and reports properties"):
                client = clients[kind].create_from_connection_string(
                    string,
                    server_verification_cert=hub.ca.read_text(),
                    websockets=websockets,
                    connection_retry=False,
                )
                try:
                    client.connect()
                    report(client, sdk)
                finally:
                    client.shutdown()

    with lab.step("azure-iot-device is told when its key is wrong"):
        client = sdk.IoTHubDeviceClient.create_from_connection_string(
            re.sub("SharedAccessKey=.{6}", "SharedAccessKey=AAAAAA", strings["device"]),
            server_verification_cert=hub.ca.read_text(),
            connection_retry=False,
        )
        try:
            client.connect()
            raise harness.Failure("it was let in")
        except sdk.exceptions.CredentialError:
            pass
        finally:
            client.shutdown()


def twin_of(client):
    """The SDK itself waits without a limit for an answer that does not arrive."""
    answers = queue.Queue()
    threading.Thread(target=lambda: answers.put(client.get_twin()), daemon=True).start()
    try:
        return answers.get(timeout=20)
    except queue.Empty:
        raise harness.Failure("its twin did not come within 20 s") from None


def python_reconnects(lab, hub, sdk):
    """It subscribes once in the client's lifetime, and relies on the hub's persistent session."""

    def connected(**options):
        client = sdk.IoTHubDeviceClient.create_from_connection_string(
            string, server_verification_cert=hub.ca.read_text(), **options
        )
        client.connect()
        twin_of(client)
        return client

    string = hub.create_device("Reconnecting")
    client = connected(connection_retry_interval=1)
    try:
        with lab.step("azure-iot-device: its twin after disconnect and connect"):
            client.disconnect()
            client.connect()
            twin_of(client)
        with lab.step("azure-iot-device: its twin after the hub was killed"):
            hub.process.kill()
            harness.wait_until(lambda: not client.connected, 20, "the end of its connection")
            hub.start()
            harness.wait_until(lambda: client.connected, 20, "its next connection")
            twin_of(client)
    finally:
        client.shutdown()

    with lab.step("azure-iot-device: its twin after a renewal of its token"):
        states = []
        # Renewed 120 s before it ends.
        client = connected(sastoken_ttl=125)
        client.on_connection_state_change = lambda: states.append(client.connected)
        try:
            harness.wait_until(lambda: states[-2:] == [False, True], 30, "a renewal")
            twin_of(client)
        finally:
            client.shutdown()


def node_reconnects(lab, hub):
    with lab.step("azure-iot-device (npm): its twin after close and open, and after the hub was killed"):
        node = harness.need("node")
        modules = harness.WORK / "npm" / "node_modules"
        if not (modules / "azure-iot-device").is_dir():
            raise harness.Skip("azure-iot-device from npm is not installed")
        log = lab.folder / "node-device.stderr"
        with open(log, "wb") as errors:
            device = subprocess.Popen(
                [node, DEVICE_JS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "NODE_PATH": str(modules),
                    "NODE_EXTRA_CA_CERTS": str(hub.ca),
                    "DEVICE_STRING": hub.create_device("NodeDevice"),
                },
            )

        def line(wanted):
            check(select.select([device.stdout], [], [], 40)[0], f"no '{wanted}' within 40 s")
            equal(device.stdout.readline().strip(), wanted, f"its line ({log.read_text()[-300:]})")

        def order(word):
            device.stdin.write(f"{word}\n")
            device.stdin.flush()
            line(word)

        try:
            line("opened")
            order("again")
            order("reopen")
            hub.process.kill()
            hub.start()
            order("again")
        finally:
            device.kill()
            device.wait()


def use(hub, client, sdk, stays=0, c2d=False):
    """Connects, sends telemetry, and stays connected for a while."""
    states = []
    client.on_connection_state_change = lambda: states.append(client.connected)
    try:
        client.connect()
        if c2d:
            client.on_message_received = lambda message: None
        message = sdk.Message('{"temperature": 21.5}', content_type="application/json", content_encoding="utf-8")
        message.message_id = "1"
        message.custom_properties["name with blanks"] = "a/b & c=d"
        client.send_message(message)  # returns with the PUBACK
        client.send_message("x" * 200_000)
        end = time.monotonic() + stays
        while time.monotonic() < end:
            check(client.connected, f"the connection ended: {states}")
            time.sleep(0.1)
        if stays:
            echo_through(hub, "Proxy")
            client.send_message("after more than one keep-alive")
        equal(states, [True], "connection states")
    finally:
        client.shutdown()


def report(client, sdk):
    """Reads the twin, changes it, and reads it again."""
    before = client.get_twin()
    check(before["desired"]["$version"] >= 1, f"no version of desired in {before}")
    version = before["reported"]["$version"]
    client.patch_twin_reported_properties({"firmware": {"version": "1.2", "slots": 2}, "gone": True})
    client.patch_twin_reported_properties({"firmware": {"slots": None}, "gone": None})
    after = client.get_twin()["reported"]
    equal(after, {"firmware": {"version": "1.2"}, "$version": version + 2}, "what was reported")
    try:
        client.patch_twin_reported_properties({"a.b": 1})
        raise harness.Failure("a name with a dot was taken")
    except sdk.exceptions.ClientError:
        pass


def x509_devices(lab, hub, sdk):
    openssl = harness.need("openssl")

    def certificate(name):
        cert, key = lab.folder / f"{name}.cert.pem", lab.folder / f"{name}.key.pem"
        subject = ["-subj", f"/CN={name}", "-days", "2"]
        lab.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, *subject])
        return cert, key

    def thumbprint(cert, digest):
        shown = lab.run([openssl, "x509", "-in", cert, "-noout", "-fingerprint", f"-{digest}"]).stdout
        return shown.strip().rpartition("=")[2].replace(":", "")

    def client(name, pair, websockets):
        return sdk.IoTHubDeviceClient.create_from_x509_certificate(
            x509=sdk.X509(cert_file=str(pair[0]), key_file=str(pair[1])),
            hostname=HOST,
            device_id=name,
            server_verification_cert=hub.ca.read_text(),
            websockets=websockets,
            connection_retry=False,
        )

    for digest in ("sha1", "sha256"):
        name = f"X509-{digest}"
        with lab.step(f"azure-iot-device with a certificate, known by its {digest} thumbprint, over both transports"):
            pair = certificate(name)
            string = hub.create_device(name, "--x509-thumbprint", thumbprint(pair[0], digest))
            for websockets in (False, True):
                use(hub, client(name, pair, websockets), sdk)
        with lab.step(f"device-proxy with the same certificate ({digest})"):
            check(re.search("x509", string, re.IGNORECASE), "no x509 in the connection string")
            for transport in ("mqtt", "mqtt-ws"):
                options = ["--echo", "--cert", pair[0], "--key", pair[1], "--transport", transport]
                process = hub.device_proxy(string, *options, name=f"device-{name}")
                echo_through(hub, name)
                process.stop()

    with lab.step("azure-iot-device with a certificate of version 1, as IoT Hub's documentation makes them"):
        cert, key = certificate("version-1")
        request = lab.folder / "version-1.csr"
        lab.run([openssl, "req", "-new", "-key", key, "-out", request, "-subj", "/CN=version-1"])
        lab.run([openssl, "x509", "-req", "-in", request, "-signkey", key, "-out", cert, "-days", "2"])
        hub.create_device("X509-version-1", "--x509-thumbprint", thumbprint(cert, "sha1"))
        for websockets in (False, True):
            use(hub, client("X509-version-1", (cert, key), websockets), sdk)

    with lab.step("azure-iot-device with another certificate is refused"):
        stranger = client("X509-sha256", certificate("stranger"), False)
        try:
            stranger.connect()
            raise harness.Failure("it was let in")
        except (sdk.exceptions.CredentialError, sdk.exceptions.ConnectionFailedError):
            pass
        finally:
            stranger.shutdown()


def python_service(lab, hub):
    with lab.step("azure-iot-hub: creates, reads, lists, changes and deletes devices and modules"):
        try:
            from azure.iot.hub import IoTHubRegistryManager
        except ImportError as missing:
            raise harness.Skip(f"{missing}; the npm package is used instead") from None
        os.environ["REQUESTS_CA_BUNDLE"] = str(hub.ca)
        owner = hub.service_string("iothubowner")
        registry = IoTHubRegistryManager.from_connection_string(owner)
        name = "From.Python+1"
        made = registry.create_device_with_sas(name, "", "", "enabled")
        equal((made.device_id, made.status), (name, "enabled"), "the new device")
        key = made.authentication.symmetric_key.primary_key
        lab.secrets.add(key)
        read = registry.get_device(name)
        equal(read.authentication.symmetric_key.primary_key, key, "its key when read again")
        equal(read.connection_state, "Disconnected", "its connection state")
        changed = registry.update_device_with_sas(name, read.etag, key, key, "disabled")
        equal(changed.status, "disabled", "its status after the change")
        check(changed.etag != read.etag, "the same etag after a change")
        fails(lambda: registry.update_device_with_sas(name, read.etag, key, key, "enabled"), 412, "an old etag")
        fails(lambda: registry.create_device_with_sas(name, key, key, "enabled"), 409, "a device that exists")
        module = registry.create_module_with_sas(name, "MyModule", "", "", "")
        equal(module.module_id, "MyModule", "its module")
        equal([m.module_id for m in registry.get_modules(name)], ["MyModule"], "its modules")
        registry.delete_module(name, "MyModule")

        def states():
            listed = {device.device_id: device.connection_state for device in registry.get_devices()}
            return listed.get(name), listed.get("Proxy")

        # The proxy connects again after the hub was killed.
        expected = ("Disconnected", "Connected")
        harness.wait_until(lambda: states() == expected, 20, f"the states in the list are {expected}")
        registry.delete_device(name)
        fails(lambda: registry.get_device(name), 404, "a device that is gone")
        fails(lambda: registry.delete_device(name), 404, "a device that is gone")
        twin = registry.get_twin(DEVICE)
        equal((twin.device_id, twin.status, twin.tags), (DEVICE, "enabled", {}), "the twin")
        equal(twin.properties.reported["firmware"], {"version": "1.2"}, "what the device has reported")
        check("$lastUpdated" in twin.properties.reported["$metadata"]["firmware"], "no metadata in the twin")
        equal(registry.get_module_twin(DEVICE, "MyModule").module_id, "MyModule", "the module's twin")
        session = registry.get_twin("Proxy").properties.reported["deviceStreams"]["session"]
        equal((session["version"], len(session["bootId"])), (1, 32), "what device-proxy has reported")
        fails(lambda: registry.get_twin(name), 404, "the twin of a device that is gone")
        reader = IoTHubRegistryManager.from_connection_string(hub.service_string("registryRead"))
        equal(reader.get_device("Proxy").device_id, "Proxy", "what a reader sees")
        fails(lambda: reader.create_device_with_sas(name, "", "", "enabled"), (401, 403), "a reader's wish to write")


def fails(operation, statuses, what):
    statuses = statuses if isinstance(statuses, tuple) else (statuses,)
    try:
        operation()
    except Exception as error:  # the SDK has several kinds of error
        status = getattr(getattr(error, "response", None), "status_code", None)
        check(status in statuses, f"{what}: expected status {statuses}, saw {status}: {error}")
    else:
        raise harness.Failure(f"{what}: it succeeded")


def node_service(lab, hub):
    """azure-iothub from npm, and a stream with the WebSocket library of its sample proxy."""
    modules = harness.WORK / "npm" / "node_modules"
    for part, title in (
        ("registry", "azure-iothub (npm): creates, reads, lists, changes and deletes devices"),
        ("stream", "azure-iothub (npm): a stream as its sample proxy opens it, with websocket-stream"),
    ):
        with lab.step(title):
            node = harness.need("node")
            if not (modules / "azure-iothub").is_dir():
                raise harness.Skip("azure-iothub from npm is not installed")
            result = lab.run(
                [node, SERVICE_JS, part],
                env={
                    **os.environ,
                    "NODE_PATH": str(modules),
                    "NODE_EXTRA_CA_CERTS": str(hub.ca),
                    "IOTHUB_CONNECTION_STRING": hub.service_string("iothubowner"),
                    "STREAMING_TARGET_DEVICE": "Proxy",
                },
            )
            equal(result.stdout.strip().splitlines()[-1:], ["done"], f"last line ({result.stderr[-300:]})")


def node_amqp(lab, hub):
    """The hub does not implement AMQP: its clients are refused at once, with an explanation."""
    modules = harness.WORK / "npm" / "node_modules"
    with lab.step("npm packages over AMQP, TCP and WebSocket: they give up at once and say what to use"):
        node = harness.need("node")
        if not (modules / "azure-iot-device-amqp").is_dir():
            raise harness.Skip("azure-iot-device-amqp from npm is not installed")
        # Without a refusal that they understand they retry for four minutes.
        result = lab.run(
            [node, AMQP_JS],
            timeout=60,
            env={
                **os.environ,
                "NODE_PATH": str(modules),
                "NODE_EXTRA_CA_CERTS": str(hub.ca),
                "DEVICE_STRING": hub.create_device("Amqp"),
                "IOTHUB_CONNECTION_STRING": hub.service_string("iothubowner"),
            },
        )
        equal(result.stdout.strip().splitlines()[-1:], ["done"], f"last line ({result.stderr[-600:]})")
        asked = [line for line in hub.process.output.splitlines() if "a client of AMQP is refused" in line]
        equal(len(asked), 1, "lines of the hub about one peer that asks for AMQP four times")


if __name__ == "__main__":
    harness.use_venv()
    namespace.run(main, HOST)
