// SPDX-License-Identifier: Apache-2.0
#include "names.h"

#include <limits.h>
#include <net/if.h>
#include <stddef.h>
#include <string.h>

// The C library's classes depend on a locale; these don't.
static bool is_lower(char c) {
    return c >= 'a' && c <= 'z';
}
static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
static bool is_letter(char c) {
    return is_lower(c) || (c >= 'A' && c <= 'Z');
}

static bool is_label(const char* text, size_t size) {
    if (size == 0 || text[0] == '-' || text[size - 1] == '-') return false;
    for (size_t i = 0; i < size; i++)
        if (!is_lower(text[i]) && !is_digit(text[i]) && text[i] != '-') return false;
    return true;
}

bool name_is_label(const char* text) {
    const size_t size = strlen(text);
    return size <= LABEL_MAX_LENGTH && is_label(text, size);
}

bool name_is_subdomain(const char* text) {
    if (strlen(text) > NAME_MAX_LENGTH) return false;
    for (;;) {
        const size_t size = strcspn(text, ".");
        if (!is_label(text, size)) return false;
        if (text[size] == '\0') return true;
        text += size + 1;
    }
}

bool name_is_id(const char* text) {
    if (!is_letter(text[0]) && !is_digit(text[0])) return false;
    size_t size = 1;
    for (; text[size] != '\0'; size++) {
        const char c = text[size];
        if (!is_letter(c) && !is_digit(c) && c != '_' && c != '.' && c != '-') return false;
        if (size >= ID_MAX_LENGTH) return false;
    }
    return true;
}

bool name_is_interface(const char* text) {
    const size_t size = strlen(text);
    if (size == 0 || size >= IF_NAMESIZE) return false;
    if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0) return false;
    for (size_t i = 0; i < size; i++)
        if (text[i] <= ' ' || text[i] > '~' || text[i] == '/' || text[i] == ':') return false;
    return true;
}

bool path_is_plain(const char* text) {
    if (text[0] != '/' || strlen(text) >= PATH_MAX) return false;
    for (const char* at = text; *at != '\0'; at++)
        if (*at < ' ' || *at > '~') return false;
    for (const char* step = text; *step != '\0';) {
        step += strspn(step, "/");
        const size_t size = strcspn(step, "/");
        if ((size == 1 && step[0] == '.') || (size == 2 && step[0] == '.' && step[1] == '.'))
            return false;
        step += size;
    }
    return true;
}
