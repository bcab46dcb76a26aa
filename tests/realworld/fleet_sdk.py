#!/usr/bin/env python3
"""A fleet managed with unmodified SDKs: twins, direct methods, messages, jobs and queries.

The device's side and the service's side are each played by Microsoft's packages of PyPI and npm,
with the hub's CA and without a patch. SDKs know no ports other than 443 and 8883, so all of this
runs in a network namespace of its own.
"""

import json
import logging
import pathlib

import fleet_dotnet
import fleet_python
import harness
import namespace
from fleet_devices import RENEW_AFTER, NodeDevice, PythonDevice, node_modules
from harness import check, equal
from rest import Rest

HOST = "hub.device-streams.test"
SERVICE_JS = pathlib.Path(__file__).with_name("fleet_service.cjs")
TUTORIALS_JS = pathlib.Path(__file__).with_name("fleet_tutorials.cjs")

KINDS = {
    "azure-iot-device over MQTT": lambda lab, hub, string: PythonDevice(hub, string, "py-mqtt", False),
    "azure-iot-device over MQTT over WebSocket": lambda lab, hub, string: PythonDevice(hub, string, "py-ws", True),
    "azure-iot-device (npm) over MQTT": lambda lab, hub, string: NodeDevice(lab, hub, string, "js-mqtt", "Mqtt"),
    "azure-iot-device (npm) over MQTT over WebSocket": lambda lab, hub, string: NodeDevice(
        lab, hub, string, "js-ws", "MqttWs"
    ),
}


def main(lab):
    # They report every connection that ends, intended ends included.
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    hub = harness.Hub(lab, hostname=HOST, https=443, mqtts=8883).start()
    rest = Rest(hub)
    devices(lab, hub, rest)
    fleet_python.play(lab, hub)
    node(lab, hub, SERVICE_JS, "azure-iothub (npm)")
    node(lab, hub, TUTORIALS_JS, "the documentation's tutorials, with npm")
    fleet_dotnet.play(lab, hub, rest)


def devices(lab, hub, rest):
    """Each device plays its rounds: at first, and after what may end its connection."""
    connected = {}
    try:
        for number, (kind, connect) in enumerate(KINDS.items()):
            with lab.step(f"{kind}: twin, report, patch, method and message"):
                name = f"Fleet-{number}"
                connected[kind] = connect(lab, hub, hub.create_device(name)), name
                exchange(rest, *connected[kind])
        # Once closed and opened again, the npm package connects no more by itself: that comes later.
        hub.process.kill()
        hub.start()
        for kind, (device, name) in connected.items():
            with lab.step(f"{kind}: the same after the hub was killed"):
                harness.wait_until(lambda: connection(rest, name), 30, "its next connection", pause=0.1)
                exchange(rest, device, name)
        for kind, (device, name) in connected.items():
            with lab.step(f"{kind}: the same after a disconnect and a connect, and what was sent meanwhile"):
                device.reopen(lambda name=name: send_meanwhile(rest, name))
                equal([device.next("message")["body"] for _ in range(3)], ["0", "1", "2"], "what had waited")
                equal(device.waiting("message"), 0, "messages that came twice")
                exchange(rest, device, name)
        for kind, (device, name) in connected.items():
            with lab.step(f"{kind}: the same after a renewal of its token"):
                before = connection(rest, name)
                harness.wait_until(
                    lambda: connection(rest, name) not in (before, None), RENEW_AFTER + 15, "a renewal", pause=0.1
                )
                exchange(rest, device, name)
    finally:
        for device, _ in connected.values():
            device.close()


def send_meanwhile(rest, name):
    """Three messages to a device that is not there."""
    harness.wait_until(lambda: connection(rest, name) is None, 10, "the end of its connection")
    for number in range(3):
        rest.send_message(name, str(number).encode())
    equal(rest.identity(name)["cloudToDeviceMessageCount"], 3, "messages that wait for it")


def connection(rest, name):
    """Which connection a device holds; none is None."""
    identity = rest.identity(name)
    return identity["connectionStateUpdatedTime"] if identity["connectionState"] == "Connected" else None


def exchange(rest, device, name):
    """Everything that a service and a device have to say to each other, once."""
    twin = device.twin()
    version, reported = twin["desired"]["$version"], twin["reported"]["$version"]

    device.report({"round": {"number": reported, "gone": True}})
    device.report({"round": {"gone": None}})
    seen = rest.twin(name)["properties"]["reported"]
    equal((seen["round"], seen["$version"]), ({"number": reported}, reported + 2), "what was reported")

    rest.patch_twin(name, {"tags": {"hidden": version}})
    rest.patch_twin(name, {"properties": {"desired": {"round": {"number": version}, "gone": True}}})
    rest.patch_twin(name, {"properties": {"desired": {"gone": None}}})
    for patch in (  # the npm package shows what it reads as well: that has the version before
        {"round": {"number": version}, "gone": True, "$version": version + 1},
        {"gone": None, "$version": version + 2},
    ):
        arrived = device.next("desired", lambda it: it["$version"] == patch["$version"])
        equal(arrived, patch, "the patch that arrived")
    twin = device.twin()
    equal(twin["desired"], {"round": {"number": version}, "$version": version + 2}, "its desired properties")
    check("tags" not in twin, "the device sees its tags")

    for payload in ({"number": version}, None, ["ü", 1.5]):
        equal(rest.method(name, "echo", payload, connect=10), {"status": 207, "payload": payload}, "the answer")

    message(rest, device, name, version)
    device.send(json.dumps({"round": version}))


def message(rest, device, name, number):
    rest.send_message(
        name, f"message {number} ü".encode(), {"a-name.1": "a/b & c=d +", "empty": ""},
        messageid=f"id-{number}", correlationid="c/1", contenttype="text/plain",
    )  # fmt: skip
    received = device.next("message")
    # One whose acknowledgement a killed hub has not stored comes again: at least once, MQTT says.
    while received["id"] in device.messages:
        received = device.next("message")
    device.messages.add(received["id"])
    equal(
        received,
        {
            "body": f"message {number} ü",
            "id": f"id-{number}",
            "type": "text/plain",
            "correlation": "c/1",
            "properties": {"a-name.1": "a/b & c=d +", "empty": ""},
        },
        "the message",
    )


def node(lab, hub, script, title):
    """A script that prints one JSON document for each part that it played."""
    try:
        command = [harness.need("node"), script]
        modules = node_modules()
    except harness.Skip as missing:
        with lab.step(title):
            raise missing
        return
    process = lab.start(
        script.stem,
        command,
        env={
            "NODE_PATH": str(modules),
            "NODE_EXTRA_CA_CERTS": str(hub.ca),
            "IOTHUB_CONNECTION_STRING": hub.service_string("iothubowner"),
        },
    )
    try:
        with lab.step(f"{title}: to the end"):
            equal(process.wait(120), 0, f"exit code ({process.stderr[-500:]})")
    finally:
        process.stop()
    for line in process.stdout.splitlines():
        if line.startswith("{"):
            part = json.loads(line)
            with lab.step(f"{title}: {part['part']}"):
                check(not part.get("failed"), part.get("failed"))


if __name__ == "__main__":
    harness.use_venv()
    namespace.run(main, HOST)
