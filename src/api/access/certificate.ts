import "reflect-metadata";
import { createPrivateKey, webcrypto, X509Certificate } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  X509Certificate as Issued,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { type Clock, replaceFile } from "../../base/index.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const CA_DAYS = 3650;
const SERVER_DAYS = 397;
/** What remains when a new one is made; a service that restarts monthly never serves an expired one. */
const RENEW_BEFORE_DAYS = 60;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

export interface ServerCertificate {
  /** PEM, for the TLS server. */
  readonly key: string;
  readonly cert: string;
  /** The certificate clients trust: a PEM file anyone may read. */
  readonly caFile: string;
  readonly notAfter: Date;
}

interface Pair {
  readonly key: string;
  readonly cert: string;
}

/**
 * The server's certificate for 127.0.0.1, ::1 and localhost, signed by an authority of this installation that clients
 * trust through `{dataDir}/tls/ca.pem`. Both are made when missing, damaged, not matching or near their end; the
 * authority's key never leaves `{dataDir}/tls` (0700, files 0600). Key and certificate stand in one file each, so
 * that a crash never leaves a pair that does not match. Durable when it returns.
 */
export async function ensureCertificate(dataDir: string, clock: Clock): Promise<ServerCertificate> {
  const folder = join(dataDir, "tls");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const caFile = join(folder, "ca.pem");
  const caPath = join(folder, "ca-key.pem");
  const serverPath = join(folder, "server-key.pem");
  const ca = usable(await readPair(caPath), clock, null) ?? (await store(caPath, await makeAuthority(clock)));
  if ((await readFile(caFile, "utf8").catch(() => "")) !== ca.cert) await replaceFile(caFile, ca.cert, 0o644);
  const server =
    usable(await readPair(serverPath), clock, ca.cert) ?? (await store(serverPath, await makeServer(ca, clock)));
  return { key: server.key, cert: server.cert, caFile, notAfter: new X509Certificate(server.cert).validToDate };
}

async function store(path: string, pair: Pair): Promise<Pair> {
  await replaceFile(path, pair.key + pair.cert, 0o600);
  return pair;
}

async function readPair(path: string): Promise<Pair | null> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  const key = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n/.exec(text)?.[0];
  const cert = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/.exec(text)?.[0];
  return key && cert ? { key, cert } : null;
}

/** The pair if it is whole, valid long enough and (for the server's) signed by the present authority. */
function usable(pair: Pair | null, clock: Clock, issuer: string | null): Pair | null {
  if (pair === null) return null;
  try {
    const cert = new X509Certificate(pair.cert);
    const now = clock.now().getTime();
    const left = cert.validToDate.getTime() - now;
    const begun = cert.validFromDate.getTime() <= now;
    const matches = cert.checkPrivateKey(createPrivateKey(pair.key));
    const signed = issuer === null || cert.verify(new X509Certificate(issuer).publicKey);
    // An authority must outlive the certificates it signs.
    const needed = (issuer === null ? SERVER_DAYS : RENEW_BEFORE_DAYS) * DAY_MS;
    return begun && matches && signed && left > needed ? pair : null;
  } catch {
    // A damaged file is replaced like a missing one: nothing but this certificate depends on it.
    return null;
  }
}

async function makeAuthority(clock: Clock): Promise<Pair> {
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const cert = await X509CertificateGenerator.createSelfSigned({
    name: "CN=Stillpoint local authority",
    ...validity(clock, CA_DAYS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return pairOf(keys.privateKey, cert);
}

async function makeServer(ca: Pair, clock: Clock): Promise<Pair> {
  const authority = new Issued(ca.cert);
  const signingKey = await webcrypto.subtle.importKey("pkcs8", derOf(ca.key), ALGORITHM, false, ["sign"]);
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const cert = await X509CertificateGenerator.create({
    subject: "CN=localhost",
    issuer: authority.subject,
    ...validity(clock, SERVER_DAYS),
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension([
        { type: "dns", value: "localhost" },
        { type: "ip", value: "127.0.0.1" },
        { type: "ip", value: "::1" },
      ]),
      await AuthorityKeyIdentifierExtension.create(authority.publicKey),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return pairOf(keys.privateKey, cert);
}

/** Begins a day early: clocks of clients differ. */
function validity(clock: Clock, days: number): { readonly notBefore: Date; readonly notAfter: Date } {
  const now = clock.now().getTime();
  return { notBefore: new Date(now - DAY_MS), notAfter: new Date(now + days * DAY_MS) };
}

async function pairOf(privateKey: webcrypto.CryptoKey, cert: Issued): Promise<Pair> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", privateKey));
  const lines = der.toString("base64").replace(/(.{64})(?!$)/g, "$1\n");
  return {
    key: `-----BEGIN PRIVATE KEY-----\n${lines}\n-----END PRIVATE KEY-----\n`,
    cert: `${cert.toString("pem").trim()}\n`,
  };
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ""), "base64");
}
