import { StillpointError } from "../../base/index.ts";
import { damaged } from "../format/object.ts";
import { checkName, type Storage } from "./storage.ts";

/** Objects in memory: for simulations. `objects` may be looked at and damaged by a test. */
export interface MemoryStorage extends Storage {
  readonly objects: Map<string, Buffer>;
}

export function memoryStorage(objects = new Map<string, Buffer>()): MemoryStorage {
  const found = (name: string) => {
    const object = objects.get(checkName(name));
    if (!object) throw new StillpointError("NotFound", `${name} is not in the repository.`, { target: name });
    return object;
  };
  return {
    objects,
    begin: async (name) => {
      checkName(name);
      const parts: Buffer[] = [];
      return {
        append: async (added) => {
          for (const part of added) parts.push(Buffer.from(part));
        },
        commit: async () => {
          objects.set(name, Buffer.concat(parts));
        },
        abort: async () => {},
      };
    },
    create: async (name, content) => {
      const there = objects.get(checkName(name));
      if (there) return there.equals(content) ? "same" : "other";
      objects.set(name, Buffer.from(content));
      return "created";
    },
    readRange: async (name, offset, length) => {
      const object = found(name);
      if (offset + length > object.length) throw damaged(name, "it is shorter than it must be");
      return Buffer.from(object.subarray(offset, offset + length));
    },
    read: async (name) => {
      const object = objects.get(checkName(name));
      return object ? Buffer.from(object) : null;
    },
    size: async (name) => objects.get(checkName(name))?.length ?? null,
    list: async function* (folder) {
      const prefix = `${checkName(folder.replace(/\/$/, ""))}/`;
      for (const [name, object] of [...objects]) if (name.startsWith(prefix)) yield { name, sizeBytes: object.length };
    },
    delete: async (name) => {
      objects.delete(checkName(name));
    },
    close: async () => {},
  };
}
