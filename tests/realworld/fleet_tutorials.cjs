// Two tutorials of IoT Hub's documentation for Node, played with their names and steps, called by
// fleet_sdk.py: a device that locks its door for a job, and a device that is told to reboot.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const { randomUUID } = require('node:crypto');
const { Client: Device } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { Client, ConnectionString, JobClient, Registry } = require('azure-iothub');
const { runParts } = require('./fleet_parts.cjs');

const string = process.env.IOTHUB_CONNECTION_STRING;
const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS, 'utf8');
const registry = Registry.fromConnectionString(string);
const after = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

async function connected(deviceId) {
  const { responseBody: made } = await registry.create({ deviceId });
  const device = Device.fromConnectionString(`HostName=${ConnectionString.parse(string).HostName};`
    + `DeviceId=${deviceId};SharedAccessKey=${made.authentication.symmetricKey.primaryKey}`, Mqtt);
  await device.setOptions({ ca });
  await device.open();
  return device;
}

// The tutorial polls every 5 s.
async function monitor(jobs, jobId) {
  for (const end = Date.now() + 60000; Date.now() < end; await after(0.5)) {
    const { jobStatus } = await jobs.getJob(jobId);
    if (['completed', 'failed', 'cancelled'].includes(jobStatus.status)) return jobStatus;
  }
  throw new Error(`job ${jobId} did not end`);
}

const parts = {
  async 'schedule and broadcast jobs: lockDoor, then the building and the floor'() {
    const device = await connected('myDeviceId');
    let locked = 0;
    device.onDeviceMethod('lockDoor', (request, response) => {
      response.send(200, (error) => { if (!error) locked += 1; });
    });

    const queryCondition = "deviceId IN ['myDeviceId']";
    const startTime = new Date();
    const maxExecutionTimeInSeconds = 300;
    const jobs = JobClient.fromConnectionString(string);
    const methodJobId = randomUUID();
    await jobs.scheduleDeviceMethod(methodJobId, queryCondition,
      { methodName: 'lockDoor', payload: null, responseTimeoutInSeconds: 15 },
      startTime, maxExecutionTimeInSeconds);
    assert.equal((await monitor(jobs, methodJobId)).status, 'completed');
    assert.equal(locked, 1);

    const twinJobId = randomUUID();
    await jobs.scheduleTwinUpdate(twinJobId, queryCondition,
      { etag: '*', tags: { Building: '43', Floor: 3 }, properties: { desired: { building: '43', floor: 3 } } },
      startTime, maxExecutionTimeInSeconds);
    assert.equal((await monitor(jobs, twinJobId)).status, 'completed');
    const { responseBody: twin } = await registry.getTwin('myDeviceId');
    assert.deepEqual(twin.tags, { Building: '43', Floor: 3 });
    assert.equal((await device.getTwin()).properties.desired.floor, 3);
    await device.close();
    await registry.delete('myDeviceId');
  },

  async 'reboot: the device answers, and then reports when it was'() {
    const device = await connected('myRebootedDevice');
    device.onDeviceMethod('reboot', async (request, response) => {
      await response.send(200, 'Reboot started');
      const twin = await device.getTwin();
      const patch = { iothubDM: { reboot: { lastReboot: new Date().toISOString() } } };
      twin.properties.reported.update(patch, () => {});
    });

    const { result } = await Client.fromConnectionString(string).invokeDeviceMethod('myRebootedDevice',
      { methodName: 'reboot', payload: null, timeoutInSeconds: 30, connectTimeoutInSeconds: 10 });
    assert.deepEqual(result, { status: 200, payload: 'Reboot started' });
    let reported;
    for (const end = Date.now() + 20000; Date.now() < end && !reported?.iothubDM; await after(0.2)) {
      reported = (await registry.getTwin('myRebootedDevice')).responseBody.properties.reported;
    }
    const at = Date.parse(reported.iothubDM.reboot.lastReboot);
    assert.ok(Math.abs(Date.now() - at) < 60000, `the time of the last reboot: ${at}`);
    await device.close();
    await registry.delete('myRebootedDevice');
  },
};

runParts(parts);
