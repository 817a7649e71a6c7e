// Drives the OpenAI SDK for Node.
import { strict as assert } from 'node:assert';
import OpenAI, { toFile } from 'openai';
import { VERSION } from 'openai/version';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import {
  BEGUN, CITY_QUESTION, DOCUMENTS, ENDLESS, LONG, LOOK, PARAMETERS, PICTURE, QUESTION, SEEN,
  raises, run, said, stopped, weather,
} from './common.mjs';

const ABOUT = { name: 'get_weather', description: 'Get the weather of a city.', parameters: PARAMETERS };
const TOOL = { type: 'function', function: ABOUT };
const FLAT_TOOL = { type: 'function', ...ABOUT, strict: false };
const City = z.object({ city: z.enum(['Paris', 'Rome']) });

const client = (target, apiKey = target.key) =>
  new OpenAI({ baseURL: target.url, apiKey, maxRetries: 0, timeout: 60_000 });
const asking = ({ model }, content = QUESTION) =>
  ({ model, messages: [{ role: 'user', content }], temperature: 0, max_tokens: 100 });
const responding = ({ model }, input = QUESTION) => ({ model, input, temperature: 0, max_output_tokens: 100 });

async function all(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}

async function errors(target, call) {
  const [key, limited] = target.limited;
  await raises((e) => e instanceof OpenAI.AuthenticationError, () => call(client(target, 'wrong'), target.model));
  const missing = await raises((e) => e instanceof OpenAI.NotFoundError, () => call(client(target), 'nope'));
  assert.equal(missing.code, 'model_not_found');
  const long = await raises((e) => e instanceof OpenAI.BadRequestError, () => call(client(target), target.context, LONG));
  assert.equal(long.code, 'context_length_exceeded');
  await raises((e) => e instanceof OpenAI.RateLimitError, () => call(client(target, key), limited), 3);
}

// -- chat completions ---------------------------------------------------------------------------------------------

async function chatWhole(target) {
  const answer = await client(target).chat.completions.create(asking(target));
  said(target, answer.choices[0].message.content);
  assert.ok(answer.usage.completion_tokens > 0);
}

async function chatStream(target) {
  const whole = (await client(target).chat.completions.create(asking(target))).choices[0].message.content;
  const asked = { ...asking(target), stream: true, stream_options: { include_usage: true } };
  const chunks = await all(client(target).chat.completions.create(asked));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''), whole);
  assert.ok(chunks.some((chunk) => chunk.choices[0]?.finish_reason));
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
}

async function chatTools(target) {
  const asked = { ...asking(target), tools: [TOOL] };
  const { message, finish_reason } = (await client(target).chat.completions.create(asked)).choices[0];
  assert.equal(finish_reason, 'tool_calls');
  const [call] = message.tool_calls;
  const result = { role: 'tool', tool_call_id: call.id, content: weather(JSON.parse(call.function.arguments)) };
  const next = { ...asked, messages: [...asked.messages, message, result] };
  said(target, (await client(target).chat.completions.create(next)).choices[0].message.content);
}

// The SDK's own loop of tools, over streams.
async function chatToolsStreamed(target) {
  const given = { ...ABOUT, function: weather, parse: JSON.parse };
  const runner = client(target).chat.completions
    .runTools({ ...asking(target), stream: true, tools: [{ type: 'function', function: given }] });
  said(target, await runner.finalContent());
}

async function chatStructured(target) {
  const asked = { ...asking(target, CITY_QUESTION), response_format: zodResponseFormat(City, 'city') };
  assert.ok((await client(target).chat.completions.parse(asked)).choices[0].message.parsed.city);
  const streamed = await client(target).chat.completions.stream(asked).finalChatCompletion();
  assert.ok(streamed.choices[0].message.parsed.city);
}

const chatErrors = (target) =>
  errors(target, (one, model, text) => one.chat.completions.create({ ...asking(target, text), model }));

const chatBroken = (target) => raises((e) => e instanceof OpenAI.APIError && /broke/.test(e.message),
  () => all(client(target).chat.completions.create({ ...asking(target), model: target.broken, stream: true })));

async function chatCancel(target) {
  const asked = { ...asking(target, ENDLESS), model: target.slow, max_tokens: 3000, stream: true };
  const stream = await client(target).chat.completions.create(asked);
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
  stream.controller.abort();
  await stopped(target);
  await chatWhole(target);
}

// -- responses ----------------------------------------------------------------------------------------------------

async function responsesWhole(target) {
  const answer = await client(target).responses.create({ ...responding(target), instructions: 'Be brief.' });
  said(target, answer.output_text);
  assert.ok(answer.usage.output_tokens > 0);
}

async function responsesStream(target) {
  const whole = (await client(target).responses.create(responding(target))).output_text;
  const events = await all(client(target).responses.create({ ...responding(target), stream: true }));
  const deltas = events.filter((event) => event.type === 'response.output_text.delta');
  assert.equal(deltas.map((event) => event.delta).join(''), whole);
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, i) => i));
}

async function responsesResult(target, asked, answer) {
  const call = answer.output.find((item) => item.type === 'function_call');
  const result = { type: 'function_call_output', call_id: call.call_id, output: weather(JSON.parse(call.arguments)) };
  const input = [{ role: 'user', content: asked.input }, ...answer.output, result];
  said(target, (await client(target).responses.create({ ...asked, input })).output_text);
}

async function responsesTools(target) {
  const asked = { ...responding(target), tools: [FLAT_TOOL] };
  await responsesResult(target, asked, await client(target).responses.create(asked));
}

async function responsesToolsStreamed(target) {
  const asked = { ...responding(target), tools: [FLAT_TOOL] };
  await responsesResult(target, asked, await client(target).responses.stream(asked).finalResponse());
}

async function responsesStructured(target) {
  const asked = { ...responding(target, CITY_QUESTION), text: { format: zodTextFormat(City, 'city') } };
  assert.ok((await client(target).responses.parse(asked)).output_parsed.city);
  assert.ok((await client(target).responses.stream(asked).finalResponse()).output_parsed.city);
}

async function responsesPrevious(target) {
  const asked = { ...responding(target), tools: [FLAT_TOOL], store: true };
  const first = await client(target).responses.create(asked);
  const call = first.output.find((item) => item.type === 'function_call');
  const result = { type: 'function_call_output', call_id: call.call_id, output: weather(JSON.parse(call.arguments)) };
  const next = { ...asked, input: [result], previous_response_id: first.id };
  said(target, (await client(target).responses.create(next)).output_text);
  await client(target).responses.delete(first.id);
  await raises((e) => e instanceof OpenAI.NotFoundError, () => client(target).responses.retrieve(first.id));
}

const responsesErrors = (target) =>
  errors(target, (one, model, text) => one.responses.create({ ...responding(target, text), model }));

const responsesBroken = (target) => raises((e) => e instanceof OpenAI.APIError && /broke/.test(e.message),
  () => all(client(target).responses.create({ ...responding(target), model: target.broken, stream: true })));

async function responsesCancel(target) {
  const asked = { ...responding(target, ENDLESS), model: target.slow, max_output_tokens: 3000, stream: true };
  const stream = await client(target).responses.create(asked);
  for await (const event of stream) if (event.type === 'response.output_text.delta') break;
  stream.controller.abort();
  await stopped(target);
  await responsesWhole(target);
}

// -- a picture ----------------------------------------------------------------------------------------------------

async function chatImage(target) {
  const content = [{ type: 'text', text: LOOK }, { type: 'image_url', image_url: { url: PICTURE } }];
  const asked = { ...asking(target, content), model: target.sees };
  assert.equal((await client(target).chat.completions.create(asked)).choices[0].message.content, SEEN);
}

async function responsesImage(target) {
  const content = [{ type: 'input_text', text: LOOK }, { type: 'input_image', image_url: PICTURE, detail: 'auto' }];
  const asked = { ...responding(target, [{ role: 'user', content }]), model: target.sees };
  assert.equal((await client(target).responses.create(asked)).output_text, SEEN);
}

// -- the rest -----------------------------------------------------------------------------------------------------

async function completions(target) {
  const asked = { model: target.completer, prompt: BEGUN, temperature: 0, max_tokens: 50 };
  const answer = await client(target).completions.create(asked);
  said(target, answer.choices[0].text);
  const streamed = { ...asked, stream: true, stream_options: { include_usage: true } };
  const chunks = await all(client(target).completions.create(streamed));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.text ?? '').join(''), answer.choices[0].text);
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
}

// By the SDK's own way to an endpoint that it has no method for.
async function rerank(target) {
  const body = { model: target.media, query: 'light', documents: DOCUMENTS, top_n: 2 };
  const { results } = await client(target).post('/rerank', { body });
  assert.deepEqual(results.map((one) => [one.index, one.relevance_score]), [[0, 1], [1, 0.5]]);
}

async function embeddings(target) {
  const answer = await client(target).embeddings.create({ model: target.embedder, input: ['one', 'two'] });
  assert.equal(answer.data.length, 2);
  assert.ok(answer.data[0].embedding.length > 1);
}

async function models(target) {
  const [first] = await all(client(target).models.list());
  assert.equal((await client(target).models.retrieve(first.id)).id, first.id);
}

async function moderations(target) {
  const answer = await client(target).moderations.create({ model: target.media, input: 'hello' });
  assert.equal(answer.results[0].flagged, false);
}

async function images(target) {
  assert.ok((await client(target).images.generate({ model: target.media, prompt: 'a cat' })).data[0].b64_json);
}

async function transcription(target) {
  const file = await toFile(Buffer.from('RIFF0000WAVE'), 'hello.wav');
  assert.equal((await client(target).audio.transcriptions.create({ model: target.media, file })).text, 'hello');
}

async function speech(target) {
  const answer = await client(target).audio.speech.create({ model: target.media, voice: 'alloy', input: 'hello' });
  assert.ok((await answer.arrayBuffer()).byteLength > 0);
}

await run(VERSION, {
  'chat.whole': chatWhole,
  'chat.stream': chatStream,
  'chat.tools': chatTools,
  'chat.tools_streamed': chatToolsStreamed,
  'chat.structured': chatStructured,
  'chat.errors': chatErrors,
  'chat.broken': chatBroken,
  'chat.cancel': chatCancel,
  'chat.image': chatImage,
  'responses.whole': responsesWhole,
  'responses.stream': responsesStream,
  'responses.tools': responsesTools,
  'responses.tools_streamed': responsesToolsStreamed,
  'responses.structured': responsesStructured,
  'responses.previous': responsesPrevious,
  'responses.errors': responsesErrors,
  'responses.broken': responsesBroken,
  'responses.cancel': responsesCancel,
  'responses.image': responsesImage,
  'other.completions': completions,
  'other.embeddings': embeddings,
  'other.rerank': rerank,
  'other.moderations': moderations,
  'other.images': images,
  'other.transcription': transcription,
  'other.speech': speech,
  'other.models': models,
});
