"""Managed devices of two SDKs, with one face: what a service's side asks of them."""

import json
import os
import pathlib
import queue
import subprocess
import threading

import harness
from harness import check

DEVICE_JS = pathlib.Path(__file__).with_name("fleet_device.cjs")
TIMEOUT = 25

# When a device renews its token: long after its first rounds have been played.
RENEW_AFTER = 15


class Device:
    """What has arrived at a device, by kind."""

    def __init__(self, name):
        self.name = name
        self.arrived = {"desired": queue.Queue(), "message": queue.Queue()}
        # The ids of messages that were seen.
        self.messages = set()

    def next(self, kind, matches=lambda value: True):
        """The first arrival of this kind that matches; those before it are dropped."""
        try:
            while not matches(value := self.arrived[kind].get(timeout=TIMEOUT)):
                pass
            return value
        except queue.Empty:
            raise harness.Failure(f"{self.name}: no {kind} within {TIMEOUT} s") from None

    def waiting(self, kind):
        """How much of this kind has arrived and was not asked for."""
        return self.arrived[kind].qsize()


class PythonDevice(Device):
    """`azure-iot-device` of PyPI. A method is echoed with status 207."""

    def __init__(self, hub, string, name, websockets):
        super().__init__(name)
        import azure.iot.device as sdk

        self.client = sdk.IoTHubDeviceClient.create_from_connection_string(
            string,
            server_verification_cert=hub.ca.read_text(),
            websockets=websockets,
            connection_retry_interval=1,
            # Renewed 120 s before it ends.
            sastoken_ttl=120 + RENEW_AFTER,
        )
        self.client.connect()
        self.client.on_twin_desired_properties_patch_received = self.arrived["desired"].put
        self.client.on_message_received = self._message
        self.client.on_method_request_received = lambda request: self.client.send_method_response(
            sdk.MethodResponse.create_from_method_request(request, 207, request.payload)
        )

    def _message(self, message):
        self.arrived["message"].put(
            {
                "body": message.data.decode(),
                "id": message.message_id,
                "type": message.content_type,
                "correlation": message.correlation_id,
                "properties": dict(message.custom_properties),
            }
        )

    def twin(self):
        return self._timely(self.client.get_twin)

    def report(self, patch):
        self._timely(lambda: self.client.patch_twin_reported_properties(patch))

    def reopen(self, meanwhile):
        self._timely(self.client.disconnect)
        meanwhile()
        self._timely(self.client.connect)

    def send(self, body):
        self._timely(lambda: self.client.send_message(body))

    def _timely(self, call):
        """The SDK itself waits without a limit."""
        results = queue.Queue()

        def work():
            try:
                results.put((call(), None))
            except Exception as error:  # given to the caller
                results.put((None, error))

        threading.Thread(target=work, daemon=True).start()
        try:
            value, error = results.get(timeout=TIMEOUT)
        except queue.Empty:
            raise harness.Failure(f"{self.name}: no answer within {TIMEOUT} s") from None
        if error:
            raise error
        return value

    def close(self):
        self.client.shutdown()


class NodeDevice(Device):
    """`azure-iot-device` with `azure-iot-device-mqtt` of npm, in `fleet_device.cjs`."""

    def __init__(self, lab, hub, string, name, transport):
        super().__init__(name)
        self.done = queue.Queue()
        self.log = lab.logs / f"{name}.stderr"
        with open(self.log, "wb") as errors:
            self.process = subprocess.Popen(
                [harness.need("node"), DEVICE_JS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "NODE_PATH": str(node_modules()),
                    "NODE_EXTRA_CA_CERTS": str(hub.ca),
                    "DEVICE_STRING": string,
                    "TRANSPORT": transport,
                    "RENEW_AFTER": str(RENEW_AFTER),
                },
            )
        threading.Thread(target=self._read, daemon=True).start()
        self._wait("open")

    def _read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "event" in said:
                self.arrived[said["event"]].put(said["value"])
            else:
                self.done.put(said)

    def _wait(self, order):
        try:
            said = self.done.get(timeout=TIMEOUT)
        except queue.Empty:
            said = self.log.read_text()[-300:]
            raise harness.Failure(f"{self.name}: no '{order}' within {TIMEOUT} s: {said}") from None
        check(said["done"] == order and "failed" not in said, f"{self.name}: {order}: {said}")
        return said.get("value")

    def _order(self, order, value=None):
        self.process.stdin.write(json.dumps({"order": order, "value": value}) + "\n")
        self.process.stdin.flush()
        return self._wait(order)

    def twin(self):
        return self._order("twin")

    def report(self, patch):
        self._order("report", patch)

    def reopen(self, meanwhile):
        self._order("close")
        meanwhile()
        self._order("open")

    def send(self, body):
        self._order("send", body)

    def close(self):
        self.process.kill()
        self.process.wait()


def node_modules():
    """Where npm's packages are."""
    modules = harness.WORK / "npm" / "node_modules"
    for package in ("azure-iot-device", "azure-iot-device-mqtt", "azure-iothub"):
        if not (modules / package).is_dir():
            raise harness.Skip(f"{package} from npm is not installed")
    return modules
