import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  against,
  cat,
  context,
  GREETING,
  info,
  optionReply,
  type Script,
  SIZE,
  u16,
  u32,
  u64,
} from "./testing/hostile-server.ts";

const broke = (what: RegExp) => (error: Error & { code?: string }) => {
  assert.equal(error.code, "HypervisorUnavailable", error.message);
  assert.match(error.message, what);
  return true;
};

describe("a handshake that breaks the protocol", () => {
  const cases: readonly [string, Script, RegExp][] = [
    ["another greeting", { greeting: Buffer.from("SSH-2.0-OpenSSH_9.2 ") }, /does not greet/],
    ["oldstyle", { greeting: cat(u64(0x4e42444d41474943n), u64(0x420281861253n), u16(3)) }, /oldstyle/],
    ["no fixed newstyle", { greeting: cat(GREETING.subarray(0, 16), u16(2)) }, /fixed newstyle/],
    ["a wrong magic", { structured: cat(u64(1), u32(8), u32(1), u32(0)) }, /wrong magic/],
    ["an answer to another option", { structured: optionReply(7, 1) }, /another option/],
    [
      "an overlong answer",
      { structured: cat(u64(0x0003e889045565a9n), u32(8), u32(1), u32(0xffffffff)) },
      /claims 4294967295/,
    ],
    ["an acknowledgement with data", { structured: optionReply(8, 1, u32(0)) }, /something else/],
    ["no structured replies", { structured: optionReply(8, 0x80000001) }, /no structured replies/],
    ["a foreign context", { contexts: cat(context(5, "x:y"), optionReply(10, 1)) }, /not asked for/],
    [
      "a context twice",
      { contexts: cat(context(5, "base:allocation"), context(6, "base:allocation")) },
      /not asked for/,
    ],
    ["a context without a name", { contexts: optionReply(10, 4, u32(1)) }, /malformed/],
    ["no context", { contexts: optionReply(10, 1) }, /has no meta context 'base:allocation'/],
    ["no size", { go: optionReply(7, 1) }, /did not tell the size/],
    ["an absurd size", { go: cat(info(1n << 63n, 1), optionReply(7, 1)) }, /claims a size/],
    ["no flags", { go: cat(info(SIZE, 0), optionReply(7, 1)) }, /no transmission flags/],
    ["a short information", { go: optionReply(7, 3, u16(0)) }, /wrong length/],
    ["an empty information", { go: optionReply(7, 3) }, /malformed/],
    ["odd blocks", { go: optionReply(7, 3, cat(u16(3), u32(3), u32(4096), u32(1 << 20))) }, /minimum block size of 3/],
    ["no blocks", { go: optionReply(7, 3, cat(u16(3), u32(0), u32(4096), u32(1 << 20))) }, /minimum block size of 0/],
    ["a tiny payload", { go: optionReply(7, 3, cat(u16(3), u32(1), u32(1), u32(1))) }, /maximum payload of 1/],
    [
      "endless information",
      { go: cat(...Array.from({ length: 80 }, () => optionReply(7, 3, u16(9)))) },
      /does not end/,
    ],
    [
      "no such export",
      { go: optionReply(7, 0x80000006, Buffer.from("none\n\x1b[31m")) },
      /declines the export of 'x': none\?\?\[31m/,
    ],
  ];
  for (const [what, script, error] of cases)
    test(what, () => against(script, (connect) => assert.rejects(connect(), broke(error))));

  test("silence ends at the deadline", () =>
    against({ greeting: Buffer.alloc(0) }, (connect) =>
      assert.rejects(connect({ requestTimeoutMs: 50 }), { code: "DeadlineExceeded" }),
    ));
});

const chunk = (handle: Buffer, flags: number, type: number, payload: Buffer) =>
  cat(u32(0x668e33ef), u16(flags), u16(type), handle, u32(payload.length), payload);
const data = (handle: Buffer, offset: number | bigint, length: number, flags = 0) =>
  chunk(handle, flags, 1, cat(u64(offset), Buffer.alloc(length, 0xab)));
const hole = (handle: Buffer, offset: number, length: number) => chunk(handle, 0, 2, cat(u64(offset), u32(length)));
const done = (handle: Buffer) => chunk(handle, 1, 0, Buffer.alloc(0));
const OTHER = u64(0xdeadbeefn);
const HUGE = u64(0xffff_ffff_ffff_ffffn);

describe("an answer to a read that breaks the protocol", () => {
  const cases: readonly [string, (handle: Buffer) => Buffer, RegExp][] = [
    ["a wrong magic", () => Buffer.alloc(64, 1), /wrong magic/],
    ["an unknown handle", () => data(OTHER, 4096, 8192, 1), /was not made/],
    ["a huge handle", () => data(HUGE, 4096, 8192, 1), /was not made/],
    ["a simple reply", (h) => cat(u32(0x67446698), u32(0), h, Buffer.alloc(8192)), /simple reply/],
    ["data before the request", (h) => data(h, 4095, 8192, 1), /outside the request/],
    ["data after the request", (h) => data(h, 4096 + 8192, 512, 1), /outside the request/],
    ["data over the end", (h) => data(h, 4096 + 512, 8192, 1), /outside the request/],
    ["data at 2^64", (h) => data(h, (1n << 64n) - 1n, 512, 1), /outside the request/],
    [
      "a length of 4 GiB",
      (h) => cat(u32(0x668e33ef), u16(1), u16(1), h, u32(0xffffffff), u64(4096)),
      /outside the request/,
    ],
    ["no data in data", (h) => data(h, 4096, 0, 1), /without data/],
    ["the same twice", (h) => cat(data(h, 4096, 512), data(h, 4096, 512)), /twice/],
    ["an overlap", (h) => cat(data(h, 4096, 1024), data(h, 4096 + 4096, 1024), data(h, 4096 + 512, 1024)), /twice/],
    [
      "an overlap over a gap",
      (h) => cat(data(h, 4096, 512), data(h, 4096 + 4096, 512), data(h, 4096 + 1024, 3584)),
      /twice/,
    ],
    ["a hole over data", (h) => cat(data(h, 4096, 8192), hole(h, 4096, 8192)), /twice/],
    ["an empty hole", (h) => hole(h, 4096, 0), /outside the request/],
    ["a huge hole", (h) => hole(h, 4096, 0xffffffff), /outside the request/],
    ["a long hole chunk", (h) => chunk(h, 0, 2, Buffer.alloc(13)), /hole chunk of a wrong length/],
    ["nothing at all", (h) => done(h), /left bytes of a read out/],
    ["only a half", (h) => cat(data(h, 4096, 4096), done(h)), /left bytes of a read out/],
    [
      "all but the middle",
      (h) => cat(data(h, 4096, 4096), data(h, 4096 + 4608, 3584), done(h)),
      /left bytes of a read out/,
    ],
    ["crumbs", (h) => cat(...Array.from({ length: 100 }, (_, n) => data(h, 4096 + n, 1))), /too many pieces/],
    ["an empty chunk that does not end", (h) => chunk(h, 0, 0, Buffer.alloc(0)), /empty chunk/],
    ["an empty chunk with data", (h) => chunk(h, 1, 0, u32(1)), /empty chunk/],
    ["an unknown type", (h) => chunk(h, 1, 77, u32(1)), /unknown type 77/],
    ["block status", (h) => chunk(h, 1, 5, cat(u32(5), u32(512), u32(0))), /not asked for/],
    ["a short error", (h) => chunk(h, 1, 0x8001, u32(5)), /error chunk of a wrong length/],
    [
      "a huge error",
      (h) => cat(u32(0x668e33ef), u16(1), u16(0x8001), h, u32(0x7fffffff)),
      /error chunk of a wrong length/,
    ],
    ["an error that is none", (h) => chunk(h, 1, 0x8001, cat(u32(0), u16(0))), /without an error/],
    [
      "an error with too long a message",
      (h) => chunk(h, 1, 0x8001, cat(u32(5), u16(9), u32(0))),
      /longer than its chunk/,
    ],
    ["a second answer", (h) => cat(data(h, 4096, 8192, 1), data(h, 4096, 8192, 1)), /was not made/],
  ];
  for (const [what, answer, error] of cases)
    test(what, () =>
      against({ answer: (handle) => answer(handle) }, async (connect) => {
        const client = await connect();
        const first = client.read(4096, 8192);
        const last = what === "a second answer" ? first.then(() => client.read(4096, 8192)) : first;
        await assert.rejects(last, broke(error));
        await assert.rejects(client.read(0, 512), broke(error), "the connection is closed for good");
      }),
    );

  test("every outstanding and every waiting request is rejected with the reason", () =>
    against({ answer: (_, { offset }) => (offset === 512 ? data(OTHER, 0, 512, 1) : null) }, async (connect) => {
      const client = await connect({ depth: 2 });
      const reads = [0, 512, 1024, 4096].map((offset) => client.read(offset, 512));
      await Promise.all(reads.map((read) => assert.rejects(read, broke(/was not made/))));
    }));

  test("closing rejects what is outstanding and what waits", () =>
    against({ answer: () => null }, async (connect) => {
      const client = await connect({ depth: 2 });
      const reads = [0, 512, 1024, 4096].map((offset) => client.read(offset, 512));
      const rejected = Promise.all(reads.map((read) => assert.rejects(read, /was closed/)));
      await client.close();
      await rejected;
      await assert.rejects(client.flush(), /was closed/);
    }));

  test("a late answer ends the connection", () =>
    against({ answer: () => null }, async (connect) => {
      const client = await connect({ requestTimeoutMs: 60 });
      await assert.rejects(client.read(0, 512), { code: "DeadlineExceeded" });
      await assert.rejects(client.read(0, 512), { code: "DeadlineExceeded" });
    }));

  test("chunks in any order, holes among them, are right", () =>
    against(
      {
        answer: (h) =>
          cat(
            data(h, 4096 + 4096, 512),
            data(h, 4096, 512),
            hole(h, 4096 + 512, 3584),
            hole(h, 4096 + 4608, 3584),
            done(h),
          ),
      },
      async (connect) => {
        const client = await connect();
        const truth = Buffer.alloc(8192).fill(0xab, 0, 512).fill(0xab, 4096, 4608);
        for (let n = 0; n < 3; n++) {
          const target = Buffer.alloc(8192, 0xee);
          await client.readInto(4096, target);
          assert.ok(target.equals(truth));
        }
      },
    ));

  test("an honest error ends the request alone, with the server's words", () =>
    against(
      {
        answer: (h, { offset }) =>
          offset === 0
            ? cat(data(h, 0, 512), chunk(h, 0, 0x8002, cat(u32(5), u16(3), Buffer.from("bad"), u64(512))), done(h))
            : data(h, offset, 512, 1),
      },
      async (connect) => {
        const client = await connect();
        await assert.rejects(client.read(0, 1024), {
          code: "InternalError",
          message: "NBD read of 1024 bytes at 0 failed: input/output error (bad).",
        });
        assert.equal((await client.read(512, 512))[0], 0xab);
      },
    ));

  test("a server without structured replies is read too", () =>
    against(
      {
        structured: optionReply(8, 0x80000001),
        answer: (h, { offset, length }) =>
          offset === 0 ? cat(u32(0x67446698), u32(28), h) : cat(u32(0x67446698), u32(0), h, Buffer.alloc(length, 7)),
      },
      async (connect) => {
        const client = await connect({ metaContexts: [] });
        assert.ok((await client.read(512, 4096)).equals(Buffer.alloc(4096, 7)));
        await assert.rejects(client.read(0, 512), { code: "InsufficientSpace" });
        assert.ok((await client.read(1024, 512)).equals(Buffer.alloc(512, 7)));
      },
    ));
});

describe("block status that breaks the protocol", () => {
  const status = (handle: Buffer, id: number, runs: readonly (readonly [number, number])[], flags = 1) =>
    chunk(handle, flags, 5, cat(u32(id), ...runs.flatMap(([length, state]) => [u32(length), u32(state)])));
  const cases: readonly [string, (handle: Buffer) => Buffer, RegExp][] = [
    ["an unknown context", (h) => status(h, 6, [[SIZE, 0]]), /unknown meta context/],
    ["no context", (h) => done(h), /left a meta context out/],
    ["a context twice", (h) => cat(status(h, 5, [[512, 0]], 0), status(h, 5, [[512, 0]])), /twice/],
    [
      "a run of length 0",
      (h) =>
        status(h, 5, [
          [512, 0],
          [0, 0],
        ]),
      /length 0/,
    ],
    ["a run beyond the export", (h) => status(h, 5, [[SIZE + 1, 0]]), /beyond the end/],
    [
      "runs beyond the export",
      (h) =>
        status(h, 5, [
          [SIZE / 2 - 512, 0],
          [0xffffffff, 0],
        ]),
      /beyond the end/,
    ],
    [
      "runs beyond the request",
      (h) =>
        status(h, 5, [
          [SIZE / 2, 0],
          [512, 0],
        ]),
      /beyond the request/,
    ],
    ["no run", (h) => chunk(h, 1, 5, u32(5)), /wrong length/],
    ["a broken run", (h) => chunk(h, 1, 5, cat(u32(5), u32(512), u32(0), u32(1))), /wrong length/],
    ["an endless chunk", (h) => cat(u32(0x668e33ef), u16(1), u16(5), h, u32(0x10_0000 + 12)), /wrong length/],
    ["data", (h) => data(h, 0, 512, 1), /reads none/],
    ["a hole", (h) => hole(h, 0, 512), /reads none/],
    ["a simple reply", (h) => cat(u32(0x67446698), u32(0), h), /simple reply/],
  ];
  for (const [what, answer, error] of cases)
    test(what, () =>
      against({ answer: (handle) => answer(handle) }, async (connect) => {
        const client = await connect();
        const walk = async () => {
          for await (const _ of client.extents("base:allocation", 0, SIZE / 2));
        };
        await assert.rejects(walk, broke(error));
      }),
    );

  test("a last run may reach beyond the request, and short answers are asked on", () =>
    against(
      {
        answer: (h, { offset }) =>
          status(
            h,
            5,
            offset === 0
              ? [[512, 3]]
              : offset === 512
                ? [
                    [512, 3],
                    [1024, 1],
                  ]
                : [[SIZE - 2048, 1]],
          ),
      },
      async (connect) => {
        const client = await connect();
        const runs = [];
        for await (const { offset, length, flags } of client.extents("base:allocation", 0, 8192))
          runs.push([offset, length, flags]);
        assert.deepEqual(runs, [
          [0, 1024, 3],
          [1024, 7168, 1],
        ]);
        await assert.rejects(async () => {
          for await (const _ of client.extents("qemu:dirty-bitmap:x", 0, 512));
        }, /was not asked for/);
      },
    ));
});

describe("an answer to a write that breaks the protocol", () => {
  const cases: readonly [string, (handle: Buffer) => Buffer, RegExp][] = [
    ["data", (h) => data(h, 0, 512, 1), /reads none/],
    ["an unknown handle", () => cat(u32(0x67446698), u32(0), OTHER), /was not made/],
  ];
  for (const [what, answer, error] of cases)
    test(what, () =>
      against({ answer: (handle) => answer(handle) }, async (connect) => {
        await assert.rejects((await connect()).write(0, Buffer.alloc(512)), broke(error));
      }),
    );

  test("both kinds of reply are taken; commands the export does not offer are refused here", () => {
    let n = 0;
    const script: Script = {
      go: cat(info(SIZE, 1), optionReply(7, 1)),
      answer: (h) => (++n % 2 ? cat(u32(0x67446698), u32(0), h) : done(h)),
    };
    return against(script, async (connect) => {
      const client = await connect();
      for (let at = 0; at < 4; at++) await client.write(at * 512, Buffer.alloc(512));
      for (const work of [() => client.flush(), () => client.zero(0, 512), () => client.trim(0, 512)])
        await assert.rejects(work, { code: "InternalError", message: /does not take a/ });
    });
  });
});
