// SPDX-License-Identifier: Apache-2.0
// The part of HTTP/1.1 (RFC 9112) that one request and one answer on a connection need.
#ifndef CNI_HTTP_H
#define CNI_HTTP_H

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_ANSWER_MAX = 65536 }; // head and body

enum http_progress {
    HTTP_MORE, // not complete yet
    HTTP_DONE,
    HTTP_BAD, // not HTTP, or of a kind we don't take
};

struct http_answer {
    int status;
    char* body; // inside the buffer given to http_parse
    size_t body_size;
};

// Looks at all that has arrived so far. `closed`: nothing more will come. A chunked body is joined
// in place, so the buffer may be parsed again only while the result is HTTP_MORE.
enum http_progress http_parse(char* data, size_t size, bool closed, struct http_answer* answer);

#endif
