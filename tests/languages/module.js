// What the SDKs of all languages have to do alike: each letter of a record's key is something that is done with it.

import { defineModule, text } from "./weir-sdk/weir.js";

export const transform = defineModule({
  about: "Does what the letters of a key say.",
  columns: ["keys", "values"],
  process(batch, out) {
    for (const record of batch) {
      for (const letter of text(record.key)) {
        if (letter === "v") out.emit(record, { value: "v" });
        if (letter === "k") out.emit(record, { key: "new", value: "k" });
        if (letter === "0") out.emit(record, { value: null });
        if (letter === "t") out.emit(record, { value: "v", timestamp: Number(record.timestamp) + 1 });
        if (letter === "#") {
          const n = record.json()?.n;
          if (Number.isFinite(n)) out.emit(record, { value: { n } });
          else out.reject(record, "no number");
        }
        if (letter === "!") {
          try {
            out.emit(record, { key: "new", value: 10n });
          } catch {
            out.reject(record, "not to be said");
          }
        }
        if (letter === "?") {
          for (const other of batch) if (other.index > record.index) break;
          for (const other of batch) other.value;
          throw new Error("told of the record");
        }
      }
    }
  },
});
