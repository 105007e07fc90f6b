/* Modules for Weir in C: records as rows over the columns of the contract, and a builder for the outcome of a batch.
 *
 *     #include "weir.h"
 *
 *     static double limit;
 *
 *     static const char *init(const weir_config *config) {
 *         limit = weir_number(config, "limit");
 *         return NULL;
 *     }
 *
 *     static void process(const weir_batch *batch, weir_out *out) {
 *         for (uint32_t i = 0; i < batch->len; i++) {
 *             double reading;
 *             if (weir_json_number(weir_value(batch, i), "temperature", &reading) && reading > limit) weir_keep(out, i, 1);
 *         }
 *     }
 *
 *     static const weir_parameter parameters[] = {
 *         {.name = "limit", .kind = WEIR_NUMBER, .preset.number = 50, .has_preset = true, .about = "Readings up to this are dropped."},
 *     };
 *
 *     const weir_module weir_this = {
 *         .about = "Keeps readings above a limit.",
 *         .parameters = parameters, .parameters_len = 1,
 *         .columns = WEIR_VALUES,
 *         .init = init, .process = process,
 *     };
 *
 * Build for wasm32 together with `weir.c`, without a runtime that needs files or clocks: there are none. Variables are a cache: the
 * node may replace an instance by a fresh one between any two batches. `weir_state_put` keeps values for good. Memory from `weir_alloc`
 * lives until the call ends; `malloc` is not needed. A module that cannot continue calls `weir_fail`, which does not return: the node
 * retries the batch, then halves it until the offending record is alone. */
#ifndef WEIR_H
#define WEIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes, or null: then `data` is NULL. Valid until the call ends. */
typedef struct {
    const uint8_t *data;
    uint32_t len;
} weir_bytes;

typedef struct weir_batch {
    /* Number of records. */
    uint32_t len;
    /* Index of the pipeline's source that all records come from. */
    uint32_t source;
    /* Time at which the node received the batch, in milliseconds since 1970; the same in a replay. */
    int64_t now;
    /* Records before this time are late; in milliseconds since 1970. */
    int64_t watermark;
    /* The batch in the form of the contract. */
    const struct weir_raw_batch *raw;
} weir_batch;

typedef struct weir_out weir_out;
typedef struct weir_config weir_config;

/* Marks of a record, as bits. */
enum { WEIR_LATE = 1, WEIR_BACKFILL = 2, WEIR_REDATED = 4 };
/* Columns that a module reads, as bits. */
enum { WEIR_KEYS = 1, WEIR_VALUES = 2, WEIR_HEADERS = 4 };

typedef enum { WEIR_TEXT, WEIR_INTEGER, WEIR_NUMBER, WEIR_BOOLEAN, WEIR_JSON } weir_kind;

typedef struct {
    const char *name;
    const char *about;
    weir_kind kind;
    /* A parameter without a preset is required. Text and JSON are in `text`. */
    bool has_preset;
    union {
        const char *text;
        int64_t integer;
        double number;
        bool boolean;
    } preset;
} weir_parameter;

typedef struct {
    /* Description in a sentence. */
    const char *about;
    const weir_parameter *parameters;
    uint32_t parameters_len;
    /* Names of the outputs; the first is output 1. Default: only `main`, the stream. */
    const char *const *outputs;
    uint32_t outputs_len;
    /* The columns that the module reads: a sum of WEIR_KEYS, WEIR_VALUES and WEIR_HEADERS. */
    uint32_t columns;
    /* Version of the stored state; 0 for a module without state. */
    uint32_t state_version;
    /* Prepares the instance; called once, first. Returns NULL, or the reason for a failure. */
    const char *(*init)(const weir_config *config);
    /* Decides on the records of a batch. */
    void (*process)(const weir_batch *batch, weir_out *out);
} weir_module;

/* The module, defined in a file of its own. */
extern const weir_module weir_this;

/* Return the value of a parameter. The node has checked that each parameter has a value of its kind. */
double weir_number(const weir_config *config, const char *name);
int64_t weir_integer(const weir_config *config, const char *name);
bool weir_boolean(const weir_config *config, const char *name);
weir_bytes weir_text(const weir_config *config, const char *name);

/* Return a part of record `i`, of the columns that the module reads. */
int64_t weir_timestamp(const weir_batch *batch, uint32_t i);
weir_bytes weir_key(const weir_batch *batch, uint32_t i);
weir_bytes weir_value(const weir_batch *batch, uint32_t i);
uint8_t weir_marks(const weir_batch *batch, uint32_t i);
uint32_t weir_headers_len(const weir_batch *batch, uint32_t i);
weir_bytes weir_header_name(const weir_batch *batch, uint32_t i, uint32_t n);
weir_bytes weir_header_value(const weir_batch *batch, uint32_t i, uint32_t n);

/* Sends record `i` unchanged to `output`. Further calls send copies to further outputs. Records without a call are dropped. */
void weir_keep(weir_out *out, uint32_t i, uint8_t output);
/* Rejects record `i`: it becomes a dead letter with the reason `why`. */
void weir_reject(weir_out *out, uint32_t i, const char *why);

/* A new record. Fields that are not set are copied from the record it originates from. */
typedef struct {
    bool has_timestamp, has_key, has_value;
    int64_t timestamp;
    weir_bytes key;
    weir_bytes value;
} weir_new;

/* Emits a new record that originates from record `i` to `output`. Origins must come in the order of the batch. Copies nothing: the
 * bytes must stay unchanged until the call ends. */
void weir_emit(weir_out *out, uint32_t i, uint8_t output, const weir_new *record);

/* Allocates memory that lives until the call ends. */
void *weir_alloc(size_t bytes);
/* Formats like printf, into memory from `weir_alloc`. */
weir_bytes weir_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
weir_bytes weir_of(const char *text);

/* Reads the number `name` of the JSON object `json`, not of nested objects. Returns false if there is no such number, or if the number
 * is too large for a double. */
bool weir_json_number(weir_bytes json, const char *name, double *number);

/* State of the module, for stages with `grants = ["state"]`. Linked only if used. Returns null bytes if there is no value. */
weir_bytes weir_state_get(weir_bytes key);
/* Sets the value under `key`; null bytes remove the value. */
void weir_state_put(weir_bytes key, weir_bytes value);

/* Fails the call, with the reason in the node's log. The call has no effect. */
_Noreturn void weir_fail(const char *why);

#endif
