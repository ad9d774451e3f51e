export { ensureCertificate, type ServerCertificate } from "./access/certificate.ts";
export { type ClientFile, writeClientFile } from "./access/clientFile.ts";
export { ensureToken } from "./access/token.ts";
export { type Api, type ApiLog, type ApiOptions, createApi } from "./server.ts";
