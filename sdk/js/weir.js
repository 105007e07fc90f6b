// Modules for Weir in JavaScript: records as rows over the columns of the contract, and a builder for the outcome of a batch.
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
// A module has no clock, no random numbers, no files and no network. Variables are a cache: the node may replace an instance by a
// fresh one between any two batches. `state.js` keeps values for good.

const encoder = typeof TextEncoder === "undefined" ? null : new TextEncoder();
const decoder = typeof TextDecoder === "undefined" ? null : new TextDecoder();

/** Decodes UTF-8; invalid bytes become U+FFFD. */
export function text(bytes) {
  if (decoder) return decoder.decode(bytes);
  // Fast path for ASCII, which most values are.
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

/** Converts text, bytes, or anything else as JSON, to bytes; `null` stays `null`. */
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

/** Temporary: the node retries the same batch a little later. */
export class Retry extends Error {}
/** Permanent: the pipeline stops until an operator acts. */
export class Fatal extends Error {}

/** Returns item `index` of a column: bytes, or `null`. */
export function item(column, index) {
  if (column.nulls && column.nulls[index]) return null;
  return column.data.subarray(index ? column.ends[index - 1] : 0, column.ends[index]);
}

/** A column under construction. */
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

/** A record of a batch. Keys, values and headers are present only if the module's `columns` name them. */
export class Record {
  #batch;

  constructor(batch, index) {
    this.#batch = batch;
    this.index = index;
  }

  /** The timestamp, in milliseconds since 1970. */
  get timestamp() {
    return this.#batch.timestamps[this.index];
  }

  /** The key: bytes, or `null`. */
  get key() {
    return item(this.#batch.keys, this.index);
  }

  /** The value: bytes, or `null`. */
  get value() {
    return item(this.#batch.values, this.index);
  }

  /** Name (text) and value (bytes or `null`) of each header, in order. */
  get headers() {
    const { ends, names, values } = this.#batch.headers;
    const headers = [];
    for (let i = this.index ? ends[this.index - 1] : 0; i < ends[this.index]; i++) {
      headers.push([text(item(names, i)), item(values, i)]);
    }
    return headers;
  }

  /** True if the record arrived after the watermark had passed its timestamp. */
  get late() {
    return this.#marked(1);
  }

  /** True if the timestamp was out of bounds and was replaced by the node's time. */
  get redated() {
    return this.#marked(4);
  }

  #marked(bit) {
    return this.#batch.marks ? (this.#batch.marks[this.index] & bit) !== 0 : false;
  }

  /** Returns the value parsed as JSON; `undefined` if it is not JSON. */
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

/** The records of a batch, in order. */
export class Batch {
  #batch;
  /** Index of the current record: reported if the module throws. */
  current = null;

  constructor(batch) {
    this.#batch = batch;
  }

  get length() {
    return this.#batch.timestamps.length;
  }

  /** Index into `config.sources` of the topic of all records. */
  get source() {
    return this.#batch.source;
  }

  /** Time at which the node received the batch, in milliseconds since 1970; the same in a replay. */
  get now() {
    return this.#batch.now;
  }

  /** Records before this time are late; in milliseconds since 1970. */
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
      // After an early exit or an exception, the record of the outermost loop is the current record.
      if (before !== null) this.current = before;
    }
  }
}

/** The outcome of a batch. Records without a call are dropped. */
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

  /** Sends a record unchanged to `output`. Further calls send copies to further outputs. */
  keep(record, output = "main") {
    const number = this.#number(output);
    if (this.#routes[record.index] === 0) this.#routes[record.index] = number;
    else this.#copies.push([record.index, number]);
  }

  /** Rejects a record: it becomes a dead letter with the reason `why`. */
  reject(record, why) {
    this.#routes[record.index] = 255;
    this.#reasons.push([record.index, why]);
  }

  /**
   * Emits a new record that originates from `record`. Fields of `{ key, value, timestamp, headers, bare, output }` that are not given
   * are copied from `record`; `null` stands for null. Keys and values are text, bytes, or anything else as JSON. `headers` is a list of
   * name and value, added to the headers of `record`, or with `bare` in their place. Origins must come in the order of the batch.
   */
  emit(record, { key, value, timestamp, headers, bare = false, output = "main" }) {
    const number = this.#number(output);
    // Converted first: an exception leaves the outcome unchanged.
    const given = (of) => (of === undefined ? undefined : bytes(of));
    const [newKey, newValue] = [given(key), given(value)];
    // Numbers or BigInts, by the engine that runs the module.
    const kind = typeof record.timestamp === "bigint" ? BigInt : Number;
    const newTimestamp = timestamp === undefined ? undefined : kind(timestamp);
    if (kind === Number && newTimestamp !== undefined && !Number.isSafeInteger(newTimestamp)) {
      throw new TypeError(`a timestamp is a whole number of milliseconds, not ${timestamp}`);
    }
    const newHeaders = headers?.map(([name, value]) => [bytes(name), bytes(value)]);
    const has = [key, value, timestamp, headers].map((column) => (column === undefined ? "-" : "+")).join("") + bare;
    // A new list unless the last one has the same columns: records keep the order of emission.
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

  /** Returns the outcome in the form of the contract. */
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

function reason(error) {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/** Converts an exception to a fault; `current` is the record being processed, or `null`. */
function fault(error, current) {
  if (error instanceof Retry) return { tag: "retry", val: error.message };
  if (error instanceof Fatal || current === null) return { tag: "fatal", val: reason(error) };
  return { tag: "poison", val: [current, reason(error)] };
}

/**
 * Defines a module:
 *
 * - `about`: description in a sentence
 * - `parameters`: by name, each with `kind` ("text", "integer", "number", "boolean" or "json"), `about` and, unless required, `preset`
 * - `outputs`: names of the outputs; default `["main"]`, the stream
 * - `columns`: the columns that the module reads, of "keys", "values" and "headers"; default `["values"]`
 * - `stateVersion`: version of the stored state; 0, the default, for a module without state
 * - `init(config)`: returns the `self` of `process`. `config` has a value for each parameter, and the pipeline's `partition` and `sources`
 * - `process(batch, out, self)`: decides on the records of a batch. An exception rejects the current record, with the exception as the
 *   reason
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
        throw error instanceof Fatal ? error.message : reason(error);
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
