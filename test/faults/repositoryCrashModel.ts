/**
 * What a disk may hold after a power cut, given the system calls that were made until then. Only what an fsync of the
 * file, or of the directory for its names, made durable is certain; of everything else any part may be there or not,
 * in any order: writes whole, torn or missing, names new, old or gone.
 */
import { dirname, join, normalize } from "node:path";
import type { Files } from "../../src/repository/storage/files.ts";
import type { Seeded } from "../../src/repository/testing/seeded.ts";

/** One system call on the repository's folder; `mark` is something the program had promised by then. */
export type Op =
  | { readonly op: "create"; readonly path: string }
  | { readonly op: "write"; readonly path: string; readonly position: number; readonly data: Buffer }
  | { readonly op: "sync-file"; readonly path: string }
  | { readonly op: "sync-directory"; readonly path: string }
  | { readonly op: "rename"; readonly from: string; readonly to: string }
  | { readonly op: "link"; readonly from: string; readonly to: string }
  | { readonly op: "unlink"; readonly path: string }
  | { readonly op: "mkdir"; readonly path: string }
  | { readonly op: "mark"; readonly name: string };

/** Path → content. A directory has the content null. */
export type DiskState = Map<string, Buffer | null>;

interface Inode {
  /** What is certain. */
  durable: Buffer;
  pending: { readonly position: number; readonly data: Buffer }[];
}

type Node = Inode | "directory";
interface NameChange {
  readonly path: string;
  /** Null: the name goes. */
  readonly node: Node | null;
}

/** How much of what is uncertain came to be. */
export type Fate = "nothing" | "everything" | "names-only" | "data-only" | "any";
export const FATES: readonly Fate[] = ["nothing", "everything", "names-only", "data-only", "any", "any"];

/** One state that is legal after `ops`. */
export function crashState(base: DiskState, ops: readonly Op[], fate: Fate, random: Seeded): DiskState {
  const certain = new Map<string, Node>();
  const seen = new Map<string, Node>();
  const changes: NameChange[] = [];
  for (const [path, content] of base) {
    const node: Node = content === null ? "directory" : { durable: content, pending: [] };
    certain.set(path, node);
    seen.set(path, node);
  }
  const inode = (path: string): Inode => {
    const node = seen.get(path);
    if (!node || node === "directory") throw new Error(`${path} is no file in the recorded calls`);
    return node;
  };
  const change = (path: string, node: Node | null) => {
    if (node) seen.set(path, node);
    else seen.delete(path);
    changes.push({ path, node });
  };
  for (const op of ops) {
    switch (op.op) {
      case "create":
        change(op.path, { durable: Buffer.alloc(0), pending: [] });
        break;
      case "write":
        inode(op.path).pending.push(op);
        break;
      case "sync-file": {
        const file = inode(op.path);
        for (const write of file.pending.splice(0)) file.durable = written(file.durable, write);
        break;
      }
      case "sync-directory":
        for (let at = 0; at < changes.length; ) {
          const entry = changes[at] as NameChange;
          if (dirname(entry.path) !== op.path) at++;
          else {
            apply(certain, entry);
            changes.splice(at, 1);
          }
        }
        break;
      case "rename": {
        const node = inode(op.from);
        change(op.to, node);
        change(op.from, null);
        break;
      }
      case "link":
        change(op.to, inode(op.from));
        break;
      case "unlink":
        change(op.path, null);
        break;
      case "mkdir":
        change(op.path, "directory");
        break;
      case "mark":
        break;
    }
  }
  const comes = (what: "names" | "data") =>
    fate === "everything" || fate === `${what}-only` || (fate === "any" && random.below(2) === 0);
  for (const entry of changes) if (comes("names")) apply(certain, entry);
  return materialise(certain, (file) => {
    let content: Buffer = file.durable;
    for (const write of file.pending)
      if (comes("data")) {
        const torn = fate === "any" && random.below(3) === 0 ? random.below(write.data.length + 1) : write.data.length;
        content = written(content, { position: write.position, data: write.data.subarray(0, torn) });
      }
    return content;
  });
}

function apply(names: Map<string, Node>, { path, node }: NameChange): void {
  if (node) names.set(path, node);
  else names.delete(path);
}

function written(content: Buffer, write: { readonly position: number; readonly data: Buffer }): Buffer {
  const out = Buffer.alloc(Math.max(content.length, write.position + write.data.length));
  content.copy(out);
  write.data.copy(out, write.position);
  return out;
}

/** Names below a directory that is not there are not there either. */
function materialise(names: Map<string, Node>, contentOf: (file: Inode) => Buffer): DiskState {
  const state: DiskState = new Map();
  const reachable = (path: string): boolean => path === "." || (names.has(path) && reachable(dirname(path)));
  for (const [path, node] of names) if (reachable(path)) state.set(path, node === "directory" ? null : contentOf(node));
  return state;
}

/** A file system in memory over such a state; every call is told to `record`. */
export function memoryFiles(root: string, state: DiskState, record: (op: Op) => void = () => {}): Files {
  const inside = (path: string) => normalize(path === root ? "." : path.slice(root.length + 1));
  const fail = (code: string, path: string) => Object.assign(new Error(`${code}: ${path}`), { code });
  /** Content by name; a hard link shares the box. */
  const boxes = new Map<string, { content: Buffer } | null>();
  for (const [path, content] of state) boxes.set(path, content === null ? null : { content });
  const box = (path: string) => {
    const found = boxes.get(path);
    if (!found) throw fail("ENOENT", path);
    return found;
  };
  return {
    create: async (path) => {
      const name = inside(path);
      if (boxes.has(name)) throw fail("EEXIST", name);
      const file: { content: Buffer } = { content: Buffer.alloc(0) };
      boxes.set(name, file);
      record({ op: "create", path: name });
      return {
        write: async (position, parts) => {
          const data = Buffer.concat(parts.map((part) => Buffer.from(part)));
          file.content = written(file.content, { position, data });
          record({ op: "write", path: name, position, data });
        },
        sync: async () => record({ op: "sync-file", path: name }),
        close: async () => {},
      };
    },
    syncDirectory: async (path) => record({ op: "sync-directory", path: inside(path) }),
    rename: async (from, to) => {
      boxes.set(inside(to), box(inside(from)));
      boxes.delete(inside(from));
      record({ op: "rename", from: inside(from), to: inside(to) });
    },
    link: async (from, to) => {
      if (boxes.has(inside(to))) throw fail("EEXIST", to);
      boxes.set(inside(to), box(inside(from)));
      record({ op: "link", from: inside(from), to: inside(to) });
    },
    unlink: async (path) => {
      box(inside(path));
      boxes.delete(inside(path));
      record({ op: "unlink", path: inside(path) });
    },
    mkdir: async (path) => {
      if (boxes.has(inside(path))) throw fail("EEXIST", path);
      boxes.set(inside(path), null);
      record({ op: "mkdir", path: inside(path) });
    },
    read: async (path, offset, length) => Buffer.from(box(inside(path)).content.subarray(offset, offset + length)),
    size: async (path) => {
      const name = inside(path);
      if (name === "." || boxes.get(name) === null) return 0;
      return box(name).content.length;
    },
    walk: async function* (path) {
      const under = inside(path);
      for (const [name, file] of [...boxes])
        if (file && name.startsWith(`${under}/`))
          yield { path: name.slice(under.length + 1), sizeBytes: file.content.length };
    },
  };
}

/** The recorded folder's own path as the model's names: relative, with `.` for itself. */
export function relativeTo(root: string, path: string): string | null {
  if (path === root) return ".";
  return path.startsWith(`${root}/`) ? join(path.slice(root.length + 1)) : null;
}
