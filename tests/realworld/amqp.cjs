// Microsoft's npm packages over AMQP, which the hub does not speak: called by azure_sdk.py.
// Each client must give up by itself, and its error must say what to use.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const device = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const service = require('azure-iothub');
const { AmqpWs: ServiceAmqpWs } = require('azure-iothub/dist/amqp_ws.js');

async function refused(name, client) {
  const started = Date.now();
  await assert.rejects(client.open(), (error) => {
    assert.equal(error.name, 'NotImplementedError', `${name}: ${error.stack}`);
    assert.equal(error.amqpError.condition, 'amqp:not-implemented', name);
    assert.match(error.amqpError.description, /MQTT/, name);
    return true;
  });
  console.log(`${name}: ${Date.now() - started} ms`);
}

async function main() {
  const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS, 'utf8');
  for (const transport of [Amqp, AmqpWs]) {
    const client = device.Client.fromConnectionString(process.env.DEVICE_STRING, transport);
    await client.setOptions({ ca });
    await refused(`device, ${transport.name}`, client);
  }
  const string = process.env.IOTHUB_CONNECTION_STRING;
  await refused('service, Amqp', service.Client.fromConnectionString(string));
  await refused('service, AmqpWs', service.Client.fromConnectionString(string, ServiceAmqpWs));
}

main().then(
  () => { console.log('done'); process.exit(0); },
  (error) => { console.error(error); process.exit(1); },
);
