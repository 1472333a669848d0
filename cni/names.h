// SPDX-License-Identifier: Apache-2.0
// Names of Kubernetes and CNI, checked before they go into a request or a path.
#ifndef CNI_NAMES_H
#define CNI_NAMES_H

#include <stdbool.h>

enum { NAME_MAX_LENGTH = 253, LABEL_MAX_LENGTH = 63, ID_MAX_LENGTH = 256 };

bool name_is_subdomain(const char* text); // DNS-1123 subdomain: names of pods
bool name_is_label(const char* text);     // DNS-1123 label: names of namespaces
bool name_is_id(const char* text);        // container ids and UIDs: [A-Za-z0-9][A-Za-z0-9_.-]*
bool name_is_interface(const char* text); // what the kernel takes as name of a link
bool path_is_plain(const char* text);     // absolute, printable, without `.` or `..` steps

#endif
