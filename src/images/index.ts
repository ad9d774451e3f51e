export { createImages, type ImagesOptions } from "./images.ts";
export { imageFacts } from "./inspect.ts";
export { newImage } from "./make.ts";
export { createNvramStore, type NvramStore } from "./nvram.ts";
export { partialPath, publish, removeFile, removePartials } from "./publish.ts";
