// Hands a message to Fanfare's durable queue with one XADD, without its HTTP API (ioredis).
//
//     enqueue.mjs redis://127.0.0.1:6379 high orders:7 '{"state": "paid"}'
//     enqueue.mjs --partition orders:7 @alice
import { createRequire } from "node:module";
import { crc32 } from "node:zlib"; // from Node.js 20.15 and 22.2 on

const [APP, PREFIX, PARTITIONS] = ["default", "ff", 256]; // of the app, redis.prefix, redis.partitions
const PRIORITIES = ["critical", "high", "normal", "low"];

/** The partition of a topic, or of a user's inbox as `@USER`. */
export function partition(name) {
  return crc32(`${APP}:${name}`) % PARTITIONS;
}

/** `data` is JSON text. Returns the entry's id once Redis has it. */
export async function enqueue(redis, priority, name, data, more = {}) {
  if (!PRIORITIES.includes(priority)) { // Nobody looks into a stream of another name.
    throw new RangeError(`the priority must be one of ${PRIORITIES.join(", ")}, not ${priority}`);
  }
  const n = partition(name);
  const isUser = name.startsWith("@") && name !== "@";
  const target = isUser ? ["user", name.slice(1)] : ["topic", name];
  const fields = [...target, "data", data, ...Object.entries(more).flat()];
  const entry = await redis.xadd(`${PREFIX}:q:{${n}}:${priority}`, "*", ...fields);
  // Not needed: it is seen within a second without. In a Redis Cluster: spublish.
  await redis.publish(`${PREFIX}:{${n}}:bell`, priority);
  return entry;
}

const [first, ...rest] = process.argv.slice(2);
if (first === "--partition") {
  for (const name of rest) console.log(name, partition(name));
} else if (first) {
  const { Redis } = createRequire(import.meta.url)("ioredis");
  const redis = new Redis(first);
  try {
    console.log(await enqueue(redis, ...rest));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
  redis.disconnect();
}
