#!/usr/bin/env python3
"""The command lines as a user meets them: the walk-through of docs/hub.md, every way to give a
connection string, the echo test, and a throughput test."""

import os
import re
import signal
import subprocess

import harness
from harness import DEVICE, VOLUME_MIB, check, equal, json_of


def main(lab):
    hub = harness.Hub(lab).start()
    device_string = hub.create_device()
    target = harness.TcpServer(harness.echo_back)
    device = hub.device_proxy(device_string, "--echo", "--target", f"127.0.0.1:{target.port}")

    with lab.step("an echo test comes back whole"):
        result = hub.echo("--count", "3", "--interval", "0.1", "--size", "1000")
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()[-300:]})")

    with lab.step(f"an echo test of {VOLUME_MIB} MiB comes back whole"):
        volume = "1G" if VOLUME_MIB == 1024 else f"{VOLUME_MIB}MiB"
        result = hub.echo("--bytes", volume, timeout=harness.transfer_timeout(2 * VOLUME_MIB))
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()[-300:]})")
        print(f"        {last_line(result.stdout + result.stderr)}")

    with lab.step("connect: standard input to its end, only the tunnel's bytes on standard output"):
        for size in (0, 5, 1_000_000):
            sent = os.urandom(size)
            argv = [harness.binary("service-proxy"), *hub.service_options(), "connect", DEVICE, "echo"]
            result = lab.run(argv, input=sent, text=False)
            check(result.stdout == sent, f"sent {len(sent)} bytes, got {len(result.stdout)}")

    with lab.step("a stream to a name without a target goes to the unnamed target"):
        _, [port] = hub.listen("whatever")
        check(harness.echoes(port, os.urandom(100_000)), "other bytes came back")

    with lab.step("several ports from one listener, one of them on another address"):
        several(lab, hub)

    with lab.step("a second device-proxy: --echo alone echoes under every name"):
        hub.device_proxy(hub.create_device("Echo"), "--echo", name="device-echo")
        result = hub.echo("--stream", "TestStream", "--text", "hello", "--count", "1", device="Echo")
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()[-300:]})")

    with lab.step("a target that is not allowed is a reject"):
        hub.device_proxy(hub.create_device("Named"), "--target", f"ssh=127.0.0.1:{target.port}", name="device-named")
        result = hub.echo("--count", "1", device="Named")
        check(result.returncode != 0, "exit code 0 for a rejected stream")
        check(re.search("(?i)reject", result.stderr), f"no word of a reject: {result.stderr!r}")

    configuration(lab, hub, target)
    modules_and_lists(lab, hub)

    with lab.step("each program ends by itself when told to"):
        service, [port] = hub.listen("echo", name="service-told")
        with harness.connect(port) as connection:
            connection.sendall(b"ping")
            harness.receive_exactly(connection, 4)
            for process in (service, device, hub.process):
                process.signal(signal.SIGINT if process is service else signal.SIGTERM)
                code = process.wait(15)
                check(code in (0, 130, 143), f"{process.name} ended with {code}: {process.tail()}")
    target.close()


def last_line(text):
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1].strip() if lines else "(nothing printed)"


def several(lab, hub):
    one, two = harness.free_port(), harness.free_port()
    options = hub.service_options()
    mappings = [f"{one}:echo", f"127.0.0.2:{two}:echo"]
    process = lab.start_ours("service-proxy", *options, "listen", DEVICE, *mappings, name="service-several")
    process.wait_for(rf"127\.0\.0\.1:{one}\b")
    process.wait_for(rf"127\.0\.0\.2:{two}\b")
    check(harness.echoes(one), "no echo on the first port")
    with harness.socket.create_connection(("127.0.0.2", two), timeout=40) as connection:
        connection.sendall(b"ping")
        equal(harness.receive_exactly(connection, 4), b"ping", "echo on the second port")


def configuration(lab, hub, target):
    """The samples' own arguments and variables, and their precedence."""
    string = hub.create_device("Sample")
    service_string = hub.service_string()
    address = ["localhost", str(target.port)]
    ca = ["--ca-file", hub.ca]
    other = {"IOTHUB_DEVICE_CONN_STRING": string.replace("Sample", "Wrong")}
    for number, (title, arguments, env) in enumerate(
        (
            ("the sample's arguments", [string, *address], {}),
            ("the sample's arguments, options between", [string, "--sample-output", *address], {}),
            (
                "the sample's variables",
                [],
                {"IOTHUB_DEVICE_CONN_STRING": string, "REMOTE_HOST_NAME": "localhost", "REMOTE_PORT": address[1]},
            ),
            ("the SDKs' variable, then arguments", address, {"IOTHUB_DEVICE_CONNECTION_STRING": string}),
            ("an argument over a variable", [string, *address], other),
            (
                "an option over an argument",
                ["--connection-string", string, other["IOTHUB_DEVICE_CONN_STRING"], *address],
                {},
            ),
            ("MQTT over TLS on 8883", [string, *address, "--transport", "mqtt", "--mqtts-port", hub.mqtts], {}),
        )
    ):
        with lab.step(f"device-proxy with {title}"):
            process = lab.start_ours("device-proxy", *arguments, *ca, name=f"device-sample-{number}", env=env)
            try:
                result = hub.echo("--stream", "TestStream", "--count", "1", device="Sample")
                equal(result.returncode, 0, f"exit code ({last_line(result.stderr)}; device: {process.tail()})")
            finally:
                process.stop()

    hub.device_proxy(string, *address, name="device-sample")
    local = harness.free_port()
    for number, (title, arguments, env) in enumerate(
        (
            ("the sample's arguments", [service_string, "Sample", str(local)], {}),
            ("the sample's arguments and its output", [service_string, "Sample", str(local), "--sample-output"], {}),
            (
                "the Node sample's variables",
                [],
                {
                    "IOTHUB_CONNECTION_STRING": service_string,
                    "STREAMING_TARGET_DEVICE": "Sample",
                    "PROXY_PORT": str(local),
                },
            ),
            (
                "the C# sample's variables",
                [],
                {"IOTHUB_CONNECTION_STRING": service_string, "DEVICE_ID": "Sample", "LOCAL_PORT": str(local)},
            ),
        )
    ):
        with lab.step(f"service-proxy with {title}"):
            process = lab.start_ours("service-proxy", *arguments, *ca, name=f"service-sample-{number}", env=env)
            try:
                process.wait_for(rf"127\.0\.0\.1:{local}\b|localhost:{local}\b")
                check(harness.echoes(local), "other bytes came back")
                if "--sample-output" in arguments:
                    process.wait_for(r"Stream response received: Name=TestStream IsAccepted=True")
                    process.wait_for(r"Starting streaming")
                    process.wait_for(r"Done streaming")
            finally:
                process.stop()

    with lab.step("a device called echo, protected by --"):
        hub.device_proxy(hub.create_device("echo"), "--echo", name="device-called-echo")
        arguments = [*hub.service_options(), "--", "echo", str(local)]
        process = lab.start_ours("service-proxy", *arguments, name="service-protected", log_level=None)
        process.wait_for(rf":{local}\b")
        check(harness.echoes(local), "other bytes came back")
        process.stop()


def modules_and_lists(lab, hub):
    with lab.step("a module has a stream of its own"):
        string = hub.cli("module", "create", DEVICE, "MyModule")
        check("ModuleId=MyModule" in string, "no module connection string")
        equal(hub.cli("module", "connection-string", DEVICE, "MyModule"), string, "the string again")
        hub.device_proxy(string, "--echo", name="device-module")
        result = hub.echo("--count", "1", "--module", "MyModule")
        equal(result.returncode, 0, f"exit code ({last_line(result.stderr)})")

    with lab.step("lists and objects as JSON"):
        devices = json_of(hub.cli("device", "list", "--json"))
        check(any(device.get("deviceId") == DEVICE for device in devices), f"{DEVICE} is not in {str(devices)[:300]}")
        equal(json_of(hub.cli("device", "show", DEVICE, "--json"))["deviceId"], DEVICE, "deviceId")
        modules = json_of(hub.cli("module", "list", DEVICE, "--json"))
        check("MyModule" in str(modules), "no module in the list")
        policies = str(json_of(hub.cli("policy", "list", "--json")))
        for name in ("iothubowner", "service", "device", "registryRead", "registryReadWrite"):
            check(name in policies, f"no policy {name}")
        endpoints = json_of(hub.cli("endpoints"))["streamingEndpoints"]
        check(all(address.startswith("https://") for address in endpoints) and endpoints, f"endpoints: {endpoints}")

    with lab.step("the data folder and its keys are for its owner only"):
        mode = hub.data.stat().st_mode & 0o777
        equal(oct(mode), "0o700", "mode of the folder")
        for path in hub.data.rglob("*"):
            if path.is_file() and path.suffix != ".pem" or "key" in path.name:
                equal(oct(path.stat().st_mode & 0o777), "0o600", f"mode of {path.name}")

    with lab.step("the certificate is the name's, and for TLS 1.2 too"):
        openssl = harness.need("openssl")
        for version in ("-tls1_2", "-tls1_3"):
            argv = [openssl, "s_client", "-connect", f"localhost:{hub.https}", "-servername", "localhost", version]
            argv += ["-CAfile", hub.ca, "-verify_hostname", "localhost", "-verify_return_error"]
            result = lab.run(argv, stdin=subprocess.DEVNULL, ok=False)
            check("Verify return code: 0 (ok)" in result.stdout, f"openssl {version}: {last_line(result.stderr)}")


if __name__ == "__main__":
    harness.run(main)
