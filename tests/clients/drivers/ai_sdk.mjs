// Drives the AI SDK by Vercel: its OpenAI-compatible provider, its OpenAI one (Responses) and its Anthropic one.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, Output, embedMany, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';
import { CITY_QUESTION, ENDLESS, LONG, QUESTION, raises, run, said, stopped, weather } from './common.mjs';

const { version } = JSON.parse(readFileSync(new URL('./node_modules/ai/package.json', import.meta.url)));
const City = z.object({ city: z.enum(['Paris', 'Rome']) });
const get_weather = tool({
  description: 'Get the weather of a city.',
  inputSchema: z.object({ city: z.string() }),
  execute: async (given) => weather(given),
});

const compatible = ({ url, key }, apiKey = key) =>
  createOpenAICompatible({ name: 'lumen', baseURL: url, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const DIALECTS = {
  chat: (target, model = target.model, key = target.key) => compatible(target, key)(model),
  responses: ({ url, ...target }, model = target.model, key = target.key) =>
    createOpenAI({ baseURL: url, apiKey: key }).responses(model),
  messages: ({ url, ...target }, model = target.model, key = target.key) =>
    createAnthropic({ baseURL: url, apiKey: key })(model),
};
const asked = (model, prompt = QUESTION) =>
  ({ model, prompt, temperature: 0, maxOutputTokens: 100, maxRetries: 0, onError: () => {} });
const looped = (model) => ({ ...asked(model), tools: { get_weather }, stopWhen: stepCountIs(4) });

async function whole(make, target) {
  const answer = await generateText({ ...asked(make(target)), instructions: 'Be brief.' });
  said(target, answer.text);
  assert.ok(answer.usage.outputTokens > 0);
}

async function stream(make, target) {
  const answer = streamText(asked(make(target)));
  const pieces = [];
  for await (const piece of answer.textStream) pieces.push(piece);
  said(target, pieces.join(''));
  assert.ok(pieces.length > 1);
  assert.ok((await answer.usage).outputTokens > 0);
}

async function tools(make, target) {
  const answer = await generateText(looped(make(target)));
  assert.equal(answer.steps.length, 2);
  assert.equal(answer.steps[0].finishReason, 'tool-calls');
  said(target, answer.text);
}

async function toolsStreamed(make, target) {
  const answer = streamText(looped(make(target)));
  const kinds = new Set();
  for await (const part of answer.fullStream) {
    if (part.type === 'error') throw part.error;
    kinds.add(part.type);
  }
  for (const kind of ['tool-input-start', 'tool-input-delta', 'tool-call', 'tool-result']) assert.ok(kinds.has(kind), kind);
  said(target, await answer.text);
}

async function structured(make, target) {
  const wanted = { ...asked(make(target), CITY_QUESTION), output: Output.object({ schema: City }) };
  assert.ok((await generateText(wanted)).output.city);
  const answer = streamText(wanted);
  for await (const part of answer.partialOutputStream) assert.ok(part);
  assert.ok((await answer.output).city);
}

async function errors(make, target) {
  const [key, limited] = target.limited;
  const told = (status) => (e) => APICallError.isInstance(e) && e.statusCode === status;
  const { model } = target;
  await raises(told(401), () => generateText(asked(make(target, model, 'wrong'))));
  await raises(told(404), () => generateText(asked(make(target, 'nope'))));
  await raises(told(400), () => generateText(asked(make(target, target.context), LONG)));
  const refused = await raises(told(429), () => generateText(asked(make(target, limited, key))), 3);
  assert.ok(refused.isRetryable);
}

async function broken(make, target) {
  const answer = streamText(asked(make(target, target.broken)));
  const wrong = [];
  try {
    for await (const part of answer.fullStream) if (part.type === 'error') wrong.push(part.error);
  } catch (error) {
    // Behind the error the connection ends without the body's end, so that nothing takes it for a whole answer.
    assert.ok(APICallError.isInstance(error), error);
  }
  assert.equal(wrong.length, 1);
  assert.match(wrong[0].message ?? JSON.stringify(wrong[0]), /broke/);
}

async function cancel(make, target) {
  const controller = new AbortController();
  const long = { ...asked(make(target, target.slow), ENDLESS), maxOutputTokens: 3000 };
  const answer = streamText({ ...long, abortSignal: controller.signal });
  for await (const part of answer.fullStream) if (part.type === 'text-delta') controller.abort();
  await stopped(target);
  await whole(make, target);
}

async function previous(target) {
  const model = DIALECTS.responses(target);
  const first = await generateText(asked(model));
  const openai = { previousResponseId: first.providerMetadata.openai.responseId };
  const second = await generateText({ ...asked(model, QUESTION), providerOptions: { openai } });
  said(target, second.text);
  assert.ok(second.usage.inputTokens > (target.says ? 0 : first.usage.inputTokens));
}

async function embeddings(target) {
  const model = compatible(target).embeddingModel(target.embedder);
  assert.equal((await embedMany({ model, values: ['one', 'two'], maxRetries: 0 })).embeddings.length, 2);
}

const FEATURES = { whole, stream, tools, tools_streamed: toolsStreamed, structured, errors, broken, cancel };
const checks = { 'responses.previous': previous, 'other.embeddings': embeddings };
for (const [dialect, make] of Object.entries(DIALECTS)) {
  for (const [name, check] of Object.entries(FEATURES)) checks[`${dialect}.${name}`] = (target) => check(make, target);
}
globalThis.AI_SDK_LOG_WARNINGS = false;
await run(version, checks);
