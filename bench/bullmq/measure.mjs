// Adds jobs in bulk and processes them by doing nothing; prints one line of JSON with seconds for each.
//
//   node measure.mjs PORT JOBS BATCH BODY CONCURRENCY

import { Queue, Worker } from 'bullmq';

const [port, jobs, batch, body, concurrency] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
const queue = new Queue('bench', { connection });
const data = { type: 'booking.confirmed', data: 'x'.repeat(body) };
const options = { removeOnComplete: true, removeOnFail: true };

async function run(count) {
  const adding = performance.now();
  for (let from = 0; from < count; from += batch) {
    const size = Math.min(batch, count - from);
    await queue.addBulk(Array.from({ length: size }, () => ({ name: 'job', data, opts: options })));
  }
  const added = performance.now();
  let done = 0;
  let finish;
  const finished = new Promise((resolve) => { finish = resolve; });
  const worker = new Worker('bench', async () => {}, { connection, concurrency });
  worker.on('completed', () => { if (++done === count) finish(); });
  await finished;
  const processed = performance.now();
  await worker.close();
  return { add: (added - adding) / 1000, process: (processed - added) / 1000 };
}

await run(Math.min(2_000, jobs)); // so that scripts are loaded and code is compiled
console.log(JSON.stringify(await run(jobs)));
await queue.close();
process.exit(0);
