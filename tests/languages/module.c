/* What the SDKs of all languages have to do alike: each letter of a record's key is something that is done with it. */
#include "weir.h"

static void process(const weir_batch *batch, weir_out *out) {
    for (uint32_t i = 0; i < batch->len; i++) {
        weir_bytes key = weir_key(batch, i);
        for (uint32_t n = 0; n < key.len; n++) {
            weir_new record = {.has_value = true, .value = weir_of("v")};
            double number;
            switch (key.data[n]) {
                case 'v': break;
                case 'k':
                    record.has_key = true;
                    record.key = weir_of("new");
                    record.value = weir_of("k");
                    break;
                case '0': record.value = (weir_bytes){0}; break;
                case 't':
                    record.has_timestamp = true;
                    record.timestamp = weir_timestamp(batch, i) + 1;
                    break;
                case '#':
                    if (!weir_json_number(weir_value(batch, i), "n", &number)) {
                        weir_reject(out, i, "no number");
                        continue;
                    }
                    record.value = weir_format("{\"n\":%.15g}", number);
                    break;
                default: continue;
            }
            weir_emit(out, i, 1, &record);
        }
    }
}

const weir_module weir_this = {
    .about = "Does what the letters of a key say.",
    .columns = WEIR_KEYS | WEIR_VALUES,
    .process = process,
};
