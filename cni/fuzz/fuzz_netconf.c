// SPDX-License-Identifier: Apache-2.0
// Any text is either refused with a fault or understood; then the raw bytes of prevResult are those
// of the value that the parser saw.
#include "../netconf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static struct fault fault;
    struct netconf conf = {0};
    char* text = malloc(size + 1); // exact size: reading on is an error of its own
    memcpy(text, data, size);
    text[size] = '\0';
    const int result = netconf_parse(&conf, text, size, &fault);
    if (result < 0 && (fault.code == 0 || fault.msg[0] == '\0')) abort();
    if (result == 0) {
        json_t* ips;
        if (conf.prev_raw != NULL) {
            json_t* raw = json_loadb(conf.prev_raw, conf.prev_raw_size, 0, NULL);
            if (raw == NULL || !json_equal(raw, conf.prev_result)) abort();
            json_decref(raw);
        }
        netconf_excludes(&conf, "kube-system");
        if (netconf_ips(&conf, &ips, &fault) == 0 && json_array_size(ips) > IPS_MAX) abort();
        json_decref(ips);
    }
    netconf_free(&conf);
    free(text);
    return 0;
}
