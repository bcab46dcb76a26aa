// A device with Microsoft's npm packages, called by azure_sdk.py. It reads its twin once
// for each line that it is given, `again` in the same session and `reopen` in a new one.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

async function main() {
  const client = Client.fromConnectionString(process.env.DEVICE_STRING, Mqtt);
  await client.setOptions({ ca: fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS, 'utf8') });
  client.on('error', () => {});
  await client.open();
  const twin = await client.getTwin();
  const read = () =>
    new Promise((resolve, reject) => twin.get((error) => (error ? reject(error) : resolve())));
  console.log('opened');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line === 'reopen') {
      await client.close();
      await client.open();
    }
    await read();
    console.log(line);
  }
  await client.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error.stack);
  process.exit(1);
});
