// A managed device with Microsoft's npm packages, called by fleet_sdk.py: it shows what arrives
// and does what it is told, one JSON document a line in either direction.
//
//   DEVICE_STRING, TRANSPORT (Mqtt or MqttWs), RENEW_AFTER (seconds)
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const { Client, Message } = require('azure-iot-device');
const transports = require('azure-iot-device-mqtt');

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function main() {
  const client = Client.fromConnectionString(
    process.env.DEVICE_STRING, transports[process.env.TRANSPORT]);
  const life = 3600;
  await client.setOptions({
    ca: fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS, 'utf8'),
    tokenRenewal: {
      tokenValidTimeInSeconds: life,
      tokenRenewalMarginInSeconds: life - Number(process.env.RENEW_AFTER),
    },
  });
  client.on('error', () => {});
  await client.open();
  const twin = await client.getTwin();
  twin.on('error', () => {});
  twin.on('properties.desired', (value) => say({ event: 'desired', value }));
  client.onDeviceMethod('echo', async (request, response) => {
    await response.send(207, request.payload);
  });
  client.on('message', (message) => {
    const properties = {};
    for (let i = 0; i < message.properties.count(); i += 1) {
      const { key, value } = message.properties.getItem(i);
      properties[key] = value;
    }
    say({ event: 'message', value: {
      body: message.getData().toString(), id: message.messageId,
      type: message.contentType, correlation: message.correlationId, properties,
    } });
    client.complete(message, () => {});
  });

  const orders = {
    twin: () => new Promise((resolve, reject) => twin.get((error) => (error ? reject(error) : resolve({
      desired: twin.properties.desired, reported: { ...twin.properties.reported, update: undefined },
    })))),
    report: (patch) => new Promise((resolve, reject) =>
      twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve(null)))),
    close: () => client.close().then(() => null),
    open: () => client.open().then(() => null),
    send: (body) => client.sendEvent(new Message(body)).then(() => null),
  };
  say({ done: 'open' });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { order, value } = JSON.parse(line);
    try {
      say({ done: order, value: await orders[order](value) });
    } catch (error) {
      say({ done: order, failed: String(error) });
    }
  }
  await client.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error.stack);
  process.exit(1);
});
