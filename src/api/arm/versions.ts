import { StillpointError } from "../../base/index.ts";

export type VersionFamily = "resources" | "compute" | "disk" | "stillpoint";

const list = (versions: string): readonly string[] => versions.trim().split(/\s+/);

/** Api-versions by the resource provider that owns the type: those of Azure's published specifications. */
const VERSIONS: Readonly<Record<VersionFamily, readonly string[]>> = {
  resources: list(`
    2014-04-01 2015-11-01 2016-06-01 2016-09-01 2017-05-10 2018-05-01 2018-06-01 2019-03-01
    2019-05-01 2019-05-10 2019-06-01 2019-07-01 2019-08-01 2019-10-01 2019-11-01 2020-01-01
    2020-06-01 2020-08-01 2020-10-01 2021-01-01 2021-04-01 2022-09-01 2022-12-01 2023-07-01
    2024-03-01 2024-07-01 2024-11-01 2025-03-01 2025-04-01
  `),
  compute: list(`
    2021-03-01 2021-04-01 2021-07-01 2021-11-01 2022-03-01 2022-08-01 2022-11-01 2023-03-01
    2023-07-01 2023-09-01 2024-03-01 2024-07-01 2024-11-01 2025-04-01 2025-11-01 2026-03-01
    2026-04-01
  `),
  disk: list(`
    2020-09-30 2020-12-01 2021-04-01 2021-08-01 2021-12-01 2022-03-02 2022-07-02 2023-01-02
    2023-04-02 2023-10-02 2024-03-02 2025-01-02 2026-03-02
  `),
  /** Our own providers. */
  stillpoint: ["2026-11-01"],
};

/**
 * The request's api-version, checked against what the type supports. Errors carry ARM's own texts:
 * MissingApiVersionParameter, InvalidApiVersionParameter (ARM's types), NoRegisteredProviderFound (a provider's).
 */
export function checkVersion(
  version: string | undefined,
  families: readonly VersionFamily[],
  type: string,
  region: string,
): string {
  if (version === undefined || version === "")
    throw new StillpointError(
      "MissingApiVersionParameter",
      "The api-version query parameter (?api-version=) is required for all requests.",
      { target: "api-version" },
    );
  const supported = [...new Set(families.flatMap((family) => [...VERSIONS[family]]))].sort();
  if (supported.includes(version)) return version;
  const list = supported.join(", ");
  const shown = version.slice(0, 40);
  if (families.includes("resources"))
    throw new StillpointError(
      "InvalidApiVersionParameter",
      `The api-version '${shown}' is invalid. The supported versions are '${supported.join(",")}'.`,
      { target: "api-version" },
    );
  throw new StillpointError(
    "NoRegisteredProviderFound",
    `No registered resource provider found for location '${region}' and API version '${shown}' for type '${type}'. ` +
      `The supported api-versions are '${list}'. The supported locations are '${region}'.`,
    { target: "api-version" },
  );
}
