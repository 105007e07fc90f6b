/* The canonical ABI of `weir:module` 0.1.0, by hand. The component model defines the layout of values in memory
 * (https://github.com/WebAssembly/component-model, CanonicalABI.md); for these types it equals the layout of C on wasm32. */
#include "weir.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(void *) == 4, "for wasm32");

#define EXPORT(name) __attribute__((export_name("weir:module/transform@0.1.0#" name)))
#define AFTER(name) __attribute__((export_name("cabi_post_weir:module/transform@0.1.0#" name)))
#define IMPORT(module, name) __attribute__((import_module("weir:module/" module "@0.1.0"), import_name(name)))

typedef struct {
    void *data;
    uint32_t len;
} list;

typedef struct {
    uint8_t some;
    list list;
} maybe_list;

typedef struct {
    list ends;
    list data;
    maybe_list nulls;
} column;

typedef struct {
    uint8_t some;
    column column;
} maybe_column;

typedef struct {
    uint8_t some;
    list ends;
    column names;
    column values;
} maybe_headers;

struct weir_raw_batch {
    uint32_t source;
    int64_t now;
    int64_t watermark;
    list timestamps;
    maybe_list marks;
    maybe_column keys;
    maybe_column values;
    maybe_headers headers;
};

_Static_assert(sizeof(column) == 28 && sizeof(maybe_headers) == 68 && sizeof(struct weir_raw_batch) == 176, "as the ABI has it");

typedef struct {
    uint8_t tag;
    union {
        list text;
        int64_t integer;
        double number;
        uint8_t boolean;
    } is;
} value;

typedef struct {
    list name;
    value value;
} named_value;

typedef struct {
    list name;
    uint8_t kind;
    struct {
        uint8_t some;
        value value;
    } preset;
    list about;
} raw_parameter;

_Static_assert(sizeof(value) == 16 && sizeof(named_value) == 24 && sizeof(raw_parameter) == 48, "as the ABI has it");

struct weir_config {
    const named_value *values;
    uint32_t len;
};

typedef struct {
    uint32_t index;
    uint8_t output;
} copy;

typedef struct {
    uint32_t index;
    list why;
} reason;

typedef struct {
    list sources;
    list outputs;
    maybe_list timestamps;
    maybe_column keys;
    maybe_column values;
    maybe_headers headers;
    uint8_t bare;
} emits;

_Static_assert(sizeof(emits) == 164, "as the ABI has it");

typedef struct {
    list routes;
    list copies;
    list emits;
    list reasons;
} outcome;

/* Memory that lives until the call ends: arguments from the host, allocations of the module, and the result. */
#define BLOCK_BYTES (64u << 10)

typedef struct block {
    struct block *next;
    uint32_t bytes;
    uint32_t used;
    _Alignas(8) uint8_t data[];
} block;

static block *blocks;

void *weir_alloc(size_t bytes) {
    bytes = (bytes + 7) & ~(size_t)7;
    if (!blocks || blocks->bytes - blocks->used < bytes) {
        size_t most = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block *fresh = malloc(sizeof(block) + most);
        if (!fresh) __builtin_trap();
        *fresh = (block){.next = blocks, .bytes = most, .used = 0};
        blocks = fresh;
    }
    void *given = blocks->data + blocks->used;
    blocks->used += bytes;
    return given;
}

/* Frees all blocks but one. */
static void end_call(void) {
    while (blocks && blocks->next) {
        block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
    if (blocks) blocks->used = 0;
}

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_bytes, size_t align, size_t bytes) {
    (void)align;
    void *fresh = weir_alloc(bytes);
    if (old_bytes) memcpy(fresh, old, old_bytes < bytes ? old_bytes : bytes);
    return fresh;
}

weir_bytes weir_of(const char *text) { return (weir_bytes){(const uint8_t *)text, strlen(text)}; }

static list text(const char *text) { return (list){(void *)text, strlen(text)}; }

weir_bytes weir_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0) return (weir_bytes){0};
    char *text = weir_alloc(len + 1);
    va_start(args, format);
    vsnprintf(text, len + 1, format, args);
    va_end(args);
    return (weir_bytes){(uint8_t *)text, len};
}

/* A growing list, for the outcome of a batch. */
typedef struct {
    void *data;
    uint32_t len, room;
} growing;

static void *push(growing *g, size_t item) {
    if (g->len == g->room) {
        uint32_t room = g->room ? g->room * 2 : 16;
        void *fresh = weir_alloc(room * item);
        if (g->len) memcpy(fresh, g->data, g->len * item);
        g->data = fresh;
        g->room = room;
    }
    return (uint8_t *)g->data + g->len++ * item;
}

static list as_list(growing g) { return (list){g.data, g.len}; }

typedef struct {
    uint32_t index;
    uint8_t output;
    weir_new record;
} made;

struct weir_out {
    uint8_t *routes;
    uint32_t len;
    growing copies, reasons, made;
};

void weir_keep(weir_out *out, uint32_t i, uint8_t output) {
    if (out->routes[i] == 0) out->routes[i] = output;
    else *(copy *)push(&out->copies, sizeof(copy)) = (copy){i, output};
}

void weir_reject(weir_out *out, uint32_t i, const char *why) {
    out->routes[i] = 255;
    *(reason *)push(&out->reasons, sizeof(reason)) = (reason){i, text(why)};
}

void weir_emit(weir_out *out, uint32_t i, uint8_t output, const weir_new *record) {
    *(made *)push(&out->made, sizeof(made)) = (made){i, output, *record};
}

static weir_bytes item(const column *column, uint32_t i) {
    const uint8_t *nulls = column->nulls.some ? column->nulls.list.data : NULL;
    if (nulls && nulls[i]) return (weir_bytes){0};
    const uint32_t *ends = column->ends.data;
    uint32_t from = i ? ends[i - 1] : 0;
    /* Empty is not null. */
    const uint8_t *data = column->data.data ? column->data.data : (const uint8_t *)"";
    return (weir_bytes){data + from, ends[i] - from};
}

/* Builds a column of the keys or the values of `made`. */
static column build(const made *made, uint32_t len, bool is_key) {
    uint32_t *ends = weir_alloc(len * sizeof(uint32_t)), end = 0;
    uint8_t *nulls = weir_alloc(len);
    bool any = false;
    for (uint32_t n = 0; n < len; n++) {
        weir_bytes part = is_key ? made[n].record.key : made[n].record.value;
        nulls[n] = part.data == NULL;
        any |= nulls[n];
        ends[n] = end += part.len;
    }
    uint8_t *data = weir_alloc(end);
    for (uint32_t n = 0; n < len; n++) {
        weir_bytes part = is_key ? made[n].record.key : made[n].record.value;
        if (part.len) memcpy(data + ends[n] - part.len, part.data, part.len);
    }
    return (column){{ends, len}, {data, end}, {any, {nulls, len}}};
}

static bool is_alike(const weir_new *a, const weir_new *b) {
    return a->has_timestamp == b->has_timestamp && a->has_key == b->has_key && a->has_value == b->has_value;
}

/* Consecutive new records with the same parts share a list. */
static list build_emits(const weir_out *out) {
    const made *all = out->made.data;
    growing lists = {0};
    for (uint32_t from = 0, to; from < out->made.len; from = to) {
        for (to = from + 1; to < out->made.len && is_alike(&all[from].record, &all[to].record); to++) {}
        const made *run = all + from;
        uint32_t len = to - from;
        uint32_t *sources = weir_alloc(len * sizeof(uint32_t));
        uint8_t *outputs = weir_alloc(len);
        int64_t *timestamps = weir_alloc(len * sizeof(int64_t));
        for (uint32_t n = 0; n < len; n++) {
            sources[n] = run[n].index;
            outputs[n] = run[n].output;
            timestamps[n] = run[n].record.timestamp;
        }
        emits *emits = push(&lists, sizeof(*emits));
        memset(emits, 0, sizeof(*emits));
        emits->sources = (list){sources, len};
        emits->outputs = (list){outputs, len};
        emits->timestamps = (maybe_list){run->record.has_timestamp, {timestamps, len}};
        if (run->record.has_key) emits->keys = (maybe_column){1, build(run, len, true)};
        if (run->record.has_value) emits->values = (maybe_column){1, build(run, len, false)};
    }
    return as_list(lists);
}

int64_t weir_timestamp(const weir_batch *batch, uint32_t i) { return ((const int64_t *)batch->raw->timestamps.data)[i]; }
weir_bytes weir_key(const weir_batch *batch, uint32_t i) { return item(&batch->raw->keys.column, i); }
weir_bytes weir_value(const weir_batch *batch, uint32_t i) { return item(&batch->raw->values.column, i); }

uint8_t weir_marks(const weir_batch *batch, uint32_t i) {
    const maybe_list *marks = &batch->raw->marks;
    return marks->some ? ((const uint8_t *)marks->list.data)[i] : 0;
}

static uint32_t first_header(const weir_batch *batch, uint32_t i) {
    return i ? ((const uint32_t *)batch->raw->headers.ends.data)[i - 1] : 0;
}

uint32_t weir_headers_len(const weir_batch *batch, uint32_t i) {
    return ((const uint32_t *)batch->raw->headers.ends.data)[i] - first_header(batch, i);
}

weir_bytes weir_header_name(const weir_batch *batch, uint32_t i, uint32_t n) {
    return item(&batch->raw->headers.names, first_header(batch, i) + n);
}

weir_bytes weir_header_value(const weir_batch *batch, uint32_t i, uint32_t n) {
    return item(&batch->raw->headers.values, first_header(batch, i) + n);
}

static const value *parameter(const weir_config *config, const char *name) {
    size_t len = strlen(name);
    for (uint32_t n = 0; n < config->len; n++) {
        const named_value *is = &config->values[n];
        if (is->name.len == len && !memcmp(is->name.data, name, len)) return &is->value;
    }
    /* Not in `parameters`: the host provides a value for each of those. */
    __builtin_trap();
}

double weir_number(const weir_config *config, const char *name) { return parameter(config, name)->is.number; }
int64_t weir_integer(const weir_config *config, const char *name) { return parameter(config, name)->is.integer; }
bool weir_boolean(const weir_config *config, const char *name) { return parameter(config, name)->is.boolean; }

weir_bytes weir_text(const weir_config *config, const char *name) {
    const value *value = parameter(config, name);
    return (weir_bytes){value->is.text.data ? value->is.text.data : (const uint8_t *)"", value->is.text.len};
}

EXPORT("describe") void *describe(void) {
    static struct {
        list about;
        list parameters;
        uint32_t state_version;
    } answer;
    raw_parameter *parameters = weir_alloc(weir_this.parameters_len * sizeof(raw_parameter));
    for (uint32_t n = 0; n < weir_this.parameters_len; n++) {
        const weir_parameter *from = &weir_this.parameters[n];
        value preset = {.tag = from->kind};
        if (from->kind == WEIR_INTEGER) preset.is.integer = from->preset.integer;
        else if (from->kind == WEIR_NUMBER) preset.is.number = from->preset.number;
        else if (from->kind == WEIR_BOOLEAN) preset.is.boolean = from->preset.boolean;
        else if (from->has_preset) preset.is.text = text(from->preset.text);
        parameters[n] = (raw_parameter){
            .name = text(from->name),
            .kind = from->kind,
            .preset = {from->has_preset, preset},
            .about = text(from->about),
        };
    }
    answer.about = text(weir_this.about);
    answer.parameters = (list){parameters, weir_this.parameters_len};
    answer.state_version = weir_this.state_version;
    return &answer;
}

EXPORT("init") void *init(uint32_t partition, void *sources, uint32_t sources_len, named_value *values, uint32_t len) {
    (void)partition, (void)sources, (void)sources_len;
    static struct {
        uint8_t is_error;
        union {
            struct {
                list outputs;
                uint8_t keys, values, headers;
            } plan;
            list why;
        } is;
    } answer;
    const weir_config config = {values, len};
    const char *why = weir_this.init ? weir_this.init(&config) : NULL;
    if (why) {
        answer.is_error = 1;
        answer.is.why = text(why);
        return &answer;
    }
    static const char *const only_main[] = {"main"};
    bool has_outputs = weir_this.outputs_len > 0;
    const char *const *names = has_outputs ? weir_this.outputs : only_main;
    uint32_t names_len = has_outputs ? weir_this.outputs_len : 1;
    list *outputs = weir_alloc(names_len * sizeof(list));
    for (uint32_t n = 0; n < names_len; n++) outputs[n] = text(names[n]);
    answer.is_error = 0;
    answer.is.plan.outputs = (list){outputs, names_len};
    answer.is.plan.keys = (weir_this.columns & WEIR_KEYS) != 0;
    answer.is.plan.values = (weir_this.columns & WEIR_VALUES) != 0;
    answer.is.plan.headers = (weir_this.columns & WEIR_HEADERS) != 0;
    return &answer;
}

EXPORT("process") void *process(const struct weir_raw_batch *raw) {
    static struct {
        uint8_t is_fault;
        outcome outcome;
    } answer;
    const weir_batch batch = {
        .len = raw->timestamps.len,
        .source = raw->source,
        .now = raw->now,
        .watermark = raw->watermark,
        .raw = raw,
    };
    weir_out out = {.routes = weir_alloc(batch.len), .len = batch.len};
    memset(out.routes, 0, batch.len);
    weir_this.process(&batch, &out);
    answer.is_fault = 0;
    answer.outcome = (outcome){
        .routes = {out.routes, batch.len},
        .copies = as_list(out.copies),
        .emits = build_emits(&out),
        .reasons = as_list(out.reasons),
    };
    return &answer;
}

AFTER("describe") void after_describe(void *answer) {
    (void)answer;
    end_call();
}

AFTER("init") void after_init(void *answer) {
    (void)answer;
    end_call();
}

AFTER("process") void after_process(void *answer) {
    (void)answer;
    end_call();
}

/* Level 3 is `error`. */
IMPORT("log", "write") void log_write(uint32_t level, const char *message, uint32_t len);

void weir_fail(const char *why) {
    log_write(3, why, strlen(why));
    __builtin_trap();
}

static const uint8_t *skip_space(const uint8_t *at, const uint8_t *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
    return at;
}

/* Returns the place after the string that begins at `at`; NULL if the string does not end. */
static const uint8_t *skip_string(const uint8_t *at, const uint8_t *end) {
    for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\') at++;
    }
    return at < end ? at + 1 : NULL;
}

bool weir_json_number(weir_bytes json, const char *name, double *number) {
    size_t name_len = strlen(name);
    const uint8_t *end = json.data + json.len, *at = json.data;
    if (!at) return false;
    at = skip_space(at, end);
    if (at == end || *at != '{') return false;
    uint32_t depth = 0;
    for (bool is_name = true; at < end;) {
        if (*at == '"') {
            const uint8_t *begin = at + 1;
            at = skip_string(at, end);
            if (!at) return false;
            bool is_it = depth == 1 && is_name && (size_t)(at - 1 - begin) == name_len && !memcmp(begin, name, name_len);
            if (!is_it) continue;
            at = skip_space(at, end);
            if (at == end || *at != ':') return false;
            at = skip_space(at + 1, end);
            if (at == end || !(*at == '-' || (*at >= '0' && *at <= '9'))) return false;
            begin = at;
            while (at < end && *at && strchr("+-.0123456789eE", *at)) at++;
            const uint8_t *next = skip_space(at, end);
            if (next == end || !(*next == ',' || *next == '}')) return false;
            /* strtod needs a terminating zero; few numbers are longer than this buffer. */
            char few[64], *rest;
            size_t len = at - begin;
            char *digits = len < sizeof(few) ? few : weir_alloc(len + 1);
            memcpy(digits, begin, len);
            digits[len] = 0;
            *number = strtod(digits, &rest);
            /* A number too large for a double could not be written back. */
            return rest == digits + len && *number - *number == 0;
        }
        if (*at == '{' || *at == '[') depth++;
        if ((*at == '}' || *at == ']') && --depth == 0) return false;
        if (depth == 1) is_name = *at == ':' ? false : *at == ',' || *at == '{' ? true : is_name;
        at++;
    }
    return false;
}
