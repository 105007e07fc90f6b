/* State of a module. In a file of its own, so that a module without state does not import it. */
#include "weir.h"

#define IMPORT(name) __attribute__((import_module("weir:module/state@0.1.0"), import_name(name)))

typedef struct {
    uint8_t some;
    const uint8_t *data;
    uint32_t len;
} maybe_bytes;

IMPORT("get") void state_get(const uint8_t *key, uint32_t len, maybe_bytes *value);
IMPORT("put") void state_put(const uint8_t *key, uint32_t len, uint32_t some, const uint8_t *value, uint32_t value_len);

weir_bytes weir_state_get(weir_bytes key) {
    maybe_bytes value;
    state_get(key.data, key.len, &value);
    if (!value.some) return (weir_bytes){0};
    return (weir_bytes){value.len ? value.data : (const uint8_t *)"", value.len};
}

void weir_state_put(weir_bytes key, weir_bytes value) {
    state_put(key.data, key.len, value.data != NULL, value.data, value.len);
}
