import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Clock, systemClock, systemRandom } from "../../base/index.ts";
import { ensureCertificate } from "./certificate.ts";
import { ensureToken, tokenCheck } from "./token.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "stillpoint-access-"));
  t.after(() => rm(path, { recursive: true }));
  return path;
}
const later = (days: number): Clock => ({
  ...systemClock,
  now: () => new Date(systemClock.now().getTime() + days * DAY_MS),
});
const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);

test("the token is made once, secret and kept", async (t) => {
  const dataDir = await folder(t);
  const first = await ensureToken(dataDir, systemRandom);
  assert.equal(await mode(first.path), "600");
  assert.equal(Buffer.from(first.token, "base64url").length, 32);
  assert.deepEqual(await ensureToken(dataDir, systemRandom), first);
  await chmod(first.path, 0o640);
  await assert.rejects(ensureToken(dataDir, systemRandom), /no file of mode 0600/);
  await chmod(first.path, 0o600);
  await writeFile(first.path, "short");
  await assert.rejects(ensureToken(dataDir, systemRandom), /does not hold a token/);
});

test("only the whole token passes", () => {
  const check = tokenCheck("secret");
  assert.ok(check("Bearer secret"));
  assert.ok(check("bearer  secret"));
  for (const wrong of [
    undefined,
    "",
    "secret",
    "Bearer",
    "Bearer secre",
    "Bearer secrets",
    "Bearer secret x",
    "Basic secret",
  ])
    assert.equal(check(wrong), false, wrong);
});

test("the certificate names the loopback addresses and hangs on the authority", async (t) => {
  const dataDir = await folder(t);
  const made = await ensureCertificate(dataDir, systemClock);
  const [leaf, authority] = [new X509Certificate(made.cert), new X509Certificate(await readFile(made.caFile, "utf8"))];
  for (const host of ["localhost"]) assert.equal(leaf.checkHost(host), host);
  for (const ip of ["127.0.0.1", "::1"]) assert.equal(leaf.checkIP(ip), ip);
  assert.equal(leaf.checkHost("example.com"), undefined);
  assert.ok(leaf.checkIssued(authority) && leaf.verify(authority.publicKey));
  assert.equal(leaf.ca, false);
  assert.equal(authority.ca, true);
  for (const name of ["ca-key.pem", "server-key.pem"]) assert.equal(await mode(join(dataDir, "tls", name)), "600");
  assert.equal(await mode(join(dataDir, "tls")), "700");
  assert.deepEqual(await ensureCertificate(dataDir, systemClock), made);
});

test("a certificate near its end is renewed below the same authority, and the authority in its time", async (t) => {
  const dataDir = await folder(t);
  const made = await ensureCertificate(dataDir, systemClock);
  const authority = await readFile(made.caFile, "utf8");
  assert.equal((await ensureCertificate(dataDir, later(300))).cert, made.cert);
  const renewed = await ensureCertificate(dataDir, later(360));
  assert.notEqual(renewed.cert, made.cert);
  assert.equal(await readFile(renewed.caFile, "utf8"), authority);
  const last = await ensureCertificate(dataDir, later(3400));
  const issuer = new X509Certificate(await readFile(last.caFile, "utf8"));
  assert.notEqual(await readFile(last.caFile, "utf8"), authority);
  assert.ok(new X509Certificate(last.cert).verify(issuer.publicKey));
});

test("damaged and mixed files are replaced, so that the service always starts", async (t) => {
  const [one, other] = [await folder(t), await folder(t)];
  const made = await ensureCertificate(one, systemClock);
  await ensureCertificate(other, systemClock);
  for (const content of ["", "rubbish", await readFile(join(other, "tls/server-key.pem"), "utf8")]) {
    await writeFile(join(one, "tls/server-key.pem"), content);
    const again = await ensureCertificate(one, systemClock);
    assert.ok(
      new X509Certificate(again.cert).verify(new X509Certificate(await readFile(made.caFile, "utf8")).publicKey),
    );
  }
  await writeFile(join(one, "tls/ca.pem"), "rubbish");
  const mended = await ensureCertificate(one, systemClock);
  assert.ok((await readFile(mended.caFile, "utf8")).startsWith("-----BEGIN CERTIFICATE-----"));
});
