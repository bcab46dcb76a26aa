// A device with Microsoft's npm packages and a client certificate, called by x509_ca.py: it sends one
// message over the transport in TRANSPORT.
'use strict';

const fs = require('node:fs');
const { Client, Message } = require('azure-iot-device');
const transports = require('azure-iot-device-mqtt');

async function main() {
  const { CERT, DEVICE_STRING, KEY, NODE_EXTRA_CA_CERTS, TRANSPORT } = process.env;
  const client = Client.fromConnectionString(DEVICE_STRING, transports[TRANSPORT]);
  const read = (file) => fs.readFileSync(file, 'utf8');
  await client.setOptions({ ca: read(NODE_EXTRA_CA_CERTS), cert: read(CERT), key: read(KEY) });
  await client.open();
  await client.sendEvent(new Message('from a device with a certificate'));
  console.log('sent');
  await client.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error.stack);
  process.exit(1);
});
