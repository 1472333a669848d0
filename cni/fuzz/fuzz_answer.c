// SPDX-License-Identifier: Apache-2.0
// An answer that arrives in two pieces means what it means in one, and stays within its buffer.
#include "../verdict.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static char* copy_of(const uint8_t* data, size_t size) {
    char* copy = malloc(size == 0 ? 1 : size);
    memcpy(copy, data, size);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static struct fault fault;
    struct http_answer whole = {0};
    struct http_answer part = {0};
    enum verdict_wish wish;
    if (size < 2) return 0;
    const size_t split = ((size_t)data[0] << 8 | data[1]) % (size - 1);
    data += 2;
    size -= 2;

    char* buffer = copy_of(data, size);
    const enum http_progress progress = http_parse(buffer, size, false, &whole);
    if (progress == HTTP_DONE) {
        if (whole.body < buffer || whole.body + whole.body_size > buffer + size) abort();
        if (verdict_of_answer(&whole, &wish, &fault) == 0 && whole.status != 200) abort();
    }

    const size_t part_size = split < size ? split : size;
    char* piece = copy_of(data, part_size);
    const enum http_progress first = http_parse(piece, part_size, false, &part);
    // More bytes never make a refused or complete answer something else.
    if (first == HTTP_BAD && progress != HTTP_BAD) abort();
    if (first == HTTP_DONE &&
        (progress != HTTP_DONE || part.status != whole.status ||
         (part.status != 204 && (part.body_size != whole.body_size ||
                                 memcmp(part.body, whole.body, part.body_size) != 0))))
        abort();
    free(piece);

    memcpy(buffer, data, size);
    if (http_parse(buffer, size, true, &whole) == HTTP_DONE)
        verdict_of_answer(&whole, &wish, &fault);
    free(buffer);
    return 0;
}
