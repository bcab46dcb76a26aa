"""A service with `azure-iot-hub` of PyPI: every call that it has, against a device and a module."""

import base64
import datetime
import os
import uuid

import harness
from fleet_devices import TIMEOUT, PythonDevice
from harness import check, equal

# paho subscribes to no topic with a plus in it.
DEVICE = "Python.Service@Device"
MODULE = "TheModule"


def play(lab, hub):
    try:
        import azure.iot.hub  # noqa: F401
    except ImportError as missing:
        with lab.step("azure-iot-hub: every call"):
            raise harness.Skip(f"{missing}; the npm package is used instead") from None
        return
    os.environ["REQUESTS_CA_BUNDLE"] = str(hub.ca)
    service = Service(hub)
    try:
        for title, part in (
            ("devices with keys, thumbprints and authorities", service.devices),
            ("devices in bulk, listed and counted", service.bulk),
            ("modules with keys, thumbprints and authorities", service.modules),
            ("a device and a module connect", service.connect),
            ("twins of devices: read, changed, replaced, with ETags", service.twins),
            ("twins of modules", service.module_twins),
            ("methods of devices and modules", service.methods),
            ("queries, page after page", service.queries),
            ("jobs: twin updates, methods, cancelled", service.jobs_),
            ("what the hub does not have is refused, and says so", service.missing),
            ("the one call that needs AMQP", service.amqp),
            ("no call of the package was left out", service.nothing_left_out),
        ):
            with lab.step(f"azure-iot-hub: {title}"):
                part()
    finally:
        service.close()


class Watched:
    """An object of the package, and which of its calls were made."""

    def __init__(self, client):
        self._client = client
        self._called = set()

    def __getattr__(self, name):
        self._called.add(name)
        return getattr(self._client, name)

    def left_out(self):
        kind = type(self._client)
        calls = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
        made_otherwise = {"from_connection_string", "from_token_credential"}
        return sorted(f"{kind.__name__}.{name}" for name in calls - self._called - made_otherwise)


class Service:
    def __init__(self, hub):
        from azure.iot import hub as sdk
        from azure.iot.hub.protocol import models

        self.hub, self.sdk, self.models = hub, sdk, models
        string = hub.service_string("iothubowner")

        def client(name):
            return Watched(getattr(sdk, name).from_connection_string(string))

        self.registry = client("IoTHubRegistryManager")
        self.jobs = client("IoTHubJobManager")
        self.configurations = client("IoTHubConfigurationManager")
        self.runtime = client("IoTHubHttpRuntimeManager")
        self.digital_twins = client("DigitalTwinClient")
        self.device = self.module = None

    def close(self):
        if self.device:
            self.device.close()
        if self.module:
            self.module.shutdown()

    def devices(self):
        registry, key = self.registry, base64.b64encode(b"k" * 32).decode()
        made = registry.create_device_with_sas(DEVICE, None, None, "enabled")
        check(made.authentication.symmetric_key.primary_key, "no keys were made")
        fails(lambda: registry.create_device_with_sas(DEVICE, key, key, "enabled"), 409)

        made = registry.create_device_with_sas("py-sas", key, key, "disabled", status_reason="not yet")
        equal((made.status, made.status_reason), ("disabled", "not yet"), "its status")
        changed = registry.update_device_with_sas("py-sas", made.etag, key, key, "enabled")
        equal(changed.status, "enabled", "its status after a change")
        fails(lambda: registry.update_device_with_sas("py-sas", made.etag, key, key, "enabled"), 412)
        registry.delete_device("py-sas", changed.etag)
        fails(lambda: registry.get_device("py-sas"), 404)

        made = registry.create_device_with_x509("py-x509", "A" * 40, "B" * 40, "enabled")
        equal(made.authentication.x509_thumbprint.primary_thumbprint, "A" * 40, "its thumbprint")
        changed = registry.update_device_with_x509("py-x509", made.etag, "C" * 40, "B" * 40, "enabled")
        equal(changed.authentication.x509_thumbprint.primary_thumbprint, "C" * 40, "its thumbprint")
        registry.delete_device("py-x509")

        made = registry.create_device_with_certificate_authority("py-ca", "enabled")
        equal(made.authentication.type, "certificateAuthority", "its authentication")
        changed = registry.update_device_with_certificate_authority("py-ca", made.etag, "disabled")
        equal(changed.status, "disabled", "its status")
        registry.delete_device("py-ca")

        edge = registry.create_device_with_sas("py-edge", key, key, "enabled", iot_edge=True)
        check(edge.capabilities.iot_edge and edge.device_scope, f"no edge device: {edge}")
        leaf = registry.create_device_with_sas("py-leaf", key, key, "enabled", device_scope=edge.device_scope)
        equal(leaf.device_scope, edge.device_scope, "the scope of its child")
        for name in ("py-leaf", "py-edge"):
            registry.delete_device(name)

    def bulk(self):
        registry, models = self.registry, self.models

        def items(mode):
            return [
                models.ExportImportDevice(id=f"py-bulk-{number}", status="enabled", import_mode=mode)
                for number in range(5)
            ]

        before = registry.get_device_registry_statistics().total_device_count
        for mode, more in (("create", 5), ("update", 5), ("delete", 0)):
            result = registry.bulk_create_or_update_devices(items(mode))
            check(result.is_successful, f"{mode}: {result.errors}")
            now = registry.get_device_registry_statistics().total_device_count
            equal(now - before, more, f"devices after {mode}")
        result = registry.bulk_create_or_update_devices(items("update"))
        equal((result.is_successful, len(result.errors)), (False, 5), "an update of devices that are gone")
        check(DEVICE in [device.device_id for device in registry.get_devices()], "it is not in the list")
        equal(len(registry.get_devices(1)), 1, "a list of one")

    def modules(self):
        registry, key = self.registry, base64.b64encode(b"m" * 32).decode()
        registry.create_module_with_sas(DEVICE, MODULE, "", "", "")
        made = registry.create_module_with_sas(DEVICE, "sas", "somebody", key, key)
        changed = registry.update_module_with_sas(DEVICE, "sas", "another", made.etag, key, key)
        equal((made.managed_by, changed.managed_by), ("somebody", "another"), "who manages it")
        made = registry.create_module_with_x509(DEVICE, "x509", "", "A" * 40, "B" * 40)
        changed = registry.update_module_with_x509(DEVICE, "x509", "", made.etag, "C" * 40, "B" * 40)
        equal(changed.authentication.x509_thumbprint.primary_thumbprint, "C" * 40, "its thumbprint")
        made = registry.create_module_with_certificate_authority(DEVICE, "ca", "")
        registry.update_module_with_certificate_authority(DEVICE, "ca", "", made.etag)
        names = sorted(module.module_id for module in registry.get_modules(DEVICE))
        equal(names, sorted([MODULE, "sas", "x509", "ca"]), "its modules")
        for name in ("sas", "x509", "ca"):
            equal(registry.get_module(DEVICE, name).module_id, name, "the module")
            registry.delete_module(DEVICE, name)
        fails(lambda: registry.get_module(DEVICE, "sas"), 404)

    def connect(self):
        import azure.iot.device as device_sdk

        def string(identity):
            key = identity.authentication.symmetric_key.primary_key
            self.hub.lab.secrets.add(key)
            return f"HostName={self.hub.host};DeviceId={DEVICE};SharedAccessKey={key}"

        self.device = PythonDevice(self.hub, string(self.registry.get_device(DEVICE)), "python-service", False)
        self.module = device_sdk.IoTHubModuleClient.create_from_connection_string(
            string(self.registry.get_module(DEVICE, MODULE)) + f";ModuleId={MODULE}",
            server_verification_cert=self.hub.ca.read_text(),
        )
        self.module.connect()
        self.module.on_method_request_received = lambda request: self.module.send_method_response(
            device_sdk.MethodResponse.create_from_method_request(request, 208, request.payload)
        )
        statistics = self.registry.get_service_statistics()
        check(statistics.connected_device_count >= 1, f"{statistics.connected_device_count} connected devices")

    def twins(self):
        registry, models = self.registry, self.models

        def twin(tags=None, desired=None):
            return models.Twin(tags=tags, properties=models.TwinProperties(desired=desired) if desired else None)

        read = registry.get_twin(DEVICE)
        version = read.properties.desired["$version"]
        changed = registry.update_twin(DEVICE, twin({"plant": 43}, {"a": {"b": 1, "c": 2}}), read.etag)
        equal((changed.tags, changed.properties.desired["a"]), ({"plant": 43}, {"b": 1, "c": 2}), "the twin")
        fails(lambda: registry.update_twin(DEVICE, twin({"plant": 44}), read.etag), 412)
        registry.update_twin(DEVICE, twin(desired={"a": {"b": None}}))
        for patch in (
            {"a": {"b": 1, "c": 2}, "$version": version + 1},
            {"a": {"b": None}, "$version": version + 2},
        ):
            equal(self.device.next("desired"), patch, "the patch at the device")
        replaced = registry.replace_twin(DEVICE, twin({"only": 1}, {"only": 2}))
        desired = {name: value for name, value in replaced.properties.desired.items() if not name.startswith("$")}
        equal((replaced.tags, desired), ({"only": 1}, {"only": 2}), "the twin that was replaced")
        equal(
            self.device.next("desired"),
            {"a": None, "only": 2, "$version": version + 3},
            "what the device is told of the replacement",
        )
        self.device.report({"firmware": "1.2"})
        read = registry.get_twin(DEVICE)
        equal(read.properties.reported["firmware"], "1.2", "what it reported")
        # As it was read, with what a service cannot write.
        registry.replace_twin(DEVICE, read, read.etag)
        fails(lambda: registry.get_twin("nobody"), 404)

    def module_twins(self):
        registry, models = self.registry, self.models
        patch = models.Twin(properties=models.TwinProperties(desired={"a": 1}))
        changed = registry.update_module_twin(DEVICE, MODULE, patch)
        equal((changed.module_id, changed.properties.desired["a"]), (MODULE, 1), "the module's twin")
        replaced = registry.replace_module_twin(DEVICE, MODULE, models.Twin(tags={"kind": "py"}), changed.etag)
        equal(replaced.tags, {"kind": "py"}, "its tags")
        equal(registry.get_module_twin(DEVICE, MODULE).tags, {"kind": "py"}, "its tags when read")

    def methods(self):
        registry, models = self.registry, self.models

        def request(payload, **options):
            return models.CloudToDeviceMethod(method_name="echo", payload=payload, **options)

        # This SDK sends an empty string in place of no payload.
        for payload, arrives in (({"a": [1]}, {"a": [1]}), ("text", "text"), (None, "")):
            answer = registry.invoke_device_method(DEVICE, request(payload, connect_timeout_in_seconds=TIMEOUT))
            equal((answer.status, answer.payload), (207, arrives), "the device's answer")
        answer = registry.invoke_device_module_method(DEVICE, MODULE, request({"m": 1}, response_timeout_in_seconds=20))
        equal((answer.status, answer.payload), (208, {"m": 1}), "the module's answer")
        fails(lambda: registry.invoke_device_method("nobody", request(None)), 404)
        fails(lambda: registry.invoke_device_method(DEVICE, request(None, response_timeout_in_seconds=1)), 400)

    def queries(self):
        registry, models = self.registry, self.models
        names = [f"py-page-{number}" for number in range(5)]

        def all_of_them(mode):
            items = [models.ExportImportDevice(id=name, import_mode=mode) for name in names]
            registry.bulk_create_or_update_devices(items)

        all_of_them("create")
        for name in names:
            registry.update_twin(name, models.Twin(tags={"fleet": "py"}))
        query = models.QuerySpecification(query="SELECT * FROM devices WHERE tags.fleet = 'py'")
        found, sizes, token = [], [], None
        while True:
            page = registry.query_iot_hub(query, token, 2)
            equal(page.type, "Twin", "the kind of the items")
            sizes.append(len(page.items))
            found += [twin.device_id for twin in page.items]
            token = page.continuation_token
            if not token:
                break
        equal((sorted(found), sizes), (names, [2, 2, 1]), "the pages")
        bad = models.QuerySpecification(query="SELECT * FROM devices WHERE")
        fails(lambda: registry.query_iot_hub(bad), 400)
        all_of_them("delete")

    def jobs_(self):
        models = self.models
        now = datetime.datetime.now(datetime.timezone.utc)

        def schedule(kind, start=now, **section):
            name = str(uuid.uuid4())
            request = models.JobRequest(
                job_id=name,
                type=kind,
                start_time=start,
                max_execution_time_in_seconds=60,
                query_condition=f"deviceId = '{DEVICE}'",
                **section,
            )
            made = self.jobs.create_scheduled_job(name, request)
            equal((made.job_id, made.type), (name, kind), "the new job")
            return name

        def ended(name):
            state = self.jobs.get_scheduled_job(name)
            return state if state.status in ("completed", "failed", "cancelled") else None

        update = models.Twin(etag="*", tags={"by_job": "py"})
        method = models.CloudToDeviceMethod(method_name="echo", payload={"a": 1}, response_timeout_in_seconds=20)
        for name in (
            schedule("scheduleUpdateTwin", update_twin=update),
            schedule("scheduleDeviceMethod", cloud_to_device_method=method),
        ):
            state = harness.wait_until(lambda name=name: ended(name), TIMEOUT, "the job's end", pause=0.1)
            statistics = state.device_job_statistics
            equal(
                (state.status, statistics.device_count, statistics.succeeded_count),
                ("completed", 1, 1),
                f"how it ended ({state.failure_reason})",
            )
        equal(self.registry.get_twin(DEVICE).tags["by_job"], "py", "the tag")
        later = schedule("scheduleUpdateTwin", now + datetime.timedelta(hours=1), update_twin=update)
        self.jobs.cancel_scheduled_job(later)
        state = harness.wait_until(lambda: ended(later), TIMEOUT, "the end of the cancelled job", pause=0.1)
        equal(state.status, "cancelled", "how it ended")
        fails(lambda: self.jobs.get_scheduled_job("no-such-job"), 404)
        # The package expects an object here, where IoT Hub (and so every other SDK) has an array.
        try:
            self.jobs.query_scheduled_jobs("scheduleUpdateTwin", "completed")
            raise harness.Failure("the package reads lists of jobs now: check what it reads")
        except self.deserialization_error():
            pass

    @staticmethod
    def deserialization_error():
        from msrest.exceptions import DeserializationError

        return DeserializationError

    def missing(self):
        models = self.models
        configuration = models.Configuration(id="c", schema_version="1.0", content=models.ConfigurationContent())
        properties = models.JobProperties(type="export", output_blob_container_uri="https://storage.invalid/c")
        for call in (
            lambda: self.jobs.create_import_export_job(properties),
            self.jobs.get_import_export_jobs,
            lambda: self.jobs.get_import_export_job("x"),
            lambda: self.jobs.cancel_import_export_job("x"),
            self.configurations.get_configurations,
            lambda: self.configurations.get_configuration("c"),
            lambda: self.configurations.create_configuration(configuration),
            lambda: self.configurations.update_configuration(configuration, "*"),
            lambda: self.configurations.delete_configuration("c"),
            lambda: self.configurations.test_configuration_queries(models.ConfigurationQueriesTestInput()),
            lambda: self.configurations.apply_configuration_on_edge_device(DEVICE, models.ConfigurationContent()),
            self.runtime.receive_feedback_notification,
            lambda: self.runtime.complete_feedback_notification("token"),
            lambda: self.runtime.abandon_feedback_notification("token"),
            lambda: self.digital_twins.get_digital_twin(DEVICE),
            lambda: self.digital_twins.update_digital_twin(DEVICE, []),
            lambda: self.digital_twins.invoke_command(DEVICE, "c", "{}"),
            lambda: self.digital_twins.invoke_component_command(DEVICE, "p", "c", "{}"),
        ):
            fails(call, 501)

    def amqp(self):
        """It must fail: the package sends messages over AMQP, which this hub does not speak."""
        try:
            self.registry.send_c2d_message(DEVICE, "hello")
        except Exception as error:  # uamqp's own kinds of errors
            check(not isinstance(error, (TypeError, AttributeError)), f"it did not get as far as AMQP: {error!r}")
        else:
            raise harness.Failure("it was sent")

    def nothing_left_out(self):
        self.registry.delete_device(DEVICE)
        clients = (self.registry, self.jobs, self.configurations, self.runtime, self.digital_twins)
        equal([name for client in clients for name in client.left_out()], [], "calls that were not made")


def fails(operation, status):
    """The operation is refused with this status."""
    try:
        operation()
    except Exception as error:  # the package has several kinds of errors
        seen = getattr(getattr(error, "response", None), "status_code", None)
        check(seen == status, f"expected status {status}, saw {seen}: {error!r}")
    else:
        raise harness.Failure(f"it succeeded, where status {status} was expected")
