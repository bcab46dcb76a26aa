// Runs the parts of a script one after the other: a line of JSON for each, with what failed.
'use strict';

async function main(parts) {
  for (const [part, run] of Object.entries(parts)) {
    let failed;
    try {
      await run();
    } catch (error) {
      failed = error.stack ?? String(error);
    }
    console.log(JSON.stringify({ part, failed }));
  }
}

exports.runParts = (parts) =>
  main(parts).then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
  });
