import { deriveKey, KEY_BYTES, seal, unseal } from "../../keys/index.ts";
import { damaged, decodeObjectHeader, encodeObjectHeader, OBJECT_HEADER_BYTES, type ObjectHeader } from "./object.ts";

/**
 * A small sealed object: header | salt 32 | length of clear part u32 | clear part | ciphertext | tag.
 * Its key is derived from the repository key and the salt, so it seals this one object; the associated data is
 * everything before the ciphertext and the object's name, so neither kind, place nor clear part can be exchanged.
 */
export interface SealedContent {
  readonly header: ObjectHeader;
  /** Readable without the key, but not changeable. */
  readonly clear: Buffer;
  readonly content: Buffer;
}

const SALT_AT = OBJECT_HEADER_BYTES;
const CLEAR_LENGTH_AT = SALT_AT + KEY_BYTES;
const CLEAR_AT = CLEAR_LENGTH_AT + 4;

function sealingKey(secret: Uint8Array, salt: Uint8Array, header: ObjectHeader): Buffer {
  return deriveKey(secret, salt, `sealed/${header.kind}`);
}

/** `salt`: 32 fresh random bytes. `name`: the name in the repository, or "" for objects named by their hash. */
export function sealObject(secret: Uint8Array, salt: Buffer, name: string, object: SealedContent): Buffer {
  const clearLength = Buffer.alloc(4);
  clearLength.writeUInt32LE(object.clear.length);
  const front = Buffer.concat([encodeObjectHeader(object.header), salt, clearLength, object.clear]);
  const aad = Buffer.concat([front, Buffer.from(name, "utf8")]);
  return Buffer.concat([front, seal(sealingKey(secret, salt, object.header), 0, aad, object.content)]);
}

/** Throws RepositoryDamaged when one bit of the object, its kind, its name or its repository is not as it was sealed. */
export function openSealed(
  secret: Uint8Array,
  bytes: Buffer,
  name: string,
  expected: { readonly kind: ObjectHeader["kind"]; readonly repositoryId: string; readonly object?: string },
): SealedContent {
  const object = expected.object ?? name;
  const header = decodeObjectHeader(bytes, object, expected);
  if (bytes.length < CLEAR_AT) throw damaged(object, "it is cut short");
  const salt = bytes.subarray(SALT_AT, CLEAR_LENGTH_AT);
  const clearEnd = CLEAR_AT + bytes.readUInt32LE(CLEAR_LENGTH_AT);
  if (clearEnd > bytes.length) throw damaged(object, "it is cut short");
  const aad = Buffer.concat([bytes.subarray(0, clearEnd), Buffer.from(name, "utf8")]);
  const content = unseal(sealingKey(secret, salt, header), 0, aad, bytes.subarray(clearEnd));
  if (!content) throw damaged(object, "its seal does not hold");
  return { header, clear: bytes.subarray(CLEAR_AT, clearEnd), content };
}
