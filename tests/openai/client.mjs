// OpenAI's JavaScript client against a running server: node client.mjs PACKAGE BASE_URL KEY WRONG_KEY. Prints JSON.
import { pathToFileURL } from "node:url";

const [folder, baseURL, apiKey, wrongKey] = process.argv.slice(2);
const { default: OpenAI } = await import(pathToFileURL(`${folder}/index.mjs`).href);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "Tiny-Llama";
const messages = [{ role: "user", content: "The quick brown fox" }];
const common = { model, messages, max_tokens: 8, temperature: 0, ignore_eos: true };

async function refusal(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, id: error.requestID };
  }
}

const whole = await client.chat.completions.create({ ...common, logprobs: true });
let streamed = "", usage = null, finish = null;
for await (const chunk of await client.chat.completions.create({
  ...common, stream: true, stream_options: { include_usage: true },
})) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage ?? usage;
}
const completion = await client.completions.create({ model, prompt: "A calm", max_tokens: 4, n: 2, seed: 3 });
const steered = await client.chat.completions.create({ ...common, model: "tiny-llama::calm@1.0" });
const inBody = await client.chat.completions.create({
  ...common, steering: { vectors: [{ vector: "calm", layer: 1, strength: 1.5 }] },
});
const response = await client.responses.create({ model, input: "The quick", max_output_tokens: 4 });
const wrong = new OpenAI({ baseURL, apiKey: wrongKey, maxRetries: 0 });

const stopped = await client.chat.completions.create({ ...common, max_tokens: 20000, stream: true });
for await (const chunk of stopped) if (chunk.choices[0]?.delta?.content) break; // leaving the loop aborts

console.log(JSON.stringify({
  models: (await client.models.list()).data.map((each) => each.id),
  whole: whole.choices[0].message.content,
  tokens: whole.choices[0].logprobs.content.map((each) => each.token).join(""),
  id: whole._request_id,
  streamed, usage, finish,
  completion: completion.choices.map((each) => each.text),
  steered: steered.choices[0].message.content,
  inBody: inBody.choices[0].message.content,
  applied: steered.steering.receipts[0].applied.length,
  response: response.output_text,
  errors: [
    await refusal(wrong.models.list()),
    await refusal(client.chat.completions.create({ ...common, model: "gpt-5" })),
    await refusal(client.chat.completions.create({ ...common, temperature: -1 })),
    await refusal(client.completions.create({ model, prompt: Array(40001).fill(40) })),
  ],
}));
