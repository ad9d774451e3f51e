/** Everything a client can get wrong: the answer names the field, and nothing reaches the domain. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { connect } from "node:tls";
import { CASES, COLLECTION, POINT, VM, vm } from "./apiBadInputCases.ts";
import { at, type Client, GROUP, startApi } from "./apiHarness.ts";
import { type FakeDomain, fakeDomain } from "./fakeDomain.ts";

async function scene(t: TestContext): Promise<{ domain: FakeDomain; api: Client }> {
  const domain = fakeDomain();
  const api = await startApi(t, domain);
  await api.call("PUT", at(GROUP), { location: "local" });
  await api.call("PUT", at(VM), vm({}));
  await api.call("PUT", at(COLLECTION), { location: "local", properties: { source: { id: VM } } });
  assert.equal((await api.call("PUT", at(POINT), {})).status, 201);
  domain.calls.length = 0;
  return { domain, api };
}

for (const [kind, cases] of Object.entries(CASES))
  test(`bad input names the field and changes nothing: ${kind}`, async (t) => {
    const { domain, api } = await scene(t);
    for (const one of cases)
      await t.test(one.what, async () => {
        const path = one.path.includes("?") ? one.path : at(one.path);
        const answer = await api.call(one.method, path, one.body);
        const { code, target, message } = answer.body.error;
        assert.equal(answer.status, one.status, answer.text);
        assert.equal(code, one.code, answer.text);
        if (one.target !== null) assert.equal(target, one.target, answer.text);
        assert.match(message, one.says);
        assert.match(message, /[.']$/, "a message is whole sentences");
        assert.ok(answer.text.length < 3000, "an error does not send the request back");
        assert.deepEqual(domain.calls, []);
        // And the service goes on.
        assert.equal((await api.call("GET", at(GROUP))).status, 200);
      });
  });

test("what is not HTTP, or whose headers are too long, is answered and cut off", async (t) => {
  const { api, domain } = await scene(t);
  const { hostname, port } = new URL(api.url);
  const say = (text: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false }, () =>
        socket.write(text),
      );
      let heard = "";
      socket.on("data", (part) => {
        heard += part.toString("utf8");
      });
      socket.on("error", reject);
      socket.on("close", () => resolve(heard));
    });
  assert.match(await say("HELLO\r\n\r\n"), /^HTTP\/1\.1 400 /);
  const long = `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(20_000)}\r\n\r\n`;
  assert.match(await say(long), /^HTTP\/1\.1 400 /);
  assert.deepEqual(domain.calls, []);
});

test("a foreign Host header does not become part of a link", async (t) => {
  const { api } = await scene(t);
  const answer = await api.call("POST", at(`${VM}/start`), undefined, { host: "evil.example" });
  assert.equal(answer.status, 202);
  assert.ok(String(answer.headers["location"]).startsWith(api.url));
});
