// What every TypeScript program here shares: steps that say that they passed, and waiting for what was written.
import { deepStrictEqual, ok } from 'node:assert';

export const URL_OF_SERVER = process.env.FRESHET_URL;
export const API_KEY = 'YOUR_API_KEY';
const PATIENCE_MS = 60_000;

// Take the steps in order; each that passes is one line. A step's name is its sentence.
export async function take(walk, steps) {
  for (const step of steps) {
    await step(walk);
    console.log(`ok ${step.name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}`);
  }
}

// Read again and again until the answer shows what was written: the service is eventually consistent.
export async function until(read, isSo) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await read();
    if (isSo(answer)) return answer;
    ok(Date.now() < deadline, `waited in vain; the last answer was ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export function equal(left, right) {
  try {
    deepStrictEqual(left, right);
    return true;
  } catch {
    return false;
  }
}

export function counts(stats) {
  return Object.fromEntries(Object.entries(stats.namespaces).map(([name, one]) => [name, one.recordCount]));
}

// Check data freshness as the guide does, until the counts are the expected ones.
export async function waitForCounts(index, wanted) {
  return until(() => index.describeIndexStats(), (stats) => equal(counts(stats), wanted));
}

// Expect an error of this class (by name) whose text has `text`.
export async function refused(call, name, text) {
  let answer;
  try {
    answer = await call();
  } catch (error) {
    ok(error.name.includes(name), `${error.name}: ${error.message}`);
    ok(error.message.toLowerCase().includes(text.toLowerCase()), error.message);
    return;
  }
  throw new Error(`expected ${name}, got ${JSON.stringify(answer)}`);
}
