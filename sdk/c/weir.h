/* Modules for Weir in C: records as rows over the columns that cross the wall, and a builder for what becomes of them.
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
 * Built for wasm32 with `weir.c`, and without a runtime that looks for files or clocks: there are none. What is kept in variables is
 * a cache, since an instance may be replaced by a fresh one between any two batches; what has to be remembered is kept with
 * `weir_state_put`. Memory of `weir_alloc` is there until the call ends; `malloc` is not needed. A module that
 * cannot go on calls `weir_fail`, which does not return: the batch is tried again, then halved until what spoils it stands alone. */
#ifndef WEIR_H
#define WEIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes, or none: then `data` is NULL. They are there until the call ends. */
typedef struct {
    const uint8_t *data;
    uint32_t len;
} weir_bytes;

typedef struct weir_batch {
    /* Records. */
    uint32_t len;
    /* Which source of the pipeline they come from. */
    uint32_t source;
    /* When the node took them in, in milliseconds since 1970; the same when they are looked at again. */
    int64_t now;
    /* No record before this time is expected any more. */
    int64_t watermark;
    /* As they cross the wall. */
    const struct weir_raw_batch *raw;
} weir_batch;

typedef struct weir_out weir_out;
typedef struct weir_config weir_config;

/* What a record is marked with. */
enum { WEIR_LATE = 1, WEIR_BACKFILL = 2, WEIR_REDATED = 4 };
/* Columns that a module looks at. */
enum { WEIR_KEYS = 1, WEIR_VALUES = 2, WEIR_HEADERS = 4 };

typedef enum { WEIR_TEXT, WEIR_INTEGER, WEIR_NUMBER, WEIR_BOOLEAN, WEIR_JSON } weir_kind;

typedef struct {
    const char *name;
    const char *about;
    weir_kind kind;
    /* Without a preset it is required. Text and JSON are in `text`. */
    bool has_preset;
    union {
        const char *text;
        int64_t integer;
        double number;
        bool boolean;
    } preset;
} weir_parameter;

typedef struct {
    /* One sentence on what it does. */
    const char *about;
    const weir_parameter *parameters;
    uint32_t parameters_len;
    /* Names of outputs, the first is 1. `main` alone when there are none. */
    const char *const *outputs;
    uint32_t outputs_len;
    /* Those of WEIR_KEYS, WEIR_VALUES and WEIR_HEADERS that it looks at. */
    uint32_t columns;
    /* Version of what it keeps in state; 0 if it keeps none. */
    uint32_t state_version;
    /* Called once, first. NULL, or why it cannot be. */
    const char *(*init)(const weir_config *config);
    /* Says what becomes of a batch. */
    void (*process)(const weir_batch *batch, weir_out *out);
} weir_module;

/* The module, which its own file has. */
extern const weir_module weir_this;

/* A parameter's value; the pipeline has given each one, of its kind. */
double weir_number(const weir_config *config, const char *name);
int64_t weir_integer(const weir_config *config, const char *name);
bool weir_boolean(const weir_config *config, const char *name);
weir_bytes weir_text(const weir_config *config, const char *name);

/* Record `i` of a batch, of the columns that were asked for. */
int64_t weir_timestamp(const weir_batch *batch, uint32_t i);
weir_bytes weir_key(const weir_batch *batch, uint32_t i);
weir_bytes weir_value(const weir_batch *batch, uint32_t i);
uint8_t weir_marks(const weir_batch *batch, uint32_t i);
uint32_t weir_headers_len(const weir_batch *batch, uint32_t i);
weir_bytes weir_header_name(const weir_batch *batch, uint32_t i, uint32_t n);
weir_bytes weir_header_value(const weir_batch *batch, uint32_t i, uint32_t n);

/* Lets record `i` go to `output` as it came; said again, to another one too. A record of which nothing is said is dropped. */
void weir_keep(weir_out *out, uint32_t i, uint8_t output);
/* Makes record `i` a dead letter, with why in words. */
void weir_reject(weir_out *out, uint32_t i, const char *why);

/* A new record. What is not set is what the record has that it stems from. */
typedef struct {
    bool has_timestamp, has_key, has_value;
    int64_t timestamp;
    weir_bytes key;
    weir_bytes value;
} weir_new;

/* Sends a new record that stems from record `i` to `output`. Later ones stem from the same record or later ones. Copies nothing: what
 * it points to stays as it is until the call ends. */
void weir_emit(weir_out *out, uint32_t i, uint8_t output, const weir_new *record);

/* Memory until the call ends. */
void *weir_alloc(size_t bytes);
/* As printf, into such memory. */
weir_bytes weir_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
weir_bytes weir_of(const char *text);

/* The number that is the member `name` of the JSON object `json`, not of one within it. False where there is none, or one that is too
 * large for a double. */
bool weir_json_number(weir_bytes json, const char *name, double *number);

/* What the module remembers, for pipelines that say `grants = ["state"]`. None of these is linked in unless it is used. */
weir_bytes weir_state_get(weir_bytes key);
/* A value that is none removes. */
void weir_state_put(weir_bytes key, weir_bytes value);

/* Ends the call, with why in the node's log. Nothing of the call takes effect. */
_Noreturn void weir_fail(const char *why);

#endif
