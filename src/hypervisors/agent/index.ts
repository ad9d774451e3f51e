export { type AgentOptions, connectAgent, type GuestAgent } from "./client.ts";
