// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include <string.h>

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char* skip_space(const char* at, const char* end) {
    while (at < end && is_space(*at))
        at++;
    return at;
}

// `at` stands on the opening quote; returns the place after the closing one.
static const char* skip_string(const char* at, const char* end) {
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\' && at + 1 < end) at++;
    return at < end ? at + 1 : end;
}

// Without recursion: the text may nest as deep as the parser allows.
static const char* skip_value(const char* at, const char* end) {
    int depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
            if (depth == 0) return at;
            continue;
        }
        if (*at == '{' || *at == '[') depth++;
        if (*at == '}' || *at == ']') {
            if (depth == 0) return at; // the end of a number or word in the object around it
            if (--depth == 0) return at + 1;
        }
        if (depth == 0 && (*at == ',' || is_space(*at))) return at;
        at++;
    }
    return end;
}

bool json_member_span(const char* text, size_t size, const char* key, const char** value,
                      size_t* value_size) {
    const char* end = text + size;
    const size_t key_size = strlen(key);
    bool found = false;
    const char* at = skip_space(text, end);
    if (at == end || *at != '{') return false;
    at++;
    for (;;) {
        at = skip_space(at, end);
        if (at == end || *at != '"') return found;
        const char* name = at + 1;
        at = skip_string(at, end);
        const bool same = (size_t)(at - 1 - name) == key_size && memcmp(name, key, key_size) == 0;
        at = skip_space(at, end);
        if (at == end || *at != ':') return found;
        const char* start = skip_space(at + 1, end);
        at = skip_value(start, end);
        if (same) {
            *value = start;
            *value_size = (size_t)(at - start);
            found = true;
        }
        at = skip_space(at, end);
        if (at == end || *at != ',') return found;
        at++;
    }
}

const char* json_type_name(const json_t* value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}
