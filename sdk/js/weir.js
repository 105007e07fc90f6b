// Modules for Weir in JavaScript: records as rows over the columns that cross the wall, and a builder for what becomes of them.
//
//     import { defineModule } from "./weir.js";
//
//     export const transform = defineModule({
//       about: "Keeps readings above a limit.",
//       parameters: { limit: { kind: "number", preset: 50, about: "Readings up to this are dropped." } },
//       init: (config) => ({ limit: config.limit }),
//       process(batch, out, { limit }) {
//         for (const record of batch) {
//           if (record.json()?.temperature > limit) out.keep(record);
//         }
//       },
//     });
//
// A module sees no clock, no random numbers, no files and no network. What it keeps in variables is a cache, since its instance may
// be replaced by a fresh one between any two batches; what it has to remember it keeps in `state.js`.

const encoder = typeof TextEncoder === "undefined" ? null : new TextEncoder();
const decoder = typeof TextDecoder === "undefined" ? null : new TextDecoder();

/** UTF-8 as text; what is none becomes U+FFFD. */
export function text(bytes) {
  if (decoder) return decoder.decode(bytes);
  // What most values are costs least.
  if (bytes.length < 4096) {
    const ascii = String.fromCharCode.apply(null, bytes);
    if (/^[\x00-\x7f]*$/.test(ascii)) return ascii;
  }
  try {
    let escaped = "";
    for (const byte of bytes) escaped += "%" + (byte + 256).toString(16).slice(1);
    return decodeURIComponent(escaped);
  } catch {
    return Array.from(bytes, (byte) => (byte < 128 ? String.fromCharCode(byte) : "\uFFFD")).join("");
  }
}

/** Text, bytes, or anything else as JSON, as bytes; `null` stays `null`. */
export function bytes(value) {
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return value;
  const string = typeof value === "string" ? value : JSON.stringify(value);
  if (encoder) return encoder.encode(string);
  const ascii = new Uint8Array(string.length);
  let i = 0;
  for (; i < string.length; i++) {
    const unit = string.charCodeAt(i);
    if (unit > 127) break;
    ascii[i] = unit;
  }
  if (i === string.length) return ascii;
  const escaped = encodeURIComponent(string);
  const out = [];
  for (let i = 0; i < escaped.length; i++) {
    if (escaped[i] === "%") {
      out.push(parseInt(escaped.slice(i + 1, i + 3), 16));
      i += 2;
    } else {
      out.push(escaped.charCodeAt(i));
    }
  }
  return Uint8Array.from(out);
}

/** The batch is tried again a little later. */
export class Retry extends Error {}
/** The pipeline stops until somebody looks. */
export class Fatal extends Error {}

/** Item `index` of a column: bytes, or `null`. */
export function item(column, index) {
  if (column.nulls && column.nulls[index]) return null;
  return column.data.subarray(index ? column.ends[index - 1] : 0, column.ends[index]);
}

/** A column that is being filled. */
export class ColumnBuilder {
  #items = [];

  push(bytes) {
    this.#items.push(bytes);
  }

  build() {
    let end = 0;
    const ends = this.#items.map((item) => (end += item ? item.length : 0));
    const data = new Uint8Array(end);
    this.#items.forEach((item, i) => item && data.set(item, ends[i] - item.length));
    const nulls = this.#items.some((item) => item === null) ? Uint8Array.from(this.#items, (item) => (item === null ? 1 : 0)) : null;
    return { ends, data, nulls };
  }
}

/** A record of a batch. Keys, values and headers are there if the module asks for them. */
export class Record {
  #batch;

  constructor(batch, index) {
    this.#batch = batch;
    this.index = index;
  }

  /** Milliseconds since 1970. */
  get timestamp() {
    return this.#batch.timestamps[this.index];
  }

  /** Bytes, or `null`. */
  get key() {
    return item(this.#batch.keys, this.index);
  }

  /** Bytes, or `null`. */
  get value() {
    return item(this.#batch.values, this.index);
  }

  /** Name and value of each, in order: text, and bytes or `null`. */
  get headers() {
    const { ends, names, values } = this.#batch.headers;
    const headers = [];
    for (let i = this.index ? ends[this.index - 1] : 0; i < ends[this.index]; i++) {
      headers.push([text(item(names, i)), item(values, i)]);
    }
    return headers;
  }

  /** Later than the watermark. */
  get late() {
    return this.#marked(1);
  }

  /** The node put its own time in the place of one that was out of bounds. */
  get redated() {
    return this.#marked(4);
  }

  #marked(bit) {
    return this.#batch.marks ? (this.#batch.marks[this.index] & bit) !== 0 : false;
  }

  /** The value as JSON; `undefined` where it is none. */
  json() {
    const value = this.value;
    if (value === null) return undefined;
    try {
      return JSON.parse(text(value));
    } catch {
      return undefined;
    }
  }
}

/** Records to look at, in order. */
export class Batch {
  #batch;
  /** The record that is being looked at: it is told of when the module throws. */
  current = null;

  constructor(batch) {
    this.#batch = batch;
  }

  get length() {
    return this.#batch.timestamps.length;
  }

  /** Which of `config.sources` the records come from. */
  get source() {
    return this.#batch.source;
  }

  /** When the node took them in, in milliseconds since 1970; the same when they are looked at again. */
  get now() {
    return this.#batch.now;
  }

  /** No record before this time is expected any more. */
  get watermark() {
    return this.#batch.watermark;
  }

  *[Symbol.iterator]() {
    const before = this.current;
    try {
      for (let index = 0; index < this.length; index++) {
        this.current = index;
        yield new Record(this.#batch, index);
      }
      this.current = before;
    } finally {
      // Left early, or because something was thrown: then it is the record of the outermost loop that is told of.
      if (before !== null) this.current = before;
    }
  }
}

/** What becomes of a batch. A record of which nothing is said is dropped. */
export class Out {
  #outputs;
  #routes;
  #copies = [];
  #reasons = [];
  #emits = [];

  constructor(outputs, length) {
    this.#outputs = outputs;
    this.#routes = new Uint8Array(length);
  }

  #number(output) {
    const number = this.#outputs.indexOf(output) + 1;
    if (!number) throw new Fatal(`the module has no output \`${output}\`: name it in \`outputs\``);
    return number;
  }

  /** Lets a record go to `output` as it came; said again, to another one too. */
  keep(record, output = "main") {
    const number = this.#number(output);
    if (this.#routes[record.index] === 0) this.#routes[record.index] = number;
    else this.#copies.push([record.index, number]);
  }

  /** Makes a record a dead letter, with why in words. */
  reject(record, why) {
    this.#routes[record.index] = 255;
    this.#reasons.push([record.index, why]);
  }

  /**
   * Sends a new record that stems from `record`. Of `{ key, value, timestamp, headers, bare, output }` what is not given is what
   * `record` has; `null` is none. Keys and values are text, bytes, or anything else as JSON. `headers` are a list of name and value,
   * behind those of `record`, or with `bare` instead of them. Of records from which new ones stem, later ones come later.
   */
  emit(record, { key, value, timestamp, headers, bare = false, output = "main" }) {
    const number = this.#number(output);
    // Before anything is added: what throws here leaves nothing half said.
    const given = (of) => (of === undefined ? undefined : bytes(of));
    const [newKey, newValue] = [given(key), given(value)];
    // Numbers or BigInts: what crosses the wall is of one kind, whichever runs the module.
    const kind = typeof record.timestamp === "bigint" ? BigInt : Number;
    const newTimestamp = timestamp === undefined ? undefined : kind(timestamp);
    if (kind === Number && newTimestamp !== undefined && !Number.isSafeInteger(newTimestamp)) {
      throw new TypeError(`a timestamp is a whole number of milliseconds, not ${timestamp}`);
    }
    const newHeaders = headers?.map(([name, value]) => [bytes(name), bytes(value)]);
    const has = [key, value, timestamp, headers].map((column) => (column === undefined ? "-" : "+")).join("") + bare;
    // Of the same kind as the last one, or a list of its own: those of one record come out as they were sent.
    let emits = this.#emits.at(-1);
    if (emits && emits.sources.at(-1) > record.index) {
      throw new Fatal("new records must stem from records in the order of the batch");
    }
    if (emits?.has !== has) {
      const column = (of) => (of === undefined ? null : new ColumnBuilder());
      emits = {
        has,
        sources: [],
        outputs: [],
        timestamps: timestamp === undefined ? null : [],
        keys: column(key),
        values: column(value),
        headers: headers === undefined ? null : { ends: [], names: new ColumnBuilder(), values: new ColumnBuilder() },
        bare,
      };
      this.#emits.push(emits);
    }
    emits.sources.push(record.index);
    emits.outputs.push(number);
    emits.timestamps?.push(newTimestamp);
    emits.keys?.push(newKey);
    emits.values?.push(newValue);
    if (emits.headers) {
      for (const [name, value] of newHeaders) {
        emits.headers.names.push(name);
        emits.headers.values.push(value);
      }
      emits.headers.ends.push((emits.headers.ends.at(-1) ?? 0) + newHeaders.length);
    }
  }

  /** What crosses the wall. */
  outcome() {
    const built = ({ has, ...emits }) => ({
      ...emits,
      outputs: Uint8Array.from(emits.outputs),
      keys: emits.keys && emits.keys.build(),
      values: emits.values && emits.values.build(),
      headers: emits.headers && {
        ends: emits.headers.ends,
        names: emits.headers.names.build(),
        values: emits.headers.values.build(),
      },
    });
    return {
      routes: this.#routes,
      copies: this.#copies,
      emits: this.#emits.map(built),
      reasons: this.#reasons,
    };
  }
}

function said(error) {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/** What a fault is, from what was thrown while record `current` was looked at. */
function fault(error, current) {
  if (error instanceof Retry) return { tag: "retry", val: error.message };
  if (error instanceof Fatal || current === null) return { tag: "fatal", val: said(error) };
  return { tag: "poison", val: [current, said(error)] };
}

/**
 * A module: `about` in one sentence; `parameters`, each with `kind` ("text", "integer", "number", "boolean" or "json"), `about` and,
 * unless it is required, a `preset`; `outputs`, `["main"]` when nothing is said; `columns`, those of "keys", "values" and "headers"
 * that it looks at, `["values"]` when nothing is said; `stateVersion`, when it keeps state; `init(config)`, which gives what
 * `process(batch, out, self)` is handed. `config` has a value for each parameter, and `partition` and `sources` of the pipeline.
 *
 * What `process` throws while it looks at a record sets that record aside, with what was thrown as the reason.
 */
export function defineModule({
  about,
  parameters = {},
  outputs = ["main"],
  columns = ["values"],
  stateVersion = 0,
  init = () => ({}),
  process,
}) {
  let self;
  return {
    describe: () => ({
      about,
      parameters: Object.entries(parameters).map(([name, { kind, preset, about }]) => ({
        name,
        kind,
        preset: preset === undefined ? null : { tag: kind, val: kind === "json" ? JSON.stringify(preset) : preset },
        about,
      })),
      stateVersion,
    }),

    init({ partition, sources, values }) {
      const config = { partition, sources };
      for (const [name, { tag, val }] of values) config[name] = tag === "json" ? JSON.parse(val) : val;
      try {
        self = init(config);
      } catch (error) {
        throw error instanceof Fatal ? error.message : said(error);
      }
      const wants = (column) => columns.includes(column);
      return { outputs, keys: wants("keys"), values: wants("values"), headers: wants("headers") };
    },

    process(columns) {
      const batch = new Batch(columns);
      const out = new Out(outputs, batch.length);
      try {
        process(batch, out, self);
        return out.outcome();
      } catch (error) {
        throw fault(error, batch.current);
      }
    },
  };
}
