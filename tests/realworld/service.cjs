// The service side with Microsoft's npm package, called by azure_sdk.py.
//
//   node service.cjs registry|stream
//
// Released versions of azure-iothub have no call for device streams any more, so the
// request of its preview is sent through the package's own HTTP client.
'use strict';

const assert = require('node:assert');
const { Client, Registry } = require('azure-iothub');
const websocket = require('websocket-stream');

const connectionString = process.env.IOTHUB_CONNECTION_STRING;
const device = process.env.STREAMING_TARGET_DEVICE;

async function registry() {
  const registry = Registry.fromConnectionString(connectionString);
  const deviceId = "Node's-Device";
  const made = (await registry.create({ deviceId })).responseBody;
  assert.equal(made.deviceId, deviceId);
  assert.ok(made.authentication.symmetricKey.primaryKey, 'keys were made');
  const read = (await registry.get(deviceId)).responseBody;
  assert.deepEqual(read.authentication.symmetricKey, made.authentication.symmetricKey);
  const changed = (await registry.update({ deviceId, status: 'disabled' })).responseBody;
  assert.equal(changed.status, 'disabled');
  const listed = (await registry.list()).responseBody.map((one) => one.deviceId);
  assert.ok(listed.includes(deviceId) && listed.includes(device), `both in ${listed}`);
  const twin = (await registry.getTwin(device)).responseBody;
  assert.equal(twin.deviceId, device);
  assert.equal(twin.properties.desired.$version, 1);
  assert.equal(twin.properties.reported.deviceStreams.session.version, 1);
  await registry.delete(deviceId);
  await assert.rejects(registry.get(deviceId), { name: 'DeviceNotFoundError' });
}

async function stream() {
  const api = Client.fromConnectionString(connectionString)._restApiClient;
  const headers = {
    'iothub-streaming-connect-timeout-in-seconds': 30,
    'iothub-streaming-response-timeout-in-seconds': 30,
  };
  const path = `/twins/${encodeURIComponent(device)}/streams/echo?api-version=2018-10-20-preview`;
  const result = await new Promise((resolve, reject) =>
    api.executeApiCall('POST', path, headers, null, 60000, (error, body, response) =>
      error ? reject(error) : resolve(response.headers)));
  assert.strictEqual(result['iothub-streaming-is-accepted'], 'True');
  const socket = websocket(result['iothub-streaming-url'], {
    headers: { Authorization: `Bearer ${result['iothub-streaming-auth-token']}` },
  });
  // Joined chunks make messages far above 64 KiB, as they do in the sample.
  const sent = require('node:crypto').randomBytes(1_000_000);
  const received = [];
  let size = 0;
  await new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`closed after ${size} bytes`)));
    socket.on('data', (piece) => {
      received.push(piece);
      size += piece.length;
      if (size >= sent.length) resolve();
    });
    socket.write(sent);
  });
  assert.ok(Buffer.concat(received).equals(sent), 'the same bytes came back');
}

({ registry, stream })[process.argv[2]]().then(
  () => { console.log('done'); process.exit(0); },
  (error) => { console.error(error); process.exit(1); },
);
