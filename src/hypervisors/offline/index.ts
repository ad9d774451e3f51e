export {
  createOfflineExports,
  type OfflineExport,
  type OfflineExports,
  type OfflineImage,
  type OfflineOptions,
} from "./exports.ts";
