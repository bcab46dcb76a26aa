// A service with Microsoft's npm package, called by fleet_sdk.py: every call that it has, against
// a device and a module of the same maker. Prints one JSON document for each part.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const { Client: Device, ModuleClient } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const iothub = require('azure-iothub');
const { runParts } = require('./fleet_parts.cjs');

const string = process.env.IOTHUB_CONNECTION_STRING;
const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS, 'utf8');
const host = iothub.ConnectionString.parse(string).HostName;
const deviceId = 'Node.Service+Device';
const moduleId = 'TheModule';
const key = (text) => Buffer.from(text.padEnd(32, '.')).toString('base64');

// Which calls were made, of all that there are.
const called = new Set();
const watched = (name, object) => new Proxy(object, {
  get(target, property) {
    const value = Reflect.get(target, property);
    if (typeof value !== 'function' || typeof property !== 'string') return value;
    called.add(`${name}.${property}`);
    return value.bind(target);
  },
});
const calls = (name, from = iothub[name]) => Object.getOwnPropertyNames(from.prototype)
  .filter((call) => call !== 'constructor' && !call.startsWith('_'))
  .map((call) => `${name}.${call}`);

const registry = watched('Registry', iothub.Registry.fromConnectionString(string));
const jobs = watched('JobClient', iothub.JobClient.fromConnectionString(string));
const client = watched('Client', iothub.Client.fromConnectionString(string));
const digitalTwins = watched('DigitalTwinClient',
  new iothub.DigitalTwinClient(new iothub.IoTHubTokenCredentials(string)));

const connectionString = (identity) => [`HostName=${host}`, `DeviceId=${identity.deviceId}`,
  ...(identity.moduleId ? [`ModuleId=${identity.moduleId}`] : []),
  `SharedAccessKey=${identity.authentication.symmetricKey.primaryKey}`].join(';');
// The package has two names for what an answer holds.
const body = (answer) => answer.responseBody ?? answer.result;
const until = async (what, condition) => {
  for (const end = Date.now() + 25000; Date.now() < end;) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what}: not within 25 s`);
};

const opened = async (Kind, identity) => {
  const one = Kind.fromConnectionString(connectionString(identity), Mqtt);
  one.on('error', () => {});
  await one.setOptions({ ca });
  await one.open();
  return one;
};
const echo = (request, response) => response.send(299, request.payload);

let device, moduleClient;

const parts = {
  async 'devices: create, get, list, update, delete'() {
    const made = body(await registry.create({ deviceId }));
    assert.ok(made.authentication.symmetricKey.primaryKey, 'keys were made');
    await assert.rejects(registry.create({ deviceId }), { name: 'DeviceAlreadyExistsError' });
    const other = { deviceId: 'node-other', status: 'disabled', statusReason: 'not yet',
      authentication: { symmetricKey: { primaryKey: key('a'), secondaryKey: key('b') } } };
    await registry.create(other);
    const read = body(await registry.get(other.deviceId));
    assert.equal(read.status, 'disabled');
    assert.equal(read.statusReason, 'not yet');
    assert.deepEqual(read.authentication.symmetricKey, other.authentication.symmetricKey);
    assert.equal(body(await registry.update({ ...other, status: 'enabled' })).status, 'enabled');
    const listed = body(await registry.list()).map((one) => one.deviceId);
    assert.ok(listed.includes(deviceId) && listed.includes(other.deviceId));
    await registry.delete(other.deviceId);
    await assert.rejects(registry.get(other.deviceId), { name: 'DeviceNotFoundError' });
    await assert.rejects(registry.delete(other.deviceId), { name: 'DeviceNotFoundError' });
  },

  async 'edge parents: kept, returned, and checked'() {
    const edge = body(await registry.create({ deviceId: 'node-edge', capabilities: { iotEdge: true } }));
    assert.ok(edge.capabilities.iotEdge && edge.deviceScope);
    const child = body(await registry.create({
      deviceId: 'node-child', capabilities: { iotEdge: true }, parentScopes: [edge.deviceScope] }));
    assert.deepEqual(child.parentScopes, [edge.deviceScope]);
    assert.notEqual(child.deviceScope, edge.deviceScope);
    const leaf = body(await registry.create({ deviceId: 'node-leaf', deviceScope: child.deviceScope }));
    assert.equal(leaf.deviceScope, child.deviceScope);
    await assert.rejects(registry.update({ ...leaf, deviceScope: 'no-scope' }), { name: 'ArgumentError' });
    for (const id of ['node-leaf', 'node-child', 'node-edge']) await registry.delete(id);
  },

  async 'devices in bulk, and how many there are'() {
    const count = async () => body(await registry.getRegistryStatistics());
    const before = await count();
    const many = ['node-1', 'node-2', 'node-3'].map((id) => ({ deviceId: id, status: 'disabled' }));
    for (const [call, ...options] of [
      ['addDevices'], ['updateDevices', true], ['removeDevices', true],
    ]) {
      const result = body(await registry[call](many.map((one) => ({ ...one,
        status: call === 'addDevices' ? 'disabled' : 'enabled' })), ...options));
      assert.deepEqual(result, { isSuccessful: true, errors: [], warnings: [] }, call);
      const now = await count();
      assert.equal(now.totalDeviceCount - before.totalDeviceCount, call === 'removeDevices' ? 0 : 3, call);
      assert.equal(now.disabledDeviceCount - before.disabledDeviceCount, call === 'addDevices' ? 3 : 0, call);
    }
  },

  async 'modules: add, get, list, update, remove'() {
    await registry.addModule({ deviceId, moduleId });
    await registry.addModule({ deviceId, moduleId: 'second' });
    const listed = body(await registry.getModulesOnDevice(deviceId)).map((one) => one.moduleId);
    assert.deepEqual(listed.sort(), [moduleId, 'second'].sort());
    const second = body(await registry.getModule(deviceId, 'second'));
    second.managedBy = 'somebody';
    const changed = body(await registry.updateModule(second));
    assert.equal(changed.managedBy, 'somebody');
    await assert.rejects(registry.updateModule(second), { name: 'InvalidEtagError' });
    await registry.updateModule(second, true);
    // Without a callback the package takes no module here.
    await assert.rejects(new Promise((resolve, reject) =>
      registry.removeModule(changed, (error) => (error ? reject(error) : resolve()))), { name: 'InvalidEtagError' });
    await registry.removeModule(deviceId, 'second');
    await assert.rejects(registry.getModule(deviceId, 'second'), { message: 'Not found' });
  },

  async 'a device and a module connect'() {
    device = await opened(Device, body(await registry.get(deviceId)));
    moduleClient = await opened(ModuleClient, body(await registry.getModule(deviceId, moduleId)));
    device.onDeviceMethod('echo', echo);
    device.onDeviceMethod('silent', () => {});
    moduleClient.onMethod('echo', echo);
  },

  async 'twins of devices: read, change by patches, ETags'() {
    const seen = [];
    const own = await device.getTwin();
    own.on('properties.desired', (patch) => seen.push(structuredClone(patch)));
    const twin = body(await registry.getTwin(deviceId));
    const { $version } = twin.properties.desired;
    // What is subscribed may not be told yet.
    await until('the first notification', async () => {
      await twin.update({ properties: { desired: { probe: 1 } } });
      return seen.some((patch) => patch.$version > $version);
    });
    await twin.update({
      tags: { plant: { building: 43 } },
      properties: { desired: { light: { colour: 'red', level: 5 }, list: [1, { two: 2 }], gone: true } },
    });
    assert.deepEqual(twin.tags, { plant: { building: 43 } });
    const stale = twin.etag;
    await twin.update({ properties: { desired: { light: { level: null }, gone: null } } });
    assert.deepEqual(twin.properties.desired.light, { colour: 'red' });
    assert.deepEqual(twin.properties.desired.list, [1, { two: 2 }]);
    const last = twin.properties.desired.$version;
    const patch = await until('the last patch', () => seen.find((one) => one.$version === last));
    assert.deepEqual(patch, { light: { level: null }, gone: null, $version: last });
    await assert.rejects(registry.updateTwin(deviceId, { tags: { a: 1 } }, stale), { name: 'InvalidEtagError' });
    await registry.updateTwin(deviceId, { tags: { plant: { floor: 3 } } }, twin.etag);
    await registry.updateTwin(deviceId, { properties: { desired: null } }, '*');
    const end = body(await twin.get()).properties.desired;
    assert.deepEqual(Object.keys(end).filter((name) => !name.startsWith('$')), []);
    await until('the removal', () => seen.find((one) => one.$version === end.$version));
    assert.deepEqual(Object.keys(own.properties.desired), ['$version'], 'the device has removed all as well');
    await new Promise((resolve, reject) => own.properties.reported.update(
      { firmware: '1.2' }, (error) => (error ? reject(error) : resolve())));
    const after = body(await registry.getTwin(deviceId));
    assert.equal(after.properties.reported.firmware, '1.2');
    assert.deepEqual(after.tags, { plant: { building: 43, floor: 3 } });
    assert.ok(!('_registry' in JSON.parse(JSON.stringify(watched('Twin', after).toJSON()))));
    await assert.rejects(registry.getTwin('nobody'), { name: 'DeviceNotFoundError' });
    called.add('Twin.get').add('Twin.update');
  },

  async 'twins of modules'() {
    await registry.updateModuleTwin(deviceId, moduleId, { properties: { desired: { a: 1 } } }, '*');
    const twin = body(await registry.getModuleTwin(deviceId, moduleId));
    assert.deepEqual([twin.deviceId, twin.moduleId, twin.properties.desired.a], [deviceId, moduleId, 1]);
    await twin.update({ tags: { kind: 'module' } });
    assert.equal((await moduleClient.getTwin()).properties.desired.a, 1);
  },

  async 'methods of devices and modules'() {
    for (const payload of [null, '', 'text', { k: [1, 'v'] }, {}, [], 0, false]) {
      const params = { methodName: 'echo', payload, connectTimeoutInSeconds: 20 };
      const answer = (await client.invokeDeviceMethod(deviceId, params)).result;
      assert.deepEqual(answer, { status: 299, payload });
    }
    const params = { methodName: 'echo', payload: { of: 'the module' }, connectTimeoutInSeconds: 20 };
    const answer = (await client.invokeDeviceMethod(deviceId, moduleId, params)).result;
    assert.deepEqual(answer, { status: 299, payload: { of: 'the module' } });
    const silent = { methodName: 'silent', responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 5 };
    await assert.rejects(client.invokeDeviceMethod(deviceId, silent), (error) => {
      assert.equal(error.name, 'GatewayTimeoutError');
      assert.match(error.responseBody, /504101/);
      return true;
    });
    const absent = body(await registry.create({ deviceId: 'node-offline' }));
    await assert.rejects(client.invokeDeviceMethod('node-offline', { methodName: 'echo' }),
      (error) => /404103/.test(error.responseBody));
    const patient = client.invokeDeviceMethod('node-offline',
      { methodName: 'echo', payload: 'at last', connectTimeoutInSeconds: 20 });
    const late = await opened(Device, absent);
    late.onDeviceMethod('echo', echo);
    assert.deepEqual((await patient).result, { status: 299, payload: 'at last' });
    await late.close();
    await registry.delete('node-offline');
    await assert.rejects(client.invokeDeviceMethod('nobody', { methodName: 'echo' }),
      (error) => /404001/.test(error.responseBody));
  },

  async 'queries: twins, modules and projections, page after page'() {
    const names = Array.from({ length: 7 }, (_, number) => `page-${number}`);
    await registry.addDevices(names.map((id) => ({ deviceId: id })));
    for (const [number, id] of names.entries()) {
      await registry.updateTwin(id, { tags: { fleet: 'pages', number } }, '*');
    }
    const query = registry.createQuery("SELECT * FROM devices WHERE tags.fleet = 'pages'", 3);
    const sizes = [];
    const found = [];
    while (query.hasMoreResults) {
      const page = body(await query.nextAsTwin());
      sizes.push(page.length);
      found.push(...page.map((twin) => twin.deviceId));
    }
    assert.deepEqual(sizes, [3, 3, 1]);
    assert.deepEqual(found.sort(), names);
    const rows = async (text) => body(await registry.createQuery(text).next());
    assert.deepEqual(await rows("SELECT COUNT() AS n FROM devices WHERE tags.fleet = 'pages'"), [{ n: 7 }]);
    assert.deepEqual(await rows('SELECT deviceId, tags.number AS n FROM devices '
      + "WHERE tags.fleet = 'pages' AND tags.number > 5"), [{ deviceId: 'page-6', n: 6 }]);
    const modules = await rows(`SELECT * FROM devices.modules WHERE tags.kind = 'module'`);
    assert.deepEqual(modules.map((twin) => twin.moduleId), [moduleId]);
    const [twin] = body(await registry.createQuery(`SELECT * FROM devices WHERE deviceId = 'page-0'`).nextAsTwin());
    await twin.update({ tags: { changed: true } });
    await assert.rejects(registry.createQuery('SELECT FROM nothing').next(), { name: 'ArgumentError' });
    await registry.removeDevices(names.map((id) => ({ deviceId: id })), true);
  },

  async 'jobs: twin updates, methods, cancelled, listed'() {
    const one = `deviceId = '${deviceId}'`;
    const job = async (id) => (await jobs.getJob(id)).jobStatus;
    const completed = (id) => until(`job ${id} is completed`, async () => {
      const state = await job(id);
      assert.ok(!['failed', 'cancelled'].includes(state.status), JSON.stringify(state));
      return state.status === 'completed' && state;
    });
    await jobs.scheduleTwinUpdate('node-twin', one,
      { etag: '*', tags: { byJob: true }, properties: { desired: { byJob: 1 }, reported: {} } }, new Date(), 60);
    const twinJob = await completed('node-twin');
    assert.deepEqual([twinJob.type, twinJob.deviceJobStatistics.deviceCount,
      twinJob.deviceJobStatistics.succeededCount], ['scheduleUpdateTwin', 1, 1]);
    assert.equal(body(await registry.getTwin(deviceId)).tags.byJob, true);
    await jobs.scheduleDeviceMethod('node-method', one,
      { methodName: 'echo', payload: { a: 1 }, responseTimeoutInSeconds: 20 }, new Date(), 60);
    await completed('node-method');
    const [row] = body(await registry.createQuery(
      "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'node-method'").next());
    assert.deepEqual([row.deviceId, row.status, row.outcome.deviceMethodResponse],
      [deviceId, 'completed', { status: 299, payload: { a: 1 } }]);
    const later = (await jobs.scheduleTwinUpdate('node-later', one, { etag: '*', tags: {} },
      new Date(Date.now() + 3600000), 60)).jobStatus;
    assert.deepEqual([later.jobId, later.status], ['node-later', 'queued']);
    await jobs.cancelJob('node-later');
    await until('the job is cancelled', async () => (await job('node-later')).status === 'cancelled');
    const own = (list) => list.map((entry) => entry.jobId).filter((id) => id.startsWith('node-'));
    const list = async (...filters) => own(body(await jobs.createQuery(...filters).next()));
    assert.deepEqual((await list('scheduleUpdateTwin')).sort(), ['node-later', 'node-twin']);
    assert.deepEqual(await list('scheduleUpdateTwin', 'completed'), ['node-twin']);
    const paged = jobs.createQuery(null, null, 2);
    const all = [];
    // Without a callback the package forgets where it was.
    while (paged.hasMoreResults) all.push(...body(await paged.next(paged.continuationToken)));
    assert.deepEqual(own(all).sort(), ['node-later', 'node-method', 'node-twin']);
    await assert.rejects(jobs.getJob('no-such-job'), { message: 'Not found' });
  },

  async 'what the hub does not have is refused, and says so'() {
    const refused = async (name, promise) => assert.rejects(promise, (error) => {
      const status = error.response?.statusCode ?? error.statusCode;
      assert.equal(status, 501, `${name}: ${status} ${error}`);
      return true;
    }, name);
    const uri = 'https://storage.invalid/container';
    const configuration = () => ({ id: 'c', etag: '*', content: {}, targetCondition: '', priority: 1 });
    const wishes = {
      importDevicesFromBlob: [uri, uri], importDevicesFromBlobByIdentity: [uri, uri],
      exportDevicesToBlob: [uri, true], exportDevicesToBlobByIdentity: [uri, true],
      listJobs: [], getJob: ['x'], cancelJob: ['x'],
      addConfiguration: [configuration()], getConfiguration: ['c'], getConfigurations: [],
      updateConfiguration: [configuration(), true], removeConfiguration: ['c'],
      applyConfigurationContentOnDevice: [deviceId, {}],
    };
    for (const [call, args] of Object.entries(wishes)) await refused(call, registry[call](...args));
    await refused('getDigitalTwin', digitalTwins.getDigitalTwin(deviceId));
    await refused('updateDigitalTwin', digitalTwins.updateDigitalTwin(deviceId, []));
    await refused('invokeCommand', digitalTwins.invokeCommand(deviceId, 'c', '{}'));
    await refused('invokeComponentCommand', digitalTwins.invokeComponentCommand(deviceId, 'p', 'c', '{}'));
  },

  async 'what needs AMQP gives up at once, and says so'() {
    client.setRetryPolicy({ shouldRetry: () => false, nextRetryTimeout: () => -1 });
    const refused = { name: 'NotImplementedError' };
    await assert.rejects(client.open(), refused);
    await assert.rejects(client.send(deviceId, 'hello'), refused);
    await assert.rejects(client.getFeedbackReceiver(), refused);
    await assert.rejects(client.getFileNotificationReceiver(), refused);
    await client.close();
  },

  async 'no call of the package was left out'() {
    await device.close();
    await moduleClient.close();
    await registry.delete(deviceId);
    const all = ['Registry', 'Client', 'JobClient', 'DigitalTwinClient', 'Twin'].flatMap((name) => calls(name));
    assert.deepEqual(all.filter((call) => !called.has(call)), []);
  },
};

runParts(parts);
