import { z } from "zod";

const count = z.int().min(0);
const milliseconds = z.number().min(0);
const instant = z.iso.datetime({ offset: true });
const mode = z.enum(["CrashConsistent", "FileSystemConsistent", "ApplicationConsistent"]);

const diskRecord = z.object({
  diskId: z.string(),
  method: z.enum(["pull", "push", "offline"]),
  kind: z.enum(["full", "incremental", "full-compared"]),
  fullReason: z.string().nullable(),
  sizeBytes: count,
  bytesRead: count,
  newStoredBytes: count,
  changedChunks: count,
  sampledChunks: count,
  sampleMismatches: count,
});

/** Schema version 1 of a point's record, as it is answered. Members without a value yet are absent. */
export const recordProperties = z.object({
  provisioningState: z.string(),
  percent: z.int().min(0).max(100),
  pointUid: z.uuid(),
  vmUid: z.uuid(),
  vmId: z.string(),
  timeCreated: instant,
  takenAt: instant.optional(),
  manifest: z.string().optional(),
  error: z.object({ code: z.string(), message: z.string() }).optional(),
  record: z
    .object({
      schema: z.literal(1),
      requestedMode: mode.nullable(),
      reachedMode: mode,
      modeReason: z.string(),
      startedAt: instant,
      pointInTimeAt: instant,
      timeToPointInTimeMs: milliseconds,
      timeToDurableMs: milliseconds,
      transactionMs: milliseconds,
      stallMs: milliseconds,
      freeze: z
        .object({
          frozenFilesystems: count,
          thawedFilesystems: count,
          freezeMs: milliseconds,
          thawMs: milliseconds,
          frozenMs: milliseconds,
        })
        .nullable(),
      hypervisor: z.object({
        qemuVersion: z.string(),
        accelerator: z.enum(["kvm", "tcg"]).nullable(),
        statusAtInstant: z.string(),
      }),
      disks: z.array(diskRecord),
      excludedDisks: z.array(z.string()),
      notCaptured: z.array(z.string()),
      alarms: z.array(z.string()),
    })
    .optional(),
});
