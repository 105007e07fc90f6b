// State of a module, for worlds that import `weir:module/state`. The stage of the pipeline needs `grants = ["state"]`.

import state from "weir:module/state@0.1.0";
import { bytes, item, text } from "./weir.js";

/** A persistent map from keys to JSON values. Maps of different names are separate. */
export class StateMap {
  #prefix;

  constructor(name) {
    this.#prefix = bytes(name + "\0");
  }

  #key(key) {
    const rest = bytes(key) ?? new Uint8Array();
    const whole = new Uint8Array(this.#prefix.length + rest.length);
    whole.set(this.#prefix);
    whole.set(rest, this.#prefix.length);
    return whole;
  }

  /** Returns the value under `key` (text or bytes); `undefined` if there is none. */
  get(key) {
    const value = state.get(this.#key(key));
    return value === null ? undefined : JSON.parse(text(value));
  }

  set(key, value) {
    state.put(this.#key(key), bytes(JSON.stringify(value)));
  }

  delete(key) {
    state.put(this.#key(key), null);
  }

  /** Iterates over keys (as bytes) and values, ascending by key. */
  *entries() {
    let after = null;
    for (;;) {
      const [keys, values] = state.scan(this.#prefix, after, 256);
      for (let i = 0; i < keys.ends.length; i++) {
        after = item(keys, i);
        yield [after.slice(this.#prefix.length), JSON.parse(text(item(values, i)))];
      }
      if (keys.ends.length === 0) return;
    }
  }
}
