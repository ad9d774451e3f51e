import { captureSuite } from "./lib/captureSuite.ts";

captureSuite({ label: "the system's QEMU 7.2", iothreadMethod: "push" });
