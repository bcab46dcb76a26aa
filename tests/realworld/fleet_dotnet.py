"""The .NET tutorials' calls, as Microsoft.Azure.Devices makes them: it has no package here, so its
requests are written out, and what it requires of the answers is checked."""

import datetime
import re
import time
import uuid

from fleet_devices import TIMEOUT, PythonDevice
from harness import check, equal
from rest import quoted

DEVICE = "DotNetDevice"

# The words that it parses; it throws at any other.
JOB_TYPES = ("scheduleDeviceMethod", "scheduleUpdateTwin")
JOB_STATES = ("unknown", "enqueued", "running", "completed", "failed", "cancelled", "scheduled", "queued")


def play(lab, hub, rest):
    with lab.step("the .NET tutorials: a device connects"):
        device = PythonDevice(hub, hub.create_device(DEVICE), "dotnet", False)
    try:
        with lab.step("the .NET tutorial for jobs: LockDoor, and Building 43, Floor 3"):
            jobs(rest, device)
        with lab.step("the .NET tutorial for direct methods: reboot, and its time"):
            reboot(rest, device)
        with lab.step("the .NET tutorial for twins: tags, two queries, and a replacement"):
            twins(rest, device)
        with lab.step("the .NET SDK lists jobs: its words, its paging, and the kind of items"):
            listing(rest)
    finally:
        device.close()


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def schedule(rest, kind, **section):
    """A job, with the other section as null, until it has ended."""
    job = str(uuid.uuid4())
    request = {
        "jobId": job,
        "type": kind,
        "cloudToDeviceMethod": None,
        "updateTwin": None,
        "queryCondition": f"DeviceId IN ['{DEVICE}']",
        "startTime": now(),
        "maxExecutionTimeInSeconds": 120,
        **section,
    }
    created = rest.call("PUT", f"/jobs/v2/{job}", request)
    equal((created["jobId"], created["type"]), (job, kind), "the new job")
    end = time.monotonic() + TIMEOUT
    while True:
        state = rest.call("GET", f"/jobs/v2/{job}")
        judge(state)
        if state["status"] in ("completed", "failed"):
            equal(state["status"], "completed", f"how it ended ({state})")
            return state
        check(time.monotonic() < end, f"the job has not ended: {state}")
        time.sleep(0.2)


def judge(job):
    """What the SDK's parser requires of a job."""
    check(job["type"] in JOB_TYPES, f"type of {job}")
    check(job["status"] in JOB_STATES, f"status of {job}")
    for name in ("createdTime", "startTime", "endTime"):
        when = job.get(name)
        check(when is None or re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", when), f"{name} of {job}")


def jobs(rest, device):
    method = {"methodName": "LockDoor", "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 5, "payload": None}
    state = schedule(rest, "scheduleDeviceMethod", cloudToDeviceMethod=method)
    equal(state["deviceJobStatistics"]["succeededCount"], 1, "devices that did it")
    twin = {
        "deviceId": DEVICE,
        "etag": "*",
        "version": None,
        "tags": {"Building": "43", "Floor": "3"},
        "properties": {"desired": {"LocationUpdate": now()}, "reported": {}},
    }
    schedule(rest, "scheduleUpdateTwin", updateTwin=twin)
    equal(rest.twin(DEVICE)["tags"], {"Building": "43", "Floor": "3"}, "its tags")
    patch = device.next("desired")
    check("LocationUpdate" in patch, f"no update at the device: {patch}")


def reboot(rest, device):
    request = {"methodName": "reboot", "responseTimeoutInSeconds": 30, "payload": None}
    answer = rest.send("POST", f"/twins/{quoted(DEVICE)}/methods", request)
    equal((answer.status, answer.json()["status"]), (200, 207), "the answer")
    device.report({"iothubDM": {"reboot": {"lastReboot": now()}}})
    check("lastReboot" in rest.twin(DEVICE)["properties"]["reported"]["iothubDM"]["reboot"], "no time was reported")


def twins(rest, device):
    twin = rest.twin(DEVICE)
    rest.patch_twin(DEVICE, {"tags": {"location": {"region": "US", "plant": "Redmond43"}}}, twin["etag"])
    device.report({"connectivity": {"type": "cellular"}})
    for text, expected in (
        ("SELECT * FROM devices WHERE tags.location.plant = 'Redmond43'", [DEVICE]),
        (
            "SELECT * FROM devices WHERE tags.location.plant = 'Redmond43' "
            "AND properties.reported.connectivity.type = 'cellular'",
            [DEVICE],
        ),
        (
            "SELECT * FROM devices WHERE tags.location.plant = 'Redmond43' "
            "AND properties.reported.connectivity.type = 'wifi'",
            [],
        ),
    ):
        answer = rest.send("POST", "/devices/query", {"query": text}, {"x-ms-max-item-count": "100"})
        equal((answer.status, answer.headers.get("x-ms-item-type")), (200, "Twin"), "the answer's kind")
        equal([row["deviceId"] for row in answer.json()], expected, text)
    # As it was read, and so with all that a service cannot write.
    twin = rest.twin(DEVICE)
    version = twin["properties"]["desired"]["$version"]
    twin["properties"]["desired"] = {"only": "this"}
    twin["tags"] = {"only": "this"}
    twin["version"] = None
    after = rest.call("PUT", f"/twins/{quoted(DEVICE)}", twin, {"If-Match": f'"{twin["etag"]}"'})
    equal(after["tags"], {"only": "this"}, "the tags")
    equal(after["properties"]["reported"]["connectivity"], {"type": "cellular"}, "what the device had reported")
    patch = device.next("desired", lambda it: it["$version"] == version + 1)
    equal((patch["only"], patch["LocationUpdate"]), ("this", None), "what the device was told of the replacement")
    equal(device.twin()["desired"], {"only": "this", "$version": version + 1}, "what the device reads")


def listing(rest):
    for query, kinds in (
        ("jobType=ScheduleDeviceMethod&jobStatus=Completed", {"scheduleDeviceMethod"}),
        ("jobType=ScheduleUpdateTwin", {"scheduleUpdateTwin"}),
    ):
        answer = rest.send("GET", f"/jobs/v2/query?{query}", headers={"x-ms-max-item-count": "100"})
        equal((answer.status, answer.headers.get("x-ms-item-type")), (200, "JobResponse"), "the answer's kind")
        found = answer.json()
        check(found, f"no jobs for {query}")
        for job in found:
            judge(job)
        equal({job["type"] for job in found}, kinds, query)
    rows = rest.send("POST", "/devices/query", {"query": f"SELECT * FROM devices.jobs WHERE deviceId = '{DEVICE}'"})
    equal(rows.headers.get("x-ms-item-type"), "DeviceJob", "the kind of a device's jobs")
    equal({row["status"] for row in rows.json()}, {"completed"}, "the states of its jobs")
    check(all(row.get("startTimeUtc", "-") is not None for row in rows.json()), "a time is null")
