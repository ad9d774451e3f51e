/** Bytes of an id that the index keeps: 128 bits of an HMAC do not collide, and a hit is checked in the pack anyway. */
export const PREFIX_BYTES = 16;

const WORDS = 5; // four of the prefix, one value
const MAX_FILL = 0.7;

/**
 * Id prefixes → numbers, in one typed array (20 bytes an entry instead of ~150 in a Map). The same prefix may stand
 * in it several times with different values. Values are ≥ 0 and < 2³² − 1.
 */
export class IdTable {
  #words: Uint32Array;
  #mask: number;
  #size = 0;

  constructor(capacity = 1024) {
    let slots = 16;
    while (slots * MAX_FILL < capacity) slots *= 2;
    this.#words = new Uint32Array(slots * WORDS);
    this.#mask = slots - 1;
  }

  get size(): number {
    return this.#size;
  }

  add(id: Buffer, value: number): void {
    if (this.#size >= (this.#mask + 1) * MAX_FILL) this.#grow();
    this.#insert(id.readUInt32LE(0), id.readUInt32LE(4), id.readUInt32LE(8), id.readUInt32LE(12), value);
  }

  has(id: Buffer): boolean {
    return this.find(id) !== undefined;
  }

  /** The value for which `accept` holds first, or the first at all. */
  find(id: Buffer, accept?: (value: number) => boolean): number | undefined {
    const words = this.#words;
    const [a, b, c, d] = [id.readUInt32LE(0), id.readUInt32LE(4), id.readUInt32LE(8), id.readUInt32LE(12)];
    for (let slot = a & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = slot * WORDS;
      const stored = words[at + 4] as number;
      if (stored === 0) return undefined;
      if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d)
        if (!accept || accept(stored - 1)) return stored - 1;
    }
  }

  /** Calls `visit` with a view of each prefix, valid during the call only. */
  forEach(visit: (prefix: Buffer, value: number) => void): void {
    const prefix = Buffer.alloc(PREFIX_BYTES);
    for (let at = 0; at < this.#words.length; at += WORDS) {
      const stored = this.#words[at + 4] as number;
      if (stored === 0) continue;
      for (let word = 0; word < 4; word++) prefix.writeUInt32LE(this.#words[at + word] as number, word * 4);
      visit(prefix, stored - 1);
    }
  }

  #insert(a: number, b: number, c: number, d: number, value: number): void {
    const words = this.#words;
    let slot = a & this.#mask;
    while (words[slot * WORDS + 4] !== 0) slot = (slot + 1) & this.#mask;
    const at = slot * WORDS;
    words[at] = a;
    words[at + 1] = b;
    words[at + 2] = c;
    words[at + 3] = d;
    words[at + 4] = value + 1;
    this.#size++;
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(old.length * 2);
    this.#mask = this.#words.length / WORDS - 1;
    this.#size = 0;
    for (let at = 0; at < old.length; at += WORDS) {
      const [a, b, c, d, stored] = old.subarray(at, at + WORDS) as unknown as [number, number, number, number, number];
      if (stored !== 0) this.#insert(a, b, c, d, stored - 1);
    }
  }
}
