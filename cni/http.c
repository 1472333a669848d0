// SPDX-License-Identifier: Apache-2.0
#include "http.h"

#include <string.h>
#include <strings.h>

struct head {
    int status;
    bool chunked;
    bool sized;
    size_t content_length;
};

// Takes one line off the text: from *at to its CRLF (or LF). False when none is complete.
static bool take_line(char** at, char* end, char** line, size_t* size) {
    char* newline = memchr(*at, '\n', (size_t)(end - *at));
    if (newline == NULL) return false;
    *line = *at;
    *size = (size_t)(newline - *at);
    if (*size > 0 && (*line)[*size - 1] == '\r') (*size)--;
    *at = newline + 1;
    return true;
}

static bool parse_status(const char* line, size_t size, int* status) {
    // "HTTP/1.1 200 OK"; the reason may be missing.
    if (size < 12 || memcmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
        line[8] != ' ' || (size > 12 && line[12] != ' '))
        return false;
    *status = 0;
    for (int i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9') return false;
        *status = *status * 10 + (line[i] - '0');
    }
    // Interim answers (1xx) come only to those who ask for them.
    return *status >= 200;
}

// Digits of `base` filling the text exactly; false beyond HTTP_ANSWER_MAX.
static bool parse_size(const char* text, size_t size, unsigned base, size_t* out) {
    size_t value = 0;
    if (size == 0) return false;
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit >= base) return false;
        value = value * base + digit;
        if (value > HTTP_ANSWER_MAX) return false;
    }
    *out = value;
    return true;
}

static bool parse_header(const char* line, size_t size, struct head* head) {
    const char* colon = memchr(line, ':', size);
    if (colon == NULL || colon == line) return false;
    const size_t name_size = (size_t)(colon - line);
    const char* value = colon + 1;
    size_t value_size = size - name_size - 1;
    while (value_size > 0 && (*value == ' ' || *value == '\t'))
        value++, value_size--;
    while (value_size > 0 && (value[value_size - 1] == ' ' || value[value_size - 1] == '\t'))
        value_size--;

    if (name_size == 14 && strncasecmp(line, "content-length", 14) == 0) {
        size_t length;
        if (!parse_size(value, value_size, 10, &length)) return false;
        if (head->sized && head->content_length != length) return false;
        head->sized = true;
        head->content_length = length;
    }
    if (name_size == 17 && strncasecmp(line, "transfer-encoding", 17) == 0) {
        if (value_size != 7 || strncasecmp(value, "chunked", 7) != 0) return false;
        head->chunked = true;
    }
    return true;
}

static enum http_progress parse_head(char** at, char* end, struct head* head) {
    char* line;
    size_t size;
    if (!take_line(at, end, &line, &size)) return HTTP_MORE;
    if (!parse_status(line, size, &head->status)) return HTTP_BAD;
    for (;;) {
        if (!take_line(at, end, &line, &size)) return HTTP_MORE;
        if (size == 0) return HTTP_DONE;
        if (!parse_header(line, size, head)) return HTTP_BAD;
    }
}

// With `join` the chunks are moved together at the body's beginning; without, only looked at.
static enum http_progress walk_chunks(char* body, char* end, bool join, size_t* joined) {
    char* at = body;
    *joined = 0;
    for (;;) {
        char* line;
        size_t line_size;
        size_t size;
        if (!take_line(&at, end, &line, &line_size)) return HTTP_MORE;
        const char* extension = memchr(line, ';', line_size);
        if (extension != NULL) line_size = (size_t)(extension - line);
        if (!parse_size(line, line_size, 16, &size)) return HTTP_BAD;
        if (size == 0) break;
        if ((size_t)(end - at) < size) return HTTP_MORE;
        if (join) memmove(body + *joined, at, size);
        *joined += size;
        at += size;
        if (!take_line(&at, end, &line, &line_size)) return HTTP_MORE;
        if (line_size != 0) return HTTP_BAD;
    }
    // Trailers, which say nothing to us, up to the empty line.
    for (;;) {
        char* line;
        size_t line_size;
        if (!take_line(&at, end, &line, &line_size)) return HTTP_MORE;
        if (line_size == 0) return HTTP_DONE;
    }
}

enum http_progress http_parse(char* data, size_t size, bool closed, struct http_answer* answer) {
    struct head head = {0};
    char* at = data;
    char* end = data + size;
    // Garbage without a newline need not be collected to the bound before it is refused.
    if (size >= 5 && memcmp(data, "HTTP/", 5) != 0) return HTTP_BAD;
    const enum http_progress progress = parse_head(&at, end, &head);
    if (progress != HTTP_DONE) return progress;
    answer->status = head.status;
    answer->body = at;
    const size_t rest = (size_t)(end - at);

    if (head.chunked) {
        if (head.sized) return HTTP_BAD; // two opinions about the length (RFC 9112, 6.3)
        const enum http_progress chunks = walk_chunks(at, end, false, &answer->body_size);
        if (chunks == HTTP_DONE) walk_chunks(at, end, true, &answer->body_size);
        return chunks;
    }
    if (head.sized) {
        answer->body_size = head.content_length;
        return rest >= head.content_length ? HTTP_DONE : HTTP_MORE;
    }
    answer->body_size = rest;
    return closed || head.status == 204 ? HTTP_DONE : HTTP_MORE;
}
