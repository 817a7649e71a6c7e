// What the drivers in JavaScript share: common.py, in the other language.
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';

export const QUESTION = 'What is the weather in Paris?';
export const CITY_QUESTION = 'Give me a JSON object with city.';
export const ENDLESS = 'Count from 1 to 100.';
export const LONG = 'word '.repeat(5000);
// One black pixel; what shows itself to have it says so by these words.
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';
export const PICTURE = `data:image/png;base64,${PIXEL}`;
export const LOOK = 'Name it:';
const SUM = createHash('sha256').update(Buffer.from(PIXEL, 'base64')).digest('hex').slice(0, 16);
export const SEEN = `image/png ${SUM}`;
export const BEGUN = 'Once upon a time';
export const DOCUMENTS = ['the sun', 'the moon', 'the sea'];
export const PARAMETERS = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };

// What a target must have for a feature to be tried on it.
const NEEDS = {
  broken: 'broken', embeddings: 'embedder',
  moderations: 'media', images: 'media', transcription: 'media', speech: 'media', rerank: 'media', image: 'sees',
  completions: 'completer',
};

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// What the tool gives; it must be asked about the city of the question.
export function weather({ city }) {
  assert.equal(city, 'Paris');
  return 'sunny, 21 degrees';
}

export function said(target, text) {
  assert.ok(text, 'the answer is empty');
  if (target.says) assert.equal(text, target.says);
}

// The error that a call raises; of an exhausted rate the first call may not be the one that is refused.
export async function raises(fits, call, attempts = 1) {
  for (let i = 0; i < attempts; i += 1) {
    try {
      await call();
    } catch (error) {
      if (fits(error)) return error;
      throw error;
    }
  }
  throw new Error(`nothing was raised that fits ${fits}`);
}

// A stream was left: it must have ended everywhere behind Lumen.
export async function stopped(target) {
  told({ stopped: target.name });
  const { value } = await input.next();
  assert.equal(value, 'ok');
}

// Try every feature on every target; `version` is the client's own word for what it is.
export async function run(version, checks) {
  const targets = JSON.parse((await input.next()).value);
  told({ version });
  for (const target of targets) {
    for (const [feature, check] of Object.entries(checks)) {
      if (!(target[NEEDS[feature.split('.').pop()]] ?? true)) continue;
      let failed = null;
      try {
        await check(target);
      } catch (error) {
        failed = `${error?.name}: ${error?.message}`.slice(0, 300);
      }
      told({ feature, target: target.name, failed });
    }
  }
  process.exit(0);
}
