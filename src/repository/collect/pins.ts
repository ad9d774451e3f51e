import type { Pack } from "../index/packs.ts";
import type { TreeRef } from "../types.ts";

/**
 * What one open writer or reader keeps alive. A writer pins the packs it made, the packs in which it found chunks it
 * did not write again, its anchors and its manifest; it does so in the same step of the event loop that decided it.
 */
export interface Pins {
  readonly trees: Set<TreeRef>;
  readonly packs: Set<Pack>;
  readonly packIds: Set<string>;
  readonly manifests: Set<string>;
}

interface Holder extends Pins {
  /** The collection count at its end; null while open. */
  closedAt: number | null;
  readonly openedAt: number;
}

/**
 * The pins of all writers and readers. A closed writer's pins hold until a collection that began after the close has
 * ended: whoever asked for a collection may have listed the live points just before this one was committed.
 */
export class PinBoard {
  readonly #holders = new Set<Holder>();
  /** Collections begun so far. */
  #collections = 0;

  /** A reader's pins end with it; `close` is called once. */
  openReader(): { readonly pins: Pins; close(): void } {
    const holder = this.#open();
    return { pins: holder, close: () => this.#holders.delete(holder) };
  }

  openWriter(): { readonly pins: Pins; close(): void } {
    const holder = this.#open();
    return {
      pins: holder,
      close: () => {
        holder.closedAt ??= this.#collections;
      },
    };
  }

  #open(): Holder {
    const holder: Holder = {
      trees: new Set(),
      packs: new Set(),
      packIds: new Set(),
      manifests: new Set(),
      closedAt: null,
      openedAt: this.#collections,
    };
    this.#holders.add(holder);
    return holder;
  }

  all(): Iterable<Pins> {
    return this.#holders;
  }

  /** The number of this collection. */
  beginCollection(): number {
    return ++this.#collections;
  }

  /** After collection `number`: lets those go that closed before it began. */
  endCollection(number: number): void {
    for (const holder of this.#holders)
      if (holder.closedAt !== null && holder.closedAt < number) this.#holders.delete(holder);
  }

  /** Whether someone is still open who began before collection `number` ended. */
  openSince(number: number): boolean {
    for (const holder of this.#holders) if (holder.closedAt === null && holder.openedAt <= number) return true;
    return false;
  }
}
