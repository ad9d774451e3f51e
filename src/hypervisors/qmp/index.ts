export { connectQmp, type QmpClient, type QmpEvent, type QmpOptions } from "./client.ts";
export { foreignText, QmpError } from "./errors.ts";
