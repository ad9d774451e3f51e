import { join } from "node:path";
import { replaceFile } from "../../base/index.ts";

/** What the command line needs to reach this service: `{dataDir}/client.json`. */
export interface ClientFile {
  readonly url: string;
  readonly tokenFile: string;
  readonly caFile: string;
}

/** Durable when it returns. It names files and holds no secret; the token file itself stays 0600. */
export async function writeClientFile(dataDir: string, client: ClientFile): Promise<string> {
  const path = join(dataDir, "client.json");
  await replaceFile(path, `${JSON.stringify(client, null, 2)}\n`, 0o644);
  return path;
}
