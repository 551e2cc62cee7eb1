#!/usr/bin/env bash
# Vercel's AI SDK 6 (npm: ai) with an OpenAI-compatible gateway, and three ways in which a stream fails after its first words: the gateway
# reports an error in it, it ends without a finish reason, or the connection breaks.
#
# Guessed: one way to notice all of them, by an exception in the loop or by onError. Seen: the two that are noticed never come together.
# A reported error and a missing end call onError; the loop over textStream ends as after a whole answer, `text` is fulfilled
# with the half, and onFinish is called, where applications save the answer and count its tokens. A connection that breaks makes the loop
# throw, and neither onError nor onFinish is called, so that what is counted there misses both the call and its failure.
# Usage is not even asked for (stream_options) without includeUsage.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts ai@6.0.326 @ai-sdk/openai-compatible@2.0.92
cat > calls.mjs << 'JAVASCRIPT'
import assert from "node:assert";
import http from "node:http";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const sent = (data) => `data: ${JSON.stringify(data)}\n\n`;
const chunk = (delta, finish_reason = null) =>
  sent({ id: "1", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta, finish_reason }] });
const ends = {
  whole: (answer) => answer.end(chunk({}, "stop") + "data: [DONE]\n\n"),
  reported: (answer) => answer.end(sent({ error: { message: "overloaded", code: 502 } }) + "data: [DONE]\n\n"),
  cut: (answer) => answer.end(),
  broken: (answer) => answer.destroy(),
};
let end, options;
const gateway = http.createServer(async (request, answer) => {
  let body = "";
  for await (const part of request) body += part;
  options = JSON.parse(body).stream_options;
  answer.writeHead(200, { "content-type": "text/event-stream" });
  answer.write(chunk({ role: "assistant", content: "The answer begins" }));
  setTimeout(() => ends[end](answer), 300);
});
await new Promise((ready) => gateway.listen(0, "127.0.0.1", ready));
const model = createOpenAICompatible({ name: "gateway", baseURL: `http://127.0.0.1:${gateway.address().port}/v1`, apiKey: "none" })("m");
const seen = {};
for (end of Object.keys(ends)) {
  const told = [];
  const stream = streamText({ model, prompt: "Hi", onError: () => told.push("onError"), onFinish: () => told.push("onFinish") });
  const loop = (async () => { for await (const _ of stream.textStream); })();
  told.push(await loop.then(() => "the loop ends", () => "the loop throws"));
  told.push(await stream.text.then((text) => `text: ${text}`, () => "text: rejected"));
  seen[end] = told.join(", ");
}
console.log("expected: reported, cut and broken alike, and unlike whole; seen:", seen, "stream_options:", options);
assert.deepEqual(seen, {
  whole: "onFinish, the loop ends, text: The answer begins",
  reported: "onError, onFinish, the loop ends, text: The answer begins",
  cut: "onError, onFinish, the loop ends, text: The answer begins",
  broken: "the loop throws, text: rejected",
});
assert.equal(options, undefined);
process.exit(0);
JAVASCRIPT
node calls.mjs
