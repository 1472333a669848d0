// SPDX-License-Identifier: Apache-2.0
// Empties a pinned BPF map, as eviction would, and prints how many entries it held.
//
// usage: lab-forget PATH
#include <bpf/bpf.h>
#include <stdint.h>
#include <stdio.h>

int main(int argc, char** argv) {
    uint8_t key[256];
    int gone = 0, map = argc == 2 ? bpf_obj_get(argv[1]) : -1;
    if (map < 0) {
        perror("bpf_obj_get");
        return 1;
    }
    while (bpf_map_get_next_key(map, NULL, key) == 0 && bpf_map_delete_elem(map, key) == 0)
        gone++;
    printf("%d\n", gone);
    return 0;
}
