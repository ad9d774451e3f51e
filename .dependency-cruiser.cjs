/**
 * The arrows between the folders of src: they run down and never up, and a folder is entered only by its public file.
 * The table is the rule; docs/architecture.md says why.
 */
const MAY_IMPORT = {
  base: [],
  config: ["base"],
  keys: ["base"],
  nbd: ["base"],
  domain: ["base"],
  images: ["base", "domain"],
  hypervisors: ["base", "images"],
  guard: ["base", "hypervisors"],
  repository: ["base", "keys"],
  catalog: ["base", "domain"],
  machines: ["base", "domain", "guard"],
  capture: ["base", "domain", "guard", "nbd", "images", "repository", "hypervisors"],
  recovery: ["base", "domain", "guard", "nbd", "images", "repository", "hypervisors"],
  api: ["base", "domain"],
  cli: ["base"],
  programs: ["base", "config", "keys", "domain", "images", "hypervisors", "guard", "repository", "catalog", "machines", "capture", "recovery", "api", "cli"],
};

/** What outsiders may import of a folder. The guard's wire is public; its process is started by its program only. */
const PUBLIC_FILES = "^src/((?!guard/|hypervisors/)[^/]+/index|guard/protocol|hypervisors/[^/]+/index)[.]ts$";

const folders = Object.entries(MAY_IMPORT).map(([folder, allowed]) => ({
  name: `arrows-of-${folder}`,
  comment: `src/${folder} may import ${allowed.join(", ") || "nothing of ours"}.`,
  severity: "error",
  from: { path: `^src/${folder}/`, pathNot: "[.]test[.]ts$" },
  to: { path: "^src/", pathNot: `^src/(${[folder, ...allowed].join("|")})/` },
}));

/** @type {import("dependency-cruiser").IConfiguration} */
module.exports = {
  forbidden: [
    ...folders,
    {
      name: "every-folder-has-its-arrows",
      comment: "A new folder needs a line in the table above, and one in docs/architecture.md.",
      severity: "error",
      from: {},
      to: { path: "^src/", pathNot: `^src/(${Object.keys(MAY_IMPORT).join("|")})/` },
    },
    {
      name: "public-files-only",
      comment: "Import a folder's public file, not its insides.",
      severity: "error",
      from: { path: "^src/([^/]+)/", pathNot: "^src/programs/guard[.]ts$|[.]test[.]ts$" },
      to: { path: "^src/", pathNot: [PUBLIC_FILES, "^src/$1/"] },
    },
    {
      name: "guard-process-by-its-program",
      comment: "src/programs/guard.ts starts the guard's process; nobody else reaches into it.",
      severity: "error",
      from: { path: "^src/programs/guard[.]ts$" },
      to: { path: "^src/", pathNot: [PUBLIC_FILES, "^src/(guard/index|programs/.*)[.]ts$"] },
    },
    {
      name: "no-test-in-product",
      comment: "The product does not import tests or benchmarks.",
      severity: "error",
      from: { path: "^(src|setup)/", pathNot: "[.]test[.]ts$" },
      to: { path: "^(test|bench)/|[.]test[.]ts$" },
    },
    {
      name: "no-circles",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "nothing-unresolved", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node", "default"] },
  },
};
