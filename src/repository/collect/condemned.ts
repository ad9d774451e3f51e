import { type Random, StillpointError } from "../../base/index.ts";
import type { RepositoryKey } from "../../keys/index.ts";
import { NO_DOMAIN } from "../format/object.ts";
import { openSealed, sealObject } from "../format/sealed.ts";
import type { PackSet } from "../index/packs.ts";
import type { Storage } from "../storage/storage.ts";

const FOLDER = "condemned/";

/**
 * What a collection found dead and a later one may sweep, by the number of the collection that condemned it; zero for
 * those of an earlier life of the service, whose writers are all gone.
 */
export interface Condemned {
  readonly packs: Map<string, number>;
  readonly manifests: Map<string, number>;
  /** Notes the present state, so that a restart need not begin anew. Nothing unsafe comes of losing it. */
  save(): Promise<void>;
}

interface Note {
  readonly packs: readonly string[];
  readonly manifests: readonly string[];
}

/** A damaged note only means that its packs have to be found dead again. */
function readNote(key: RepositoryKey, name: string, bytes: Buffer): Note {
  try {
    const { content } = openSealed(key.secret, bytes, name, { kind: "condemned", repositoryId: key.repositoryId });
    return JSON.parse(content.toString("utf8")) as Note;
  } catch (error) {
    if (!(error instanceof StillpointError)) throw error;
    return { packs: [], manifests: [] };
  }
}

export async function loadCondemned(
  storage: Storage,
  key: RepositoryKey,
  epoch: number,
  random: Random,
  packs: PackSet,
): Promise<Condemned> {
  const { repositoryId, secret } = key;
  let names: string[] = [];
  let saved = "";
  const condemned = { packs: new Map<string, number>(), manifests: new Map<string, number>() };
  for await (const { name } of storage.list(FOLDER)) {
    names.push(name);
    const bytes = await storage.read(name);
    if (!bytes) continue;
    const note = readNote(key, name, bytes);
    for (const id of note.packs) {
      const pack = packs.get(id);
      if (!pack) continue;
      pack.condemned = true;
      condemned.packs.set(id, 0);
    }
    for (const hash of note.manifests) condemned.manifests.set(hash, 0);
  }
  return {
    ...condemned,
    save: async () => {
      const note = { packs: [...condemned.packs.keys()].sort(), manifests: [...condemned.manifests.keys()].sort() };
      const text = JSON.stringify(note);
      if (text === saved) return;
      const before = names;
      const name = `${FOLDER}${random.bytes(16).toString("hex")}`;
      if (note.packs.length > 0 || note.manifests.length > 0) {
        const bytes = sealObject(secret, random.bytes(32), name, {
          header: { kind: "condemned", epoch, repositoryId, domain: NO_DOMAIN },
          clear: Buffer.alloc(0),
          content: Buffer.from(text),
        });
        await storage.create(name, bytes);
        names = [name];
      } else names = [];
      saved = text;
      for (const old of before) await storage.delete(old);
    },
  };
}
